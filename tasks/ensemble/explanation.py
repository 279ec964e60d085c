"""The members' contributions as the package `shap` hands them out, and compared with what it computes itself.

The contributions are computed by `attribution.py`, which is many times faster than `shap.TreeExplainer` on the same
trees and gives the same values. That they are the same is checked in every tournament, on a sample of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.labels import CLASSES, LABEL_NAMES
from esci_tournament.tasks.ensemble.aggregate import Aggregator, flatten
from esci_tournament.tasks.ensemble.attribution import attribute, attribute_rows, evenly
from esci_tournament.tasks.ensemble.forest import Forest, tabulate
from esci_tournament.tasks.ensemble.pool import Pool, centred_logs

if TYPE_CHECKING:
    import shap

CHECKED_ROWS = 256
_TOLERANCE = 1e-6  # of the largest contribution
_UNIT = 1e-4  # of a contribution in a document, where whole numbers stand


@dataclass(frozen=True)
class Agreement:
    """How well the contributions agree with those that the package `shap` computes.

    Attributes:
        rows: pairs that were compared.
        gap: largest difference, as a share of the largest contribution.
        version: of the package.
    """

    rows: int
    gap: float
    version: str


def explanation(aggregator: Aggregator, columns: np.ndarray, forest: Forest | None = None) -> shap.Explanation:
    """Return what each member adds to each class's raw score of each pair.

    Args:
        aggregator: the aggregator whose scores are explained.
        columns: float32 (n, k, 4), member scores.
        forest: the result of :func:`~esci_tournament.tasks.ensemble.forest.tabulate` if it is at hand already.

    Returns:
        `values` float64 (n, k, 4), `base_values` float64 (n, 4), `data` float32 (n, k, 4): the member's own probability
        of the class; `feature_names` the members and `output_names` the classes. One class of it is
        `found[:, :, "Exact"]`, one pair and class `found[0, :, "Exact"]`, which is what `shap.plots` draws.

    Raises:
        TournamentError: if the contributions do not add up to the raw scores.
    """
    values, base = attribute(aggregator, columns, threads=1, forest=forest)
    return _explanation(values.transpose(0, 2, 1), base, columns, aggregator.members)


def check_with_shap(aggregator: Aggregator, columns: np.ndarray, forest: Forest | None = None) -> Agreement:
    """Compare the contributions with `shap`'s own, on up to 256 pairs spread evenly over the input.

    The trees are compared with `shap.TreeExplainer` (path-dependent), its values summed over the columns of a member.
    The linear part is compared with `shap.LinearExplainer` on the members' log-probabilities, with the sample as
    background.

    Args:
        aggregator: an aggregator that this process has fitted, or a loaded one.
        columns: float32 (n, k, 4), member scores; one pair at least.
        forest: as in :func:`explanation`.

    Returns:
        How many pairs were compared, and the largest difference.

    Raises:
        TournamentError: if a difference is above 1e-6 of the largest contribution.
        StoreError: if the trees of a loaded aggregator cannot be read by LightGBM.
    """
    import shap  # takes seconds

    forest = forest or tabulate(aggregator)
    rows = evenly(len(columns), CHECKED_ROWS)
    sample = np.ascontiguousarray(columns[rows])
    ours = attribute_rows(forest, flatten(sample, aggregator.members))
    theirs, base = np.zeros_like(ours), np.zeros(CLASSES)
    if aggregator.trees:
        theirs, base = _of_trees(aggregator, sample)
    own_base = forest.base
    if aggregator.pool is not None:
        # Its mean is over the pairs learnt from, and shap's over the sample: compared from the sample's own mean
        linear = aggregator.pool.contributions(sample)
        ours = ours - linear.mean(axis=0)
        theirs = theirs + _of_pool(aggregator.pool, sample)
        own_base = own_base - aggregator.pool.base
    largest = max(float(np.abs(theirs).max()), 1e-12)
    gap = float(max(np.abs(ours - theirs).max(), np.abs(own_base - base).max())) / largest
    if not gap <= _TOLERANCE:
        raise TournamentError(
            f"the members' contributions differ from those of shap {shap.__version__} by {gap:.2e} of the largest one "
            f"on {len(rows)} pairs; {_TOLERANCE:g} is allowed. The ranking would be wrong, so it is not made: fit the "
            "aggregator again, and report a bug if it happens again"
        )
    return Agreement(len(rows), gap, shap.__version__)


def to_json(found: shap.Explanation) -> dict[str, Any]:
    """Return an explanation as JSON-able facts, in whole ten-thousandths.

    Args:
        found: what :func:`explanation` returned, of one pair at least.

    Returns:
        "members", "unit" (0.0001), "base" (4 whole numbers), and "values" and "given" (n lists of k lists of 4).
    """
    numbers = {"base": found.base_values[0], "values": found.values, "given": found.data}
    whole = {name: np.rint(np.asarray(each) / _UNIT).astype(np.int64).tolist() for name, each in numbers.items()}
    return {"members": list(found.feature_names), "unit": _UNIT, **whole}


def from_json(facts: Mapping[str, Any]) -> shap.Explanation:
    """Return the explanation of which :func:`to_json` made a document."""
    base, values, given = (np.asarray(facts[name]) * facts["unit"] for name in ("base", "values", "given"))
    return _explanation(values, base, given, facts["members"])


def _explanation(values: np.ndarray, base: np.ndarray, given: np.ndarray, members: Sequence[str]) -> shap.Explanation:
    import shap

    return shap.Explanation(
        np.ascontiguousarray(values),
        base_values=np.tile(base, (len(values), 1)),
        data=given,
        feature_names=list(members),
        output_names=[*LABEL_NAMES],
    )


def _of_trees(aggregator: Aggregator, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return shap's contributions of the trees, float64 (n, 4, k), and the expected scores, float64 (4,)."""
    import shap

    explainer = shap.TreeExplainer(aggregator.booster)
    found = np.asarray(explainer.shap_values(flatten(columns, aggregator.members)))  # pair, column, class
    by_member = found.reshape(len(columns), len(aggregator.members), CLASSES, CLASSES).sum(axis=2)
    return by_member.transpose(0, 2, 1), np.asarray(explainer.expected_value, np.float64)


def _of_pool(pool: Pool, columns: np.ndarray) -> np.ndarray:
    """Return shap's contributions of the linear part, float64 (n, 4, k), with these pairs as background."""
    import shap

    logs = centred_logs(columns)
    flat = logs.reshape(len(logs), -1)
    background = shap.maskers.Independent(flat, max_samples=len(flat))  # else it takes the first hundred
    explainer = shap.LinearExplainer((pool.full.reshape(-1, CLASSES).T, pool.bias), background)
    found = np.asarray(explainer.shap_values(flat)).reshape(*logs.shape, CLASSES)  # pair, member, spoken of, class
    return found.sum(axis=2).transpose(0, 2, 1)
