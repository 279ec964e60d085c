"""The first stages: each keeps its result under its inputs, and who may not enter is told why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esci_tournament.flows import preparation
from esci_tournament.flows.context import Source
from esci_tournament.registry.data_reviews import offered
from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.registry.live_data import EVENT
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.plans import read_roles
from esci_tournament.tasks.data.store import save_dataset
from tests.flows.conftest import SPEC, plain


@pytest.fixture
def source(workspace: Workspace, tiny_dataset: Dataset, tmp_path: Path) -> Source:
    """The tiny data as the load stage leaves it."""
    key = workspace.stages.key("load", version=tiny_dataset.version)
    workspace.ledger.record_data_version(tiny_dataset.version)
    folder = workspace.stages.obtain(key, lambda empty: save_dataset(tiny_dataset, empty))
    return Source(folder, tiny_dataset.version, tmp_path)


def test_data_is_loaded_once_and_its_version_is_on_record(
    workspace: Workspace, tiny_world: Path, tiny_dataset: Dataset
) -> None:
    first = preparation.load.fn(workspace, tiny_world)
    made = (first.folder / "products.arrow").stat().st_mtime_ns
    assert preparation.load.fn(workspace, tiny_world) == first
    assert (first.folder / "products.arrow").stat().st_mtime_ns == made
    [row] = workspace.ledger.export()["data_versions"]
    assert row["digest"] == first.version == tiny_dataset.version
    assert (row["payload"]["pairs"], row["payload"]["origin"]) == (len(tiny_dataset.pairs), str(tiny_world))


def test_roles_follow_from_data_and_their_settings_alone(workspace: Workspace, source: Source) -> None:
    first = preparation.split.fn(workspace, source)
    assert len(read_roles(first.folder)) > 100
    others = {"workers": 1, "alpha": 0.01}
    assert preparation.split.fn(Workspace(workspace.settings.model_copy(update=others)), source) == first
    again = preparation.split.fn(Workspace(workspace.settings.model_copy(update={"blend_share": 0.3})), source)
    assert again.key != first.key


def test_data_drifts_from_that_of_the_last_finished_tournament_alone(workspace: Workspace, source: Source) -> None:
    assert preparation.drift.fn(workspace, source) == {}
    workspace.ledger.start_tournament("t-1", source.version)
    workspace.ledger.finish_tournament("t-1")
    assert preparation.drift.fn(workspace, source) == {}
    stages = workspace.stages
    stages.obtain(stages.key("load", version="newer"), lambda empty: _linked(source.folder, empty))
    newer = Source(stages.find(stages.key("load", version="newer")), "newer", Path())
    found = preparation.drift.fn(workspace, newer)
    assert found["rows"]
    assert not any(row["drifted"] for row in found["rows"])  # it is the same data


def _linked(folder: Path, empty: Path) -> None:
    for path in folder.iterdir():
        (empty / path.name).symlink_to(path)


def test_scorers_are_told_of_data_once(workspace: Workspace, source: Source) -> None:
    for _ in range(2):
        assert preparation.serve.fn(workspace, source, "the weekly run")
    [event] = workspace.ledger.events(kind=EVENT)
    assert (event.subject, event.payload["by"]) == (source.version, "the weekly run")


@pytest.mark.parametrize(("when", "waits"), [("review", 1), ("never", 0), (False, 0)])
def test_scorers_wait_for_a_reviewer_or_for_good_where_settings_say_so(workspace, source, when, waits) -> None:
    there = Workspace(Settings(home=workspace.settings.home, refresh_served=when))
    for _ in range(2):
        assert not preparation.serve.fn(there, source, "the weekly run")
    assert len(offered(there.ledger)) == waits
    assert there.ledger.events(kind=EVENT) == []
    # Asked for by hand, it is served unless a reviewer has to say so: `never` is about re-evaluations
    assert preparation.serve.fn(there, source, "ana", by_hand=True) is (not waits)


def test_data_is_validated_here_when_its_checks_passed_under_the_settings_in_force(workspace, source) -> None:
    assert not preparation.is_validated(workspace, source.version)
    preparation.validate.fn(workspace, source)
    assert preparation.is_validated(workspace, source.version)
    assert not preparation.is_validated(workspace, "0" * 64)


def test_who_enters_is_on_record_and_who_cannot_be_read_is_told_why(workspace: Workspace, source: Source) -> None:
    plain(workspace, "broken", '{"family": "language_model", "checkpoint": "/gone"}')
    plain(workspace, "sage", json.dumps(SPEC))
    roles = preparation.split.fn(workspace, source)
    context = preparation.enter.fn(workspace, source, roles, [], [])
    assert [(one.id, one.role) for one in context.entrants] == [("sage/1", "newcomer")]
    assert list(context.refused) == ["broken/1"]
    assert "/gone" in context.refused["broken/1"]
    assert [one.candidate for one in workspace.ledger.entries(context.id)] == ["sage/1"]
    again = preparation.enter.fn(workspace, source, roles, [], [])  # as after a kill
    assert (again.id, again.attempt.state) == (context.id, "interrupted")


def test_the_same_question_is_the_same_tournament_however_it_is_asked(workspace: Workspace, source: Source) -> None:
    roles = preparation.split.fn(workspace, source)
    named = preparation.enter.fn(workspace, source, roles, [parse_spec({"name": "sage"} | SPEC)])
    assert preparation.enter.fn(workspace, source, roles, [], ["sage/1"]).id == named.id


def test_a_tournament_of_nobody_says_how_to_enter(workspace: Workspace, source: Source) -> None:
    roles = preparation.split.fn(workspace, source)
    with pytest.raises(NotFoundError, match="there is no champion and no candidate waits; name some with --candidates"):
        preparation.enter.fn(workspace, source, roles, [])
    assert workspace.ledger.tournaments() == []


def test_too_few_queries_to_learn_from_are_told_before_anything_is_on_record(workspace, source) -> None:
    few = Workspace(workspace.settings.model_copy(update={"blend_share": 0.06}))
    roles = preparation.split.fn(few, source)
    with pytest.raises(UsageError, match=r"too few queries: the aggregator has \d to learn from"):
        preparation.enter.fn(few, source, roles, [parse_spec({"name": "sage"} | SPEC)])
    assert few.ledger.export()["tournaments"] == []
