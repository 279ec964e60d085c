"""Who is called back: the champion's members and the bench, each with its model, or the reason why it is not."""

from __future__ import annotations

from typing import Any

import pytest

from esci_tournament.flows.roster import call_back, incumbent, judged_roles, noticed
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.workspace import Workspace


@pytest.mark.slow
def test_members_come_first_and_the_bench_as_far_as_it_has_seats_models_and_answers(champion: Any) -> None:
    champion.challenge("t-2", ["weak", "good", "best"])  # it waits for its reviewer

    def called(**settings: Any) -> tuple[list[tuple[str, str]], dict[str, str]]:
        work = Workspace(champion.workspace.settings.model_copy(update=settings))
        roster = call_back(work, champion.source, champion.roles)
        return [(one.id, one.role) for one in roster.entrants], roster.excluded

    member = ("weak/1", "member")
    assert called(refit=True) == ([member, ("best/1", "bench"), ("good/1", "bench")], {})
    few, excluded = called(refit=True, bench_size=1)
    assert few == [member, ("best/1", "bench")]
    assert excluded == {"good/1": "the bench has 1 seats (setting bench_size)"}
    for settings, reason in (
        ({"keep_score_files": False}, "a score file answers only for the pairs it holds"),
        ({}, "its model is not in the stage store any more, or not all that it has seen is on record"),
    ):
        alone, excluded = called(**settings)
        assert alone == [member]  # whom the champion needs is fitted again, if need be
        assert excluded == {"best/1": reason, "good/1": reason}


def test_without_a_champion_a_member_is_fitted_on_the_data_at_hand(world: Any) -> None:
    entrant = world.entrant("weak", "newcomer")
    fresh = incumbent(world.workspace, world.source, world.roles, "weak/1", None)
    assert (fresh.id, fresh.role, fresh.inputs) == ("weak/1", "member", entrant.inputs)
    assert judged_roles(world.workspace, world.source, world.roles, [fresh]) is None


def test_who_was_noticed_by_a_watcher_is_left_to_it(world: Any) -> None:
    work = world.workspace
    assert noticed(work) == set()
    queue = Queue(work.ledger)
    queue.arrive("a/1", "digest", "queued")
    queue.arrive("b/1", "digest", "refused", {"complaint": "no"})
    assert noticed(work) == {"a/1", "b/1"}
