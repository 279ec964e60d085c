"""The bench: which models are tried again, which are not and why, and what was tried before."""

from __future__ import annotations

import pytest

from esci_tournament.registry.bench import find_bench
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.tournaments import (
    held_before,
    last_other_data,
    metrics_of_champion,
    model_of,
    tournament_facts,
)
from esci_tournament.registry.withdrawals import reinstate, withdraw
from tests.registry.conftest import approved

# What is above the ledger is the same on every database; the ledger itself is tested on both.
pytestmark = pytest.mark.databases("sqlite")

SETTINGS = {"alpha": 0.05, "seed": 0, "host": "127.0.0.1"}


def hold(
    ledger: Ledger,
    tournament: str,
    entrants: dict[str, str],
    data: str = "monday",
    failed: str = "",
    champion: int | None = None,
    metrics: dict[str, float] | None = None,
    outcome: str = "promote",
) -> None:
    """Put a tournament on record; entrants: candidate -> role."""
    ledger.record_data_version(data)
    for candidate in entrants:
        ledger.record_candidate(candidate, f"digest of {candidate}", "scores")
    facts = tournament_facts(
        {one: f"recipe of {one}" for one in entrants}, {one: [data, "roles"] for one in entrants}, SETTINGS
    )
    ledger.start_tournament(tournament, data, entrants, facts | {"against": 0, "champion": champion})
    if failed:
        ledger.record_event("candidate_failed", failed, tournament, {"reason": "out of memory"})
    row = {"scope": "all", "metric": "macro_f1"} | (metrics or {"challenger": 0.5, "champion": None})
    ledger.record_verdict(tournament, outcome, {"metrics": [row]})
    ledger.finish_tournament(tournament)


def crown(ledger: Ledger, tournament: str, version: int, members: list[str]) -> None:
    decision = approved(ledger, "e", tournament, version, version - 1, {"members": members})
    ledger.record_promotion("e", "promote", version, version - 1, "better", decision.id)


def test_who_was_tried_is_no_member_and_did_not_fail_sits_on_the_bench(ledger: Ledger) -> None:
    hold(ledger, "t1", {"a/1": "newcomer", "b/1": "newcomer", "c/1": "newcomer"}, failed="c/1")
    ledger.record_candidate("waiting/1", "x", "scores")
    bench = find_bench(ledger, "e", {"a/1"}, 8)
    assert bench.seats == ("b/1",)
    assert bench.tournaments == {"b/1": "t1"}
    assert bench.excluded == {"c/1": "failed in t1: out of memory"}


def test_whoever_did_not_fail_the_last_time_is_back(ledger: Ledger) -> None:
    hold(ledger, "t1", {"c/1": "newcomer"}, failed="c/1")
    hold(ledger, "t2", {"c/1": "newcomer"})
    assert find_bench(ledger, "e", (), 8).seats == ("c/1",)


def test_whoever_is_withdrawn_has_no_seat_until_it_is_put_back(ledger: Ledger) -> None:
    hold(ledger, "t1", {"a/1": "newcomer", "b/1": "newcomer"})
    withdraw(ledger, "a/1", "a mistake")
    bench = find_bench(ledger, "e", (), 8)
    assert (bench.seats, bench.excluded) == (("b/1",), {"a/1": f"withdrawn by {ledger.who}: a mistake"})
    reinstate(ledger, "a/1")
    assert set(find_bench(ledger, "e", (), 8).seats) == {"a/1", "b/1"}


def test_former_members_come_first_then_who_was_tried_last_and_seats_are_few(ledger: Ledger) -> None:
    hold(ledger, "t1", {"old/1": "newcomer", "early/1": "newcomer"})
    crown(ledger, "t1", 1, ["old/1"])
    hold(ledger, "t2", {"late/1": "newcomer", "new/1": "newcomer"})
    crown(ledger, "t2", 2, ["new/1"])
    bench = find_bench(ledger, "e", {"new/1"}, 2)
    assert bench.seats == ("old/1", "late/1")
    assert bench.excluded == {"early/1": "the bench has 2 seats (setting bench_size)"}
    assert find_bench(ledger, "e", {"new/1"}, 0).seats == ()


def test_what_was_answered_before_is_not_asked_again(ledger: Ledger) -> None:
    hold(ledger, "t1", {"a/1": "newcomer", "b/1": "newcomer"})
    recipes = {"a/1": "recipe of a/1"}
    known = held_before(ledger, "monday", recipes, SETTINGS)
    assert known is not None
    assert (known.tournament, known.state) == ("t1", "finished")
    assert held_before(ledger, "monday", recipes, SETTINGS | {"host": "0.0.0.0"}) is not None
    for data, asked, settings in (
        ("tuesday", recipes, SETTINGS),
        ("monday", recipes | {"z/1": "recipe of z/1"}, SETTINGS),
        ("monday", {"a/1": "fitted again"}, SETTINGS),
        ("monday", recipes, SETTINGS | {"alpha": 0.1}),
    ):
        assert held_before(ledger, data, asked, settings) is None, (data, asked, settings)


def test_a_model_is_that_of_its_tournament(ledger: Ledger) -> None:
    hold(ledger, "t1", {"a/1": "newcomer"})
    assert model_of(ledger, "t1", "a/1") == ("monday", "roles")
    assert model_of(ledger, "t1", "nobody/1") is None
    assert model_of(ledger, "t9", "a/1") is None


def test_drift_is_measured_from_the_last_tournaments_data(ledger: Ledger) -> None:
    assert last_other_data(ledger, "monday") is None
    hold(ledger, "t1", {"a/1": "newcomer"})
    assert last_other_data(ledger, "monday") is None
    assert last_other_data(ledger, "tuesday") == "monday"


def test_a_champions_metrics_are_those_of_the_last_tournament_that_tells_them(ledger: Ledger) -> None:
    hold(ledger, "t1", {"a/1": "newcomer"})
    crown(ledger, "t1", 1, ["a/1"])
    assert metrics_of_champion(ledger, "e", 1)["metrics"] == {"all": {"macro_f1": 0.5}}
    hold(ledger, "t2", {"a/1": "member"}, "tuesday", champion=1, metrics={"challenger": 0.7, "champion": 0.4})
    assert metrics_of_champion(ledger, "e", 1)["tournament"] == "t1", "its challenger is not registered yet"
    ledger.record_ensemble("t2", "e", 2)
    against = {"champion": 1, "metrics": {"challenger": 0.3, "champion": 0.6}}
    hold(ledger, "t3", {"a/1": "member"}, "wednesday", outcome="refuse", **against)
    found = metrics_of_champion(ledger, "e", 1)
    assert (found["tournament"], found["data_version"]) == ("t2", "tuesday")
    assert found["metrics"] == {"all": {"macro_f1": 0.4}}
    assert metrics_of_champion(ledger, "e", 9) == {}
