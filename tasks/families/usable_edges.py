"""The check of a fit's edges that all families on customer behaviour make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import CandidateError, LeakError
from esci_tournament.tasks.families.protocol import FitData


def usable_edges(name: str, relations: Sequence[str], data: FitData) -> pd.DataFrame:
    """Return the edges of a fit, checked.

    Args:
        name: of the candidate, for messages.
        relations: that it asked for, one at least.
        data: `edges` and `validation` are read.

    Returns:
        `data.edges`.

    Raises:
        CandidateError: if a relation has no edges.
        LeakError: if an edge belongs to a query of the validation pairs.
    """
    missing = list(relations)
    if data.edges is not None and len(data.edges):
        several = len(missing) > 1
        missing = sorted(set(missing) - set(data.edges["relation"].astype(str))) if several else []
    if data.edges is None or missing:
        raise CandidateError(
            f"{name}: the relation {missing[0]!r} has no edges in this data version; "
            "choose a relation that the data has events for, such as impressions"
        )
    if "query_key" in data.edges.columns:
        held_out = np.isin(data.edges["query_key"].to_numpy(), data.validation["query_key"].unique())
        if "source" in data.edges.columns:
            held_out &= data.edges["source"].to_numpy() < 0
        if held_out.any():
            raise LeakError(
                f"{name}: {int(held_out.sum())} edges belong to queries of the validation pairs; "
                "remove held-out queries from the relation first"
            )
    return data.edges
