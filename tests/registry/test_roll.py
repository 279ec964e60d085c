"""Candidates and ensembles of record: what the ledger says counts, and how MLflow differs is said with what to do."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.records import CandidateRecord
from esci_tournament.registry.roll import Roll, enrolled
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.registry.versions import DIGEST_TAG, FAMILY_TAG, SPEC_TAG, CandidateVersion, as_candidate

SPEC = parse_spec({"name": "gcn", "family": "graph_network", "architecture": "gcn"})
OTHER = parse_spec({"name": "gcn", "family": "graph_network", "architecture": "gcn", "seed": 7})
TAGS = {SPEC_TAG: SPEC.model_dump_json(), DIGEST_TAG: SPEC.digest(), FAMILY_TAG: "graph_network"}


class Version:
    """A version as MLflow has it."""

    name, version, run_id, creation_timestamp = "gcn", 1, "run", 1_700_000_000_000

    def __init__(self, tags: dict[str, str]) -> None:
        self.tags = tags


def there(**tags: str) -> CandidateVersion:
    return as_candidate(Version(TAGS | tags), {})


def record(spec: CandidateSpec | None = SPEC, digest: str = SPEC.digest()) -> CandidateRecord:
    payload: dict[str, Any] = {"spec": spec.model_dump(mode="json")} if spec else {}
    return CandidateRecord(1, dt.datetime.now(dt.UTC), "me@here", payload, "gcn/1", digest, "graph_network")


def test_what_agrees_is_no_difference() -> None:
    for digest in (SPEC.digest(), "as an older release computed it"):
        found = enrolled(record(digest=digest), there())
        assert (found.version.spec, found.altered, found.gone, found.refusal) == (SPEC, False, False, "")
        assert found.difference == ""


@pytest.mark.parametrize(
    ("tag", "value", "altered"),
    [
        (SPEC_TAG, OTHER.model_dump_json(), True),
        (SPEC_TAG, "gone", True),
        (SPEC_TAG, "", True),
        (SPEC_TAG, "[" * 40_000, True),
        (SPEC_TAG, json.dumps({"family": "oracle"}), True),
        (DIGEST_TAG, OTHER.digest(), False),
        (FAMILY_TAG, "scores", False),
    ],
)
def test_an_edited_tag_is_named_and_changes_nothing(tag: str, value: str, altered: bool) -> None:
    found = enrolled(record(), there(**{tag: value}))
    assert found.version.spec == SPEC
    assert found.version.digest == SPEC.digest()
    assert f"its tag {tag}" in found.difference
    assert "Put it back" in found.difference
    assert (found.altered, "another one than when it entered" in found.refusal) == (altered, altered)


@given(st.dictionaries(st.sampled_from([SPEC_TAG, DIGEST_TAG, FAMILY_TAG, "tournament.entered", "x"]), st.text()))
def test_no_tags_at_all_change_what_is_on_record(tags: dict[str, str]) -> None:
    version = enrolled(record(), there(**tags)).version
    assert (version.id, version.spec, version.digest) == ("gcn/1", SPEC, SPEC.digest())


def test_a_deleted_version_is_known_by_its_record() -> None:
    found = enrolled(record(), None)
    assert (found.version.spec, found.gone, found.version.run_id) == (SPEC, True, "")
    assert "not in MLflow any more" in found.difference
    assert "deleted from MLflow before it was tried" in found.refusal


def test_a_record_without_a_spec_takes_the_tag_that_has_its_digest_and_no_other() -> None:
    assert enrolled(record(None), there()).version.spec == SPEC
    for version in (None, there(**{SPEC_TAG: "gone"}), there(**{SPEC_TAG: OTHER.model_dump_json()})):
        found = enrolled(record(None), version).version
        assert found.spec is None
        assert "put on record by a release that kept no specs" in found.complaint


def test_a_spec_on_record_that_this_release_cannot_read_says_so() -> None:
    broken = CandidateRecord(**{**vars(record()), "payload": {"spec": {"family": "uninstalled"}}})
    found = enrolled(broken, there()).version
    assert found.spec is None
    assert "family is 'uninstalled'" in found.complaint


@pytest.fixture(scope="module")
def roll(tmp_path_factory: pytest.TempPathFactory) -> Roll:
    home = tmp_path_factory.mktemp("home")
    return Roll(Ledger.open(f"sqlite:///{home / 'ledger.db'}"), Models(f"sqlite:///{home / 'mlflow.db'}", home))


def test_all_candidates_are_listed_wherever_they_are_known(roll: Roll) -> None:
    models, ledger = roll._models, roll._ledger
    for name in ("waits", "known", "deleted", "untagged"):
        version = models.register_candidate(SPEC.model_copy(update={"name": name}))
        if name != "waits":
            ledger.record_candidate(version.id, version.digest, "graph_network", {"spec": SPEC.model_dump(mode="json")})
    models.tracking.client.delete_registered_model("deleted")
    models.set_tags("untagged/1", {SPEC_TAG: None})
    found = {one.id: (one.recorded, one.gone, bool(one.difference)) for one in roll.candidates()}
    assert found == {
        "waits/1": (False, False, False),
        "known/1": (True, False, False),
        "deleted/1": (True, True, True),
        "untagged/1": (True, False, True),
    }
    with pytest.raises(NotFoundError, match="nobody/7"):
        roll.candidate("nobody/7")


def test_the_number_of_an_ensemble_on_record_is_not_given_again(roll: Roll, tmp_path: Path) -> None:
    models, ledger = roll._models, roll._ledger
    (tmp_path / "file").write_text("x")
    first = models.register_ensemble(tmp_path, ["a/1"], "t-1")
    ledger.record_data_version("data")
    ledger.start_tournament("t-1", "data")
    ledger.record_ensemble("t-1", first.name, first.version, {"members": ["a/1"], "run_id": first.run_id})
    models.tracking.client.delete_registered_model(first.name)
    assert roll.ensemble(1).members == ("a/1",)
    assert (models.download(roll.ensemble(1)) / "file").read_text() == "x", "the run still has its files"
    assert "not in MLflow any more" in roll.ensemble_difference(1)
    second = models.register_ensemble(tmp_path, ["b/1"], "t-2", taken=roll.numbers())
    assert second.version == 2
    assert [one.version for one in models.ensembles()] == [2]
    assert roll.challenger("t-2") is None
    with pytest.raises(NotFoundError, match="no version 9"):
        roll.ensemble(9)
