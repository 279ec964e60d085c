"""Looks at a test split: a split with mostly the same pairs counts as the same split, whatever its digest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.flows.context import Roles, Source, TournamentContext
from esci_tournament.flows.looks import looks_before
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.store import digest_of_test


def pairs(first: int, last: int) -> pd.DataFrame:
    ids = np.arange(first, last)
    return pd.DataFrame({"example_id": ids, "label": (ids % 4).astype(np.int8)})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(Settings(home=tmp_path / "home"))


def look(workspace: Workspace, tournament: str, test: pd.DataFrame, against: int = 1) -> int:
    """Take a look as the judge does, and return how many were taken before it."""
    ledger = workspace.ledger
    ledger.record_data_version("data")
    ledger.start_tournament(tournament, "data")
    context = TournamentContext(
        Attempt(tournament, "new", against, 1), Source(Path(), "data", Path()), Roles(Path(), "roles")
    )
    before = looks_before(workspace, context, test)
    ledger.record_look(digest_of_test(test), tournament, against)
    return before


def test_each_look_at_the_same_pairs_counts(workspace: Workspace) -> None:
    assert [look(workspace, f"t{number}", pairs(0, 100)) for number in range(3)] == [0, 1, 2]


def test_the_same_look_again_is_no_second_one_but_another_opponent_is(workspace: Workspace) -> None:
    assert look(workspace, "t1", pairs(0, 100)) == 0
    assert look(workspace, "t1", pairs(0, 100)) == 0
    assert look(workspace, "t1", pairs(0, 100), against=2) == 1


def test_a_split_that_grows_a_little_every_week_never_begins_anew(workspace: Workspace) -> None:
    assert [look(workspace, f"t{week}", pairs(0, 100 + 5 * week)) for week in range(8)] == list(range(8))


def test_a_split_that_is_mostly_new_begins_at_the_first_look(workspace: Workspace) -> None:
    assert look(workspace, "t1", pairs(0, 100)) == 0
    assert look(workspace, "t2", pairs(60, 160)) == 0  # 40 of 100 pairs are known
    assert look(workspace, "t3", pairs(40, 140)) == 2  # 60 are those of t1, 80 those of t2


def test_pairs_that_were_labelled_again_are_new(workspace: Workspace) -> None:
    assert look(workspace, "t1", pairs(0, 100)) == 0
    relabelled = pairs(0, 100).assign(label=np.int8(3))
    assert look(workspace, "t2", relabelled) == 0


def test_a_split_that_is_not_in_the_store_any_more_is_taken_for_a_relative(workspace: Workspace) -> None:
    ledger = workspace.ledger
    ledger.record_data_version("data")
    ledger.start_tournament("elsewhere", "data")
    ledger.record_look("a split of another home", "elsewhere", 1)
    assert look(workspace, "t1", pairs(0, 100)) == 1
