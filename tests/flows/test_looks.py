"""The looks of a home share one budget, whatever pairs they are at, and count by the pairs that they saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from esci_tournament.flows.context import Roles, Source, TournamentContext
from esci_tournament.flows.looks import budget_left, given_up, take_look
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.ensemble.spending import History, look_at


def pairs(first: int, last: int, numbered: int = 0) -> pd.DataFrame:
    """Pairs of their own for each number; `numbered`: what their example ids begin with."""
    ids = np.arange(first, last)
    return pd.DataFrame(
        {
            "example_id": np.arange(len(ids)) + numbered,
            "query_key": (ids // 10).astype(np.uint64),
            "product_id": ids.astype(str),
            "label": (ids % 4).astype(np.int8),
        }
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(Settings(home=tmp_path / "home"))


def look(workspace: Workspace, name: str, test: pd.DataFrame, against: int = 1, outcome: str = "refuse") -> History:
    """Take a look as the judge does, and return what counted before it."""
    ledger = workspace.ledger
    ledger.record_data_version("data")
    if name not in {one.id for one in ledger.tournaments()}:
        ledger.start_tournament(name, "data")
    context = TournamentContext(
        Attempt(name, "new", against, 1), Source(Path(), "data", Path()), Roles(Path(), "roles")
    )
    before = take_look(workspace, context, test, compares=True)
    if outcome:
        ledger.record_verdict(name, outcome, {}, against)
    return before


def test_each_look_at_the_same_pairs_counts_in_full(workspace: Workspace) -> None:
    found = [look(workspace, f"t{number}", pairs(0, 100)) for number in range(4)]
    assert [(one.looks, one.seen) for one in found] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    levels = [look_at(one, 0.05).level for one in found]
    assert levels == pytest.approx([look_at(History(number), 0.05).level for number in range(4)])
    assert [one.payload["level"] for one in workspace.ledger.looks()] == pytest.approx(levels)


def test_what_is_left_is_what_the_sentence_of_the_next_look_says(workspace: Workspace) -> None:
    assert budget_left(workspace.ledger, 0.05) == 1
    for number in range(3):
        before = look(workspace, f"t{number}", pairs(0, 100))
        assert budget_left(workspace.ledger, 0.05) == pytest.approx(look_at(before, 0.05).left)
    left = budget_left(workspace.ledger, 0.05)
    look(workspace, "t-promoted", pairs(0, 100), outcome="promote")
    assert budget_left(workspace.ledger, 0.05) == left
    assert budget_left(workspace.ledger, 0.001) == 0  # a policy that allows less than was spent already


def test_the_same_look_again_is_no_second_one_but_another_opponent_is(workspace: Workspace) -> None:
    assert look(workspace, "t1", pairs(0, 100)).looks == 0
    assert look(workspace, "t1", pairs(0, 100)).looks == 0
    assert look(workspace, "t1", pairs(0, 100), against=2).looks == 1


def test_an_export_that_numbers_its_rows_anew_is_looked_at_again(workspace: Workspace) -> None:
    found = [look(workspace, f"t{week}", pairs(0, 100, numbered=1000 * week)) for week in range(3)]
    assert [(one.looks, one.seen) for one in found] == [(0, 0), (1, 1), (2, 2)]


def test_pairs_count_in_proportion_and_the_budget_is_one(workspace: Workspace) -> None:
    found = [look(workspace, f"t{week}", pairs(50 * week, 50 * week + 100)) for week in range(60)]  # half new each week
    assert [(one.looks, one.seen) for one in found[:3]] == [(0, 0), (1, 0.5), (2, 0.5)]
    assert sum(look_at(one, 0.05).level for one in found) < 0.8 * 0.05
    assert look_at(found[1], 0.05).level > look_at(History(1), 0.05).level  # more than for pairs that were all seen


def test_pairs_that_were_labelled_again_are_new_and_spend_of_the_same_budget(workspace: Workspace) -> None:
    look(workspace, "t1", pairs(0, 100))
    again = look(workspace, "t2", pairs(0, 100).assign(label=np.int8(3)))
    assert (again.looks, again.seen) == (1, 0.25)
    assert again.spent == pytest.approx(look_at(History(), 0.05).level)


def test_a_look_that_promoted_or_could_say_nothing_is_given_back(workspace: Workspace) -> None:
    look(workspace, "t1", pairs(0, 100), outcome="promote")
    look(workspace, "t2", pairs(0, 100), outcome="not-evaluable")
    assert look(workspace, "t3", pairs(0, 100)) == History(0, 0, 0)


def test_a_look_at_a_challenger_that_answers_as_the_champion_is_given_back(workspace: Workspace) -> None:
    look(workspace, "t1", pairs(0, 100), outcome="")
    workspace.ledger.record_verdict("t1", "refuse", {"spends_look": False}, 1)
    assert look(workspace, "t2", pairs(0, 100)).looks == 0


def test_a_look_that_was_broken_off_counts(workspace: Workspace) -> None:
    look(workspace, "t1", pairs(0, 100), outcome="")
    assert look(workspace, "t2", pairs(0, 100)).looks == 1


def test_looks_of_an_earlier_release_and_of_splits_not_in_the_store_count_as_at_the_same_pairs(
    workspace: Workspace,
) -> None:
    ledger = workspace.ledger
    ledger.record_data_version("data")
    ledger.start_tournament("elsewhere", "data")
    ledger.record_look("a split of another home", "elsewhere", 1)
    assert look(workspace, "t1", pairs(0, 100)) == History(1, 1, look_at(History(), 0.05).level)


def test_losses_for_cheaper_ensembles_add_up_until_a_gain_makes_up_for_them(workspace: Workspace) -> None:
    ledger = workspace.ledger
    ledger.record_data_version("data")

    def promoted(name: str, route: str, bound: float, decision: str = "approve") -> float:
        ledger.start_tournament(name, "data")
        content = {"route": route, "checks": [{"name": route, "value": bound}]}
        verdict = ledger.record_verdict(name, "promote", content, 1)
        ledger.record_decision(verdict.id, decision, "ana", "seen")
        return round(given_up(ledger), 4)

    assert promoted("a", "gain", 0.01) == 0
    assert promoted("b", "cheaper", -0.003) == 0.003
    assert promoted("c", "cheaper", -0.002, "refuse") == 0.003
    assert promoted("d", "gain in log_loss", 0.01) == 0.003
    assert promoted("e", "cheaper", -0.001) == 0.004
    assert promoted("f", "gain", 0.003) == 0.001
    assert promoted("g", "gain", 0.5) == 0
