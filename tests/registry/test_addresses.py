"""No password of an address is printed, stored or sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.addresses import masked, without_password
from esci_tournament.registry.database import Database
from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.registry.models import Models

SECRET = "S3cretPw"
LETTERS = st.text(st.characters(exclude_characters="/ \t\r\n", categories=["L", "N", "P"]), min_size=1)


@given(LETTERS)
def test_whatever_the_password_it_is_gone_and_the_rest_stands(password: str) -> None:
    found = without_password(f"postgresql+psycopg://ledger:{password}@db:5432/ledger")
    assert found == "postgresql+psycopg://ledger:***@db:5432/ledger"


def test_it_is_masked_in_lists_and_dicts_and_what_holds_none_stays() -> None:
    content = {"url": f"redis://:{SECRET}@cache/0", "more": [f"see https://me:{SECRET}@x/y, or", 7], "none": None}
    assert SECRET not in str(masked(content))
    assert masked({"path": "sqlite:////home/a:b@c.db", "n": 1.5}) == {"path": "sqlite:////home/a:b@c.db", "n": 1.5}


def test_errors_of_stores_that_are_away_name_the_address_without_it(tmp_path) -> None:
    """X2.1: MLflow's server is down."""
    models = Models(f"http://me:{SECRET}@127.0.0.1:1", tmp_path)
    with pytest.raises(StoreError) as told:
        models.ensembles()
    assert SECRET not in str(told.value)
    with pytest.raises(UsageError) as told:
        Database.open(f"mysql://me:{SECRET}@db/ledger:::")
    assert SECRET not in str(told.value)
