"""Who trains at once, who is left, and who takes part without a chance to become a member."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.flows import competition
from esci_tournament.flows.competition import for_information, threads_of, workers_of
from esci_tournament.flows.context import Roles, Source, TournamentContext
from esci_tournament.registry.errors import CandidateError, StoppedError
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.versions import FAILED_TAG
from esci_tournament.registry.withdrawals import stop_tournament, withdraw
from esci_tournament.tasks.candidates.enter import Entrant, Role
from esci_tournament.tasks.candidates.steps import CandidateInputs

SAGE = {"family": "graph_network", "architecture": "graphsage"}
FILE = {"family": "scores", "file": "x.parquet", "trained_on": "other_queries", "provenance": "made for a test"}


def entrant(name: str, role: Role = "newcomer", **spec: Any) -> Entrant:
    """Return an entrant that no registry has."""
    inputs = CandidateInputs(f"{name}/1", parse_spec({"name": name} | spec), "", "data", "roles", 0, "cpu")
    return Entrant(SimpleNamespace(id=f"{name}/1", name=name), role, inputs)  # type: ignore[arg-type]


def held(*entrants: Entrant) -> TournamentContext:
    source, roles = Source(Path(), "data", Path()), Roles(Path(), "roles")
    return TournamentContext(Attempt("t-1", "new", 0, None), source, roles, list(entrants))


@given(st.none() | st.integers(1, 8), st.integers(1, 16), st.integers(0, 10), st.integers(0, 3))
def test_who_trains_at_once_has_threads_of_its_own_and_leaves_none_idle(workers, cores, newcomers, members) -> None:
    settings = Settings(device="cpu", workers=workers, threads=cores)
    entrants = [entrant(f"n{number}", **SAGE) for number in range(newcomers)]
    entrants += [entrant(f"m{number}", "member", **SAGE) for number in range(members)]
    threads, at_once = threads_of(settings, held(*entrants)), min(workers_of(settings), max(newcomers, 1))
    assert workers_of(settings) == (workers or cores)
    assert threads >= 1
    assert threads * at_once <= max(cores, at_once)
    assert (threads + 1) * at_once > cores


@pytest.mark.parametrize(("keep", "expected"), [(False, ["file/1"]), (True, [])])
def test_who_cannot_answer_for_new_pairs_takes_part_for_information_unless_it_may_be_kept(keep, expected) -> None:
    entrants = [entrant("sage", **SAGE), entrant("file", **FILE)]
    assert for_information(Settings(keep_score_files=keep), entrants) == expected


@pytest.fixture
def begun(world: Any) -> TournamentContext:
    """A tournament of two whose scores are in the store."""
    entrants = [world.entrant(name, "newcomer") for name in ("weak", "good")]
    world.workspace.ledger.start_tournament("t-1", world.source.version, {one.id: one.role for one in entrants})
    return TournamentContext(Attempt("t-1", "new", 0, None), world.source, world.roles, entrants)


def test_who_failed_is_told_once_and_for_another_reason_again_until_it_does_not_fail(world, begun) -> None:
    work = world.workspace
    for reasons in (["", "no memory"], ["", "no memory"], ["", "it hangs"]):
        assert [one.id for one in competition.survivors.fn(work, begun, reasons)] == ["weak/1"]
    events = work.ledger.events("t-1", "candidate_failed")
    assert [(one.subject, one.payload["reason"]) for one in events] == [("good/1", "no memory"), ("good/1", "it hangs")]
    assert work.models.tags("good/1")[FAILED_TAG] == "it hangs"
    again = TournamentContext(
        begun.attempt,
        begun.source,
        begun.roles,
        [Entrant(work.models.candidate(one.id), one.role, one.inputs) for one in begun.entrants],
    )
    assert [one.id for one in competition.survivors.fn(work, again, ["", ""])] == ["weak/1", "good/1"]
    assert FAILED_TAG not in work.models.tags("good/1")


def test_a_failure_is_announced_once_as_what_it_is(world, begun, announced) -> None:
    """A candidate that failed was announced by nobody, or in the words of one that was refused."""
    for _ in range(2):
        competition.survivors.fn(world.workspace, begun, ["", "no memory"])
    [event] = announced
    assert event["event"] == "tournament.failure"
    assert event["resource"]["prefect.resource.name"] == "good/1"
    payload = event["payload"]
    assert (payload["title"], payload["outcome"]) == ("Candidate good/1 failed", "failed")
    assert payload["text"].startswith("no memory\n")


def test_who_could_not_enter_is_not_said_to_have_failed(world, begun, announced) -> None:
    competition.survivors.fn(world.workspace, replace(begun, refused={"gone/1": "its files are gone"}), ["", ""])
    [event] = announced
    assert event["payload"]["title"] == "Candidate gone/1 could not enter its tournament"
    assert event["payload"]["outcome"] == "refused"


def test_when_nobody_is_left_the_reasons_are_told(world, begun) -> None:
    with pytest.raises(CandidateError, match="could be trained and scored: no memory; it hangs"):
        competition.survivors.fn(world.workspace, begun, ["no memory", "it hangs"])


def test_scores_and_costs_that_are_in_the_store_start_no_process(world, begun, monkeypatch) -> None:
    monkeypatch.setattr(competition, "supervise", None)  # calling it would raise
    for one in begun.entrants:
        assert competition.train.fn(world.workspace, begun, one) == ""
    costs = competition.profile.fn(world.workspace, begun, begun.entrants)
    assert {name: cost.memory_mib for name, cost in costs.items()} == {"weak/1": 10.0, "good/1": 10.0}


@pytest.mark.slow
def test_who_is_withdrawn_while_the_challenger_is_built_is_in_no_challenger(world, begun) -> None:
    work = world.workspace
    left = competition.survivors.fn(work, begun, ["", ""])
    costs = competition.profile.fn(work, begun, left)
    withdraw(work.ledger, "good/1", "diverges", "t-1")
    assert competition.build.fn(work, begun, left, costs) is None
    assert not work.ledger.selected("t-1"), "what is recorded once is of the challenger that is judged"
    left = competition.remaining(work, begun, left)
    assert [one.id for one in left] == ["weak/1"]
    (failed,) = work.ledger.events("t-1", "candidate_failed")
    assert failed.payload["reason"] == f"cancelled by {work.ledger.who}: diverges"
    built = competition.build.fn(work, begun, left, costs)
    assert list(built.members) == ["weak/1"]


def test_a_cancelled_tournament_ends_and_the_run_that_continues_it_is_not_concerned(world, begun) -> None:
    work = world.workspace
    stop_tournament(work.ledger, "t-1", "the data is old")
    with pytest.raises(StoppedError, match="the data is old; the same command continues it"):
        competition.survivors.fn(work, begun, ["", ""])
    assert competition.stopper(work, begun)("weak/1").endswith(": the data is old")
    later = replace(begun, begun=work.ledger.last_event())
    assert len(competition.survivors.fn(work, later, ["", ""])) == 2
    assert competition.stopper(work, later)("weak/1") == ""
