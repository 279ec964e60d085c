"""The test pairs that a verdict may rest on: none whose query a side has learnt from, and what that leaves out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from esci_tournament.flows.context import TournamentContext
from esci_tournament.registry.roll import recorded_facts
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.plans import judged_pairs, queries_of_test, read_roles
from esci_tournament.tasks.ensemble.representation import representative


def pairs_to_judge(
    workspace: Workspace, context: TournamentContext, champion: EnsembleVersion | None
) -> tuple[pd.DataFrame, list[str]]:
    """Return the pairs to judge on, and what a reviewer should know of those that are left out.

    Queries that a model of older data was fitted on are in quarantine already
    (:func:`esci_tournament.flows.roster.judged_roles`). An aggregator learns too, from the pairs between the two parts:
    a query of those that has moved to the test part since is left out as well. The queries that are left are newer and
    rarer than what users ask, so they are weighted back to all of the test part.

    Args:
        workspace: The home, with ledger and stage store.
        context: The tournament, with its data and roles.
        champion: The ensemble that is compared with, or None.

    Returns:
        The pairs, as :func:`esci_tournament.tasks.data.plans.judged_pairs` returns them, with a column `weight` where
        any are left out, and sentences.
    """
    roles = context.judged_roles
    pairs = judged_pairs(context.source.folder, roles.folder, learns=False)
    said = []
    if roles.key != context.roles.key:
        all_of_them = int((read_roles(context.roles.folder)["role"] == "test").sum())
        if left_out := all_of_them - len(pairs):
            said.append(
                f"{left_out:,} of {all_of_them:,} test pairs are in quarantine, because a model of older data has seen "
                "their queries"
            )
    learnt = np.isin(pairs["query_key"].to_numpy(), learnt_queries(workspace, context, champion))
    if learnt.any():
        said.append(
            f"{int(learnt.sum()):,} of {len(pairs):,} test pairs are left out, because the champion's aggregator has "
            "learnt from their queries, which have moved to the test part since"
        )
        pairs = pairs[~learnt]
    if not said or pairs.empty:
        return pairs, said
    weights = _weights(context, pairs)
    said.append(
        "queries that are left count by locale and by how often they are asked as all test queries do, "
        f"{weights.min():.2g} to {weights.max():.2g} times"
    )
    return pairs.assign(weight=weights), said


def _weights(context: TournamentContext, pairs: pd.DataFrame) -> np.ndarray:
    """Return how much the query of each pair counts, float64 (n,)."""
    queries = queries_of_test(context.source.folder, context.roles.folder)
    keys, judged = queries["query_key"].to_numpy(), queries["query_key"].isin(pairs["query_key"]).to_numpy()
    found = representative(queries["locale"].astype(str).to_numpy(), queries["frequency"].to_numpy(), judged)
    return pairs["query_key"].map(dict(zip(keys[judged], found, strict=True))).to_numpy(np.float64)


def learnt_queries(workspace: Workspace, context: TournamentContext, champion: EnsembleVersion | None) -> np.ndarray:
    """Return the keys of the queries that a champion's aggregator has learnt from on other data or roles.

    Args:
        workspace: The home, with ledger and stage store.
        context: The tournament: of its own data and roles no query is in both parts.
        champion: The ensemble, or None.

    Returns:
        uint64 (n,); empty where the data of that time is not in the stage store any more.
    """
    nothing = np.zeros(0, np.uint64)
    if champion is None:
        return nothing
    facts = recorded_facts(workspace.ledger, champion)
    ours = (context.source.folder.name, context.judged_roles.key)
    if "judged" not in facts or (facts["load"], facts["judged"]) == ours:
        return nothing
    data, roles = (workspace.stages.find(facts[name]) for name in ("load", "judged"))
    if data is None or roles is None:
        return nothing
    return np.unique(judged_pairs(data, roles, learns=True)["query_key"].to_numpy())
