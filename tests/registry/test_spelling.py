"""Names that are not known: what may have been meant."""

from __future__ import annotations

import pytest

from esci_tournament.registry.settings import Settings
from esci_tournament.registry.spelling import did_you_mean, nearest


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_a_setting_with_two_letters_swapped_is_recognised(name: str) -> None:
    middle = len(name) // 2
    mistyped = name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]
    assert did_you_mean(mistyped.upper(), Settings.model_fields) == f"; did you mean {name}?"


def test_nothing_is_suggested_that_is_not_alike() -> None:
    assert nearest("xyzzy", Settings.model_fields) == []
    assert did_you_mean("", Settings.model_fields) == ""
