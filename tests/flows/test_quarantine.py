"""What a verdict may rest on: no query that a side has learnt from, be it in another data version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from esci_tournament.flows.context import Roles, TournamentContext
from esci_tournament.flows.judging import pairs_of
from esci_tournament.flows.quarantine import learnt_queries, pairs_to_judge
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.tasks.data.plans import read_roles
from esci_tournament.tasks.data.store import write_frame


@pytest.fixture
def context(world: Any) -> TournamentContext:
    return TournamentContext(Attempt("t-2", "new", 1, 1), world.source, world.roles, [])


def champion(world: Any, judged: Roles) -> EnsembleVersion:
    """An ensemble whose aggregator has learnt from these roles."""
    ledger = world.workspace.ledger
    ledger.start_tournament("t-1", world.dataset.version)
    facts = {"load": world.source.folder.name, "judged": judged.key}
    ledger.record_ensemble("t-1", "esci-ensemble", 1, facts)
    return EnsembleVersion("esci-ensemble", 1, "", "t-1", ("weak/1",))


def changed_roles(world: Any, name: str, moved: np.ndarray, role: str) -> Roles:
    """Roles with the pairs of some queries in another part."""
    roles = read_roles(world.roles.folder)
    here = np.isin(world.dataset.pairs["query_key"].to_numpy(), moved)
    changed = roles.assign(role=roles["role"].where(~here, role))
    stages = world.workspace.stages
    key = stages.key("judged", roles=world.roles.key, models=[name])
    return Roles(stages.obtain(key, lambda folder: write_frame(changed, folder / "roles.arrow")), str(key))


def test_queries_that_the_champions_aggregator_has_learnt_from_are_not_judged(
    world: Any, context: TournamentContext
) -> None:
    judged = pairs_of(context, learns=False)
    moved = judged["query_key"].unique()[:3]  # they were in the blend part when the champion was built
    built = champion(world, changed_roles(world, "older", moved, "blend"))
    pairs, said = pairs_to_judge(world.workspace, context, built)
    assert set(judged["query_key"]) - set(pairs["query_key"]) == set(moved)
    assert said[:1] == [
        f"{len(judged) - len(pairs):,} of {len(judged):,} test pairs are left out, because the champion's aggregator "
        "has learnt from their queries, which have moved to the test part since"
    ]


def test_a_champion_of_the_same_data_and_roles_leaves_all_pairs(world: Any, context: TournamentContext) -> None:
    built = champion(world, world.roles)
    pairs, said = pairs_to_judge(world.workspace, context, built)
    assert (len(pairs), said) == (len(pairs_of(context, learns=False)), [])
    assert "weight" not in pairs
    assert learnt_queries(world.workspace, context, None).size == 0


def test_what_is_in_quarantine_is_told(world: Any, context: TournamentContext) -> None:
    judged = pairs_of(context, learns=False)
    seen = judged["query_key"].unique()[:2]
    held = replace(context, judged=changed_roles(world, "a model", seen, "quarantine"))
    pairs, (said, weighted) = pairs_to_judge(world.workspace, held, None)
    left_out = int(np.isin(judged["query_key"], seen).sum())
    assert len(pairs) == len(judged) - left_out
    assert said.startswith(f"{left_out:,} of {len(judged):,} test pairs are in quarantine")
    assert weighted.startswith("queries that are left count by locale")
    by_query = pairs.drop_duplicates("query_key")
    assert by_query["weight"].mean() == pytest.approx(1)
    assert (pairs.groupby("query_key")["weight"].nunique() == 1).all()
