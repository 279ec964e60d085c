"""Inputs of the judge: pairs, scores and costs are read from where the tournament stored them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esci_tournament.flows.context import TournamentContext
from esci_tournament.flows.judging import pairs_of, prices, read_cost, recipes_of, rejudging_inputs, scores_of
from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.tournaments import DECISIVE, Attempt
from esci_tournament.tasks.ensemble.budget import Cost
from tests.flows.conftest import say


@pytest.fixture
def context(world: Any) -> TournamentContext:
    """A tournament of two whose scores are stored."""
    entrants = [world.entrant(name, "newcomer") for name in ("weak", "good")]
    return TournamentContext(Attempt("t-1", "new", 0, None), world.source, world.roles, entrants)


def test_no_query_is_learnt_from_and_judged(context: TournamentContext) -> None:
    learns, judged = pairs_of(context, learns=True), pairs_of(context, learns=False)
    assert len(learns) > 100
    assert len(judged) > 100
    assert np.intersect1d(learns["query_key"], judged["query_key"]).size == 0
    assert list(learns) == ["example_id", "label", "query_key", "locale", "product", "product_id"]


def test_scores_come_in_the_order_asked_for_and_a_missing_one_is_an_error(
    world: Any, context: TournamentContext
) -> None:
    recipes = recipes_of(reversed(context.entrants))
    found = scores_of(world.workspace, context.source.version, recipes)
    assert [one.member for one in found] == ["good/1", "weak/1"]
    with pytest.raises(NotFoundError):
        scores_of(world.workspace, context.source.version, recipes | {"weak/1": "another"})


def test_costs_are_the_peak_and_the_median_page(world: Any, context: TournamentContext) -> None:
    stages = world.workspace.stages
    one, other = (read_cost(stages.root / entrant.inputs.profile_key(stages)) for entrant in context.entrants)
    told = prices({"a": one, "b": replace(other, memory_mib=3.0, milliseconds_per_page_p50=4.0, kind="gpu")})
    assert told == {"a": Cost(10.0, 2.0, "cpu"), "b": Cost(3.0, 4.0, "gpu")}


def test_what_is_kept_to_judge_again_is_json_and_names_every_decisive_setting(
    world: Any, context: TournamentContext
) -> None:
    kept = rejudging_inputs(world.workspace, context, {"weak/1": Cost(10.0, 2.0, "cpu")}, "good/1")
    assert json.loads(json.dumps(kept)) == kept
    assert (kept["data"], kept["costs"]) == (context.source.version, {"weak/1": [10.0, 2.0, "cpu"]})
    assert set(kept["recipes"]) == {"weak/1", "good/1"}
    assert kept["best_alone"] == "good/1"
    assert set(kept["settings"]) == set(DECISIVE)


def test_a_newcomer_that_fails_costs_no_look_when_the_others_were_judged_before(world: Any) -> None:
    say(world, world.challenge("t-1", ["good"]))
    ledger = world.workspace.ledger
    assert ledger.looks() == []  # there was no champion to compare with
    held = world.hold("t-2", ["good"], fails=["best"])
    assert ledger.looks() == []
    [verdict] = ledger.verdicts("t-2")
    assert (verdict.outcome, verdict.payload["missing"]) == ("not-evaluable", ["newcomers"])
    assert "best/1 could not take part" in held.summary.verdict["reason"]
    assert "t-1" in held.summary.verdict["reason"]
    assert world.champion() == 1
    # One that was not among them is something new: it is judged, and that costs a look
    world.hold("t-3", ["good", "weak"], fails=["best"])
    assert [one.tournament for one in ledger.looks()] == ["t-3"]


def test_what_the_same_entrants_come_to_under_other_settings_is_judged(world: Any) -> None:
    say(world, world.challenge("t-1", ["good"]))
    world.settings["budget_memory_mib"] = 64.0
    world.hold("t-2", ["good"], fails=["best"])
    assert [one.tournament for one in world.workspace.ledger.looks()] == ["t-2"]
