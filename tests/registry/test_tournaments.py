"""Which tournament a run belongs to is derived from the ledger alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import Attempt, find_attempt, tournament_digest, tried
from tests.registry.conftest import approved

# What is above the ledger is the same on every database; the ledger itself is tested on both.
pytestmark = pytest.mark.databases("sqlite")

ENSEMBLE = "esci-ensemble"
NEWCOMERS = [["text/1", "r1"], ["graph/1", "r2"]]


def settings(**changes: object) -> dict[str, object]:
    return Settings(**changes).model_dump(mode="json")


def begin(ledger: Ledger, question: str) -> Attempt:
    """Start, or go on with, the tournament that a run with this question belongs to."""
    attempt = find_attempt(ledger, ENSEMBLE, question)
    ledger.record_data_version("data-1")
    payload = {"question": question, "against": attempt.against, "champion": attempt.champion}
    ledger.start_tournament(attempt.tournament, "data-1", payload=payload)
    return attempt


def promote(ledger: Ledger, attempt: Attempt, version: int) -> None:
    decision = approved(ledger, ENSEMBLE, attempt.tournament, version, attempt.against)
    ledger.record_promotion(ENSEMBLE, "promote", version, attempt.against, "better", decision.id)


def finish(ledger: Ledger, attempt: Attempt) -> None:
    ledger.finish_tournament(attempt.tournament, {"sequence": ledger.standing(ENSEMBLE).sequence})


def hold(ledger: Ledger, question: str, version: int) -> Attempt:
    """Hold a whole tournament that ends with a promotion."""
    attempt = begin(ledger, question)
    promote(ledger, attempt, version)
    finish(ledger, attempt)
    return attempt


def roll_back(ledger: Ledger, version: int) -> None:
    ledger.record_promotion(ENSEMBLE, "rollback", version, ledger.standing(ENSEMBLE).sequence, "it was worse")


def test_the_first_one_is_new_and_meets_nobody(ledger: Ledger) -> None:
    attempt = find_attempt(ledger, ENSEMBLE, "q")
    assert (attempt.state, attempt.against, attempt.champion) == ("new", 0, None)


def test_one_that_won_the_title_by_review_after_it_ended_is_finished_until_somebody_else_has_it(ledger: Ledger) -> None:
    attempt = begin(ledger, "q")
    finish(ledger, attempt)
    assert find_attempt(ledger, ENSEMBLE, "q").state == "finished", "it waits for its reviewer"
    promote(ledger, attempt, version=1)
    again = find_attempt(ledger, ENSEMBLE, "q")
    assert (again.state, again.tournament) == ("finished", attempt.tournament)
    hold(ledger, "other", version=2)
    assert find_attempt(ledger, ENSEMBLE, "q").state == "new"


def test_looking_leaves_no_trace(ledger: Ledger) -> None:
    before = ledger.export()
    assert find_attempt(ledger, ENSEMBLE, "q") == find_attempt(ledger, ENSEMBLE, "q")
    assert ledger.export() == before


def test_another_question_is_another_tournament_and_meets_the_champion(ledger: Ledger) -> None:
    first = hold(ledger, "q", version=4)
    second = find_attempt(ledger, ENSEMBLE, "other")
    assert (second.state, second.against, second.champion) == ("new", 1, 4)
    assert second.tournament != first.tournament


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_an_interrupted_one_goes_on_under_its_name(ledger: Ledger, how: str) -> None:
    first = begin(ledger, "q")
    if how == "failed":
        ledger.fail_tournament(first.tournament, "the disk is full")
    again = find_attempt(ledger, ENSEMBLE, "q")
    assert (again.state, again.tournament, again.against) == ("interrupted", first.tournament, 0)


def test_killed_between_promotion_and_end_it_goes_on_against_the_champion_it_beat(ledger: Ledger) -> None:
    hold(ledger, "q", version=1)
    second = begin(ledger, "newcomer")
    promote(ledger, second, version=2)
    again = find_attempt(ledger, ENSEMBLE, "newcomer")
    assert (again.state, again.tournament) == ("interrupted", second.tournament)
    assert (again.against, again.champion) == (1, 1)


def test_interrupted_and_the_champion_moved_meanwhile_begins_anew_against_the_new_one(ledger: Ledger) -> None:
    first = begin(ledger, "q")
    hold(ledger, "other", version=7)
    again = find_attempt(ledger, ENSEMBLE, "q")
    assert (again.state, again.against, again.champion) == ("new", 1, 7)
    assert again.tournament != first.tournament


def test_killed_after_its_promotion_and_rolled_back_meanwhile_begins_anew(ledger: Ledger) -> None:
    hold(ledger, "q", version=1)
    second = begin(ledger, "newcomer")
    promote(ledger, second, version=2)
    roll_back(ledger, version=1)
    again = find_attempt(ledger, ENSEMBLE, "newcomer")
    assert (again.state, again.against, again.champion) == ("new", 3, 1)
    assert again.tournament != second.tournament


def test_a_finished_one_stands_while_its_champion_does(ledger: Ledger) -> None:
    first = hold(ledger, "q", version=1)
    again = find_attempt(ledger, ENSEMBLE, "q")
    assert (again.state, again.tournament) == ("finished", first.tournament)


def test_a_finished_one_that_promoted_nobody_stands_too(ledger: Ledger) -> None:
    hold(ledger, "q", version=1)
    refused = begin(ledger, "newcomer")
    finish(ledger, refused)
    assert find_attempt(ledger, ENSEMBLE, "newcomer").state == "finished"
    assert find_attempt(ledger, ENSEMBLE, "q").state == "finished"


def test_finished_and_the_champion_moved_since_begins_anew(ledger: Ledger) -> None:
    first = hold(ledger, "q", version=1)
    hold(ledger, "newcomer", version=2)
    again = find_attempt(ledger, ENSEMBLE, "q")
    assert (again.state, again.against, again.champion) == ("new", 2, 2)
    assert again.tournament != first.tournament


def test_finished_and_rolled_back_since_begins_anew_and_a_third_time_goes_on(ledger: Ledger) -> None:
    hold(ledger, "q", version=1)
    second = hold(ledger, "newcomer", version=2)
    roll_back(ledger, version=1)
    third = begin(ledger, "newcomer")
    assert (third.state, third.against, third.champion) == ("new", 3, 1)
    assert third.tournament != second.tournament
    again = find_attempt(ledger, ENSEMBLE, "newcomer")
    assert (again.state, again.tournament) == ("interrupted", third.tournament)


def test_the_title_of_another_ensemble_is_none_of_its_business(ledger: Ledger) -> None:
    hold(ledger, "q", version=1)
    assert find_attempt(ledger, "another", "new question").against == 0


@pytest.mark.parametrize(
    "change",
    [
        {"home": Path("elsewhere")},
        {"mlflow_uri": "http://mlflow:5000"},
        {"ledger_url": "postgresql+psycopg://ledger"},
        {"device": "cuda:0"},
        {"workers": 2},
        {"candidate_timeout_s": 60.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_where_and_how_fast_is_no_part_of_the_question(change: dict[str, object]) -> None:
    assert tournament_digest("d", NEWCOMERS, settings(**change)) == tournament_digest("d", NEWCOMERS, settings())


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"out_of_sample": "kfold"},
        {"blend_share": 0.3},
        {"budget_memory_mib": 100.0},
        {"selection": "top_k"},
        {"primary_metric": "accuracy"},
        {"alpha": 0.01},
        {"required_gain": 0.01},
        {"inaugurate": False},
        {"ensemble_name": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_outcome_is_another_question(change: dict[str, object]) -> None:
    assert tournament_digest("d", NEWCOMERS, settings(**change)) != tournament_digest("d", NEWCOMERS, settings())


@given(st.permutations(NEWCOMERS))
def test_the_order_of_newcomers_is_no_part_of_the_question(order: list[list[str]]) -> None:
    assert tournament_digest("d", order, {}) == tournament_digest("d", NEWCOMERS, {})


def test_data_newcomers_and_their_recipes_are_the_question() -> None:
    questions = {
        tournament_digest("d", NEWCOMERS, {}),
        tournament_digest("e", NEWCOMERS, {}),
        tournament_digest("d", NEWCOMERS[:1], {}),
        tournament_digest("d", [["text/2", "r1"], NEWCOMERS[1]], {}),
        tournament_digest("d", [["text/1", "r9"], NEWCOMERS[1]], {}),
    }
    assert len(questions) == 5


def test_a_candidate_is_not_tried_until_a_tournament_it_entered_is_finished(ledger: Ledger) -> None:
    ledger.record_data_version("data-1")
    for name in ("a/1", "b/1"):
        ledger.record_candidate(name, f"digest of {name}", "graph_network")
    ledger.start_tournament("t-1", "data-1", {"a/1": "newcomer"})
    ledger.fail_tournament("t-1", "killed")
    assert tried(ledger) == set()
    ledger.finish_tournament("t-1")
    assert tried(ledger) == {"a/1"}
