"""What a challenger needs to serve in real time is made once, and anew under other settings."""

from __future__ import annotations

from typing import Any

import pytest

from esci_tournament.flows import competition
from esci_tournament.flows.context import TournamentContext
from esci_tournament.flows.equipment import early_exit, equipment
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.tasks.ensemble.challenge import Challenge
from esci_tournament.tasks.ensemble.early_exit import EarlyExit
from esci_tournament.tasks.ensemble.equipment import SUBSETS
from esci_tournament.tasks.ensemble.subsets import Subsets

pytestmark = pytest.mark.slow  # a challenger is built


@pytest.fixture
def built(world: Any) -> tuple[TournamentContext, Challenge]:
    """A challenger of two members, in a tournament that has not been judged."""
    work = world.workspace
    entrants = [world.entrant(name, "newcomer") for name in ("weak", "good")]
    work.ledger.start_tournament("t-1", world.source.version, {one.id: one.role for one in entrants})
    context = TournamentContext(Attempt("t-1", "new", 0, None), world.source, world.roles, entrants)
    costs = competition.profile.fn(work, context, entrants)
    return context, competition.build.fn(work, context, entrants, costs)


def test_it_is_made_once_for_the_members_that_serve_and_anew_for_another_risk(
    world: Any, built: tuple[TournamentContext, Challenge]
) -> None:
    context, challenge = built
    folder = equipment(world.workspace, context, challenge)
    rule = EarlyExit.load(folder)
    assert sorted(rule.order) == sorted(challenge.members)
    assert Subsets.load(folder / SUBSETS, challenge.aggregator).members == challenge.members
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert early_exit(world.workspace, context, challenge) == rule.to_json()
    assert equipment(world.workspace, context, challenge) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == made
    world.settings["early_exit_risk"] = 0.05
    assert equipment(world.workspace, context, challenge) != folder
