"""Fit the aggregator: folds by query, boosted side by side and stopped together.

What is chosen out of fold: how strongly the weights of the linear part are held together, how much each of its three
fits counts, how many rounds of trees follow, and the decision rule. Last of all, whether the whole is ahead of the best
member as it answers alone: if not, that member's answer is the aggregator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightgbm
import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import CLASSES, LABELS
from esci_tournament.tasks.data.dataset import salted_uniform
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters, check_shapes, softmax
from esci_tournament.tasks.ensemble.counts import (
    confusion,
    confusion_by_query,
    influence_of,
    metrics_of,
    told,
)
from esci_tournament.tasks.ensemble.pool import Pool, alone, centred_logs, fit_logistic, fit_pool, mixture
from esci_tournament.tasks.ensemble.rule import best_of, decide, merit, tune

_RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)  # of the weights, from stiff to loose
_TOLERANCE = 0.005  # of another metric than the primary one, behind the best member's
_DOUBT = 0.5  # standard errors that the primary metric may be behind the best member's
_ROWS_FOR_RIDGE = 20_000  # pairs that a ridge is chosen on


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    Attributes:
        rounds: boosting rounds; 0 for the linear part alone.
        ridges: penalties on the weights without and with cross weights, see
            :func:`esci_tournament.tasks.ensemble.pool.fit_logistic`.
        shares: of the pool with one weight a member, and of the fits without and with cross weights, in the linear
            part; they add up to 1.
        offsets: of the four classes when the label is decided, nats.
        alone: position of the member whose answer is given as it is; None where the members are combined.
    """

    rounds: int
    ridges: tuple[float, float] = (1e-2, 1e-2)
    shares: tuple[float, float, float] = (0.5, 0.5, 0.0)
    offsets: tuple[float, ...] = (0.0,) * CLASSES
    alone: int | None = None


@dataclass(frozen=True)
class CrossValidated:
    """The result of a cross-validation.

    Attributes:
        scores: float64 (n, 4), log-probabilities, each row predicted by a fold that did not see its query.
        choice: what the final fit follows.
        counts: float64 (4, 4), true by predicted, of the labels: see `Rule.counts` in `rule.py`.
        margins: reported metric -> how far `counts` are ahead of the best member's, which may be another for each.
        decisions: int8 (2, n), the labels that `counts` follow from, as `estimated` in `rule.py` takes them.
    """

    scores: np.ndarray
    choice: Choice
    counts: np.ndarray
    margins: dict[str, float]
    decisions: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Out-of-fold class probabilities, float32 (n, 4)."""
        return softmax(self.scores).astype(np.float32)

    @property
    def decision_scores(self) -> np.ndarray:
        """Log-probabilities plus offsets, float64 (n, 4): the largest is the label."""
        return self.scores + np.array(self.choice.offsets)


def cross_validate(
    columns: np.ndarray, labels: np.ndarray, groups: np.ndarray, parameters: AggregatorParameters | None = None
) -> CrossValidated:
    """Fit all folds side by side, stop them together, and predict each fold's held-out rows.

    A query's fold follows from its key alone, and rows are put into an order that follows from their content: the
    order in which they come does not matter.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        parameters: of the aggregator; None for the defaults.

    Returns:
        Out-of-fold scores in the order of the rows, what was chosen, and how good it is.

    Raises:
        UsageError: if shapes do not fit or there are fewer queries than folds.
    """
    parameters = parameters or AggregatorParameters()
    check_shapes(columns, labels, groups)
    order = canonical_order(columns, labels, groups)
    ordered, truth, keys = columns[order], labels[order].astype(np.int64), groups[order]
    check_folds(keys, parameters.folds)
    fold = fold_of(keys, parameters.folds)
    held_out = [fold == number for number in range(parameters.folds)]
    ridges, shares, linear = _linear(centred_logs(ordered), truth, held_out)
    runs = [_Fold(ordered, truth, rows, pool, parameters) for rows, pool in zip(held_out, linear, strict=True)]
    rounds = _boost_together(runs, parameters)
    scores = np.empty((len(order), CLASSES))
    for run in runs:
        scores[run.held_out] = run.predict(rounds)
    found = _decided(ordered, truth, keys, log_softmax(scores, axis=1), Choice(rounds, ridges, shares), parameters)
    back, decisions = np.empty_like(found.scores), np.empty_like(found.decisions)
    back[order], decisions[:, order] = found.scores, found.decisions
    return CrossValidated(back, found.choice, found.counts, found.margins, decisions)


def _decided(
    columns: np.ndarray, labels: np.ndarray, groups: np.ndarray, scores: np.ndarray, choice: Choice,
    parameters: AggregatorParameters,
) -> CrossValidated:  # fmt: skip
    """Return the tuned decision rule, or the best member alone where the combination is behind it.

    The best member is the one with the highest merit: not one that is a little ahead on the primary metric and far
    behind on others. Behind it means: on the primary metric, by half a standard error of the paired difference or more;
    on another one, by half a point and a standard error or more. The doubt is in favour of the combination, because its
    estimate is that of fits on fewer pairs, and because with few pairs the difference is mostly noise and a combination
    is seldom worse.
    """
    metric = parameters.metric
    given = columns.argmax(axis=2)
    rule = tune(scores, labels, groups, given, metric, parameters.seed)
    targets = best_of(labels, given, metric)
    counts, offsets, decisions, single = rule.counts, tuple(rule.offsets.tolist()), rule.decisions, None
    members = np.stack([confusion(labels, one) for one in given.T]).astype(np.float64)
    best = int(merit(members, metric, targets).argmax())
    ahead = margins(rule.counts, metric, metrics_of(members[best], metric))
    noise = _noise(labels, groups, decide(scores, rule.offsets), given[:, best], metric)
    allowed = {name: -max(_TOLERANCE, noise[name]) for name in ahead} | {metric: -_DOUBT * noise[metric]}
    if any(ahead[name] <= allowed[name] for name in ahead):
        counts, offsets, single = members[best], (0.0,) * CLASSES, best
        scores = log_softmax(centred_logs(columns[:, [best]])[:, 0], axis=1)
        decisions = np.stack([given[:, best]] * 2).astype(np.int8)
    chosen = Choice(0 if single is not None else choice.rounds, choice.ridges, choice.shares, offsets, single)
    return CrossValidated(scores, chosen, counts, margins(counts, metric, targets), decisions)


_Shares = tuple[float, float, float]


def _noise(labels: np.ndarray, groups: np.ndarray, one: np.ndarray, other: np.ndarray, metric: str) -> dict[str, float]:
    """Return the standard error over queries of the difference of each reported metric between two sets of labels."""
    first, second = (confusion_by_query(labels, given, groups)[1] for given in (one, other))
    errors = {}
    for name in told(metric):
        moved = influence_of(name, first) - influence_of(name, second)
        errors[name] = float(np.sqrt(((moved - moved.mean()) ** 2).sum()))
    return errors


def _linear(
    logs: np.ndarray, labels: np.ndarray, held_out: Sequence[np.ndarray]
) -> tuple[tuple[float, float], _Shares, list[Pool]]:
    """Return ridges and shares of the three fits, and the linear part of each fold."""
    parts = [[fit_pool(logs[~rows], labels[~rows]) for rows in held_out]]
    ridges = []
    for cross in (False, True):
        ridge, pools = _loosest(logs, labels, held_out, cross)
        ridges.append(ridge)
        parts.append(pools)
    scores = np.stack([_predicted(logs, held_out, pools) for pools in parts])
    shares = _mixing(scores, labels)
    mixed = [mixture(list(zip(shares, pools, strict=True))) for pools in zip(*parts, strict=True)]
    return (ridges[0], ridges[1]), shares, mixed


def _loosest(
    logs: np.ndarray, labels: np.ndarray, held_out: Sequence[np.ndarray], cross: bool
) -> tuple[float, list[Pool]]:
    """Return the ridge with the least log loss out of fold, and the fit of each fold with it."""
    pools: list[Pool] = []
    best = (np.inf, _RIDGES[0], pools)
    for ridge in _RIDGES:
        starts: Sequence[Pool | None] = pools or [None] * len(held_out)
        pools = [
            fit_logistic(logs[~rows], labels[~rows], ridge, cross, start, _ROWS_FOR_RIDGE)
            for rows, start in zip(held_out, starts, strict=True)
        ]
        loss = _log_loss(_predicted(logs, held_out, pools), labels)
        if loss >= best[0]:
            break  # the loss has one minimum: looser ones fit noise
        best = (loss, ridge, pools)
    _, ridge, pools = best
    if len(labels) > _ROWS_FOR_RIDGE:
        pools = [
            fit_logistic(logs[~rows], labels[~rows], ridge, cross, start)
            for rows, start in zip(held_out, pools, strict=True)
        ]
    return ridge, pools


def _mixing(scores: np.ndarray, labels: np.ndarray) -> _Shares:
    """Return the shares with the least log loss of the weighted sum; a convex problem on a triangle."""
    rows = np.arange(len(labels))

    def loss(shares: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(shares, scores, axes=1), axis=1)
        error = np.exp(logs)
        error[rows, labels] -= 1
        return -float(logs[rows, labels].mean()), np.einsum("mnc,nc->m", scores, error) / len(labels)

    found = minimize(
        loss, np.full(3, 1 / 3), jac=True, method="SLSQP", bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda shares: shares.sum() - 1, "jac": lambda shares: np.ones(3)},
    )  # fmt: skip
    rounded = np.round(np.clip(found.x, 0, 1), 2)
    rounded[int(rounded.argmax())] += 1 - rounded.sum()
    return float(rounded[0]), float(rounded[1]), float(rounded[2])


def _predicted(logs: np.ndarray, held_out: Sequence[np.ndarray], pools: Sequence[Pool]) -> np.ndarray:
    """Return the raw scores of each row by the pool of the fold that did not see it, float64 (n, 4)."""
    scores = np.empty((len(logs), CLASSES))
    for rows, pool in zip(held_out, pools, strict=True):
        scores[rows] = pool.of_logs(logs[rows])
    return scores


def _log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    return -float(log_softmax(scores, axis=1)[np.arange(len(labels)), labels].mean())


def margins(counts: np.ndarray, metric: str, targets: dict[str, float]) -> dict[str, float]:
    """Return how far each reported metric is ahead of its target."""
    found = metrics_of(counts, metric)
    return {name: found[name] - targets[name] for name in found}


def fit_aggregator(
    columns: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    members: Sequence[str],
    parameters: AggregatorParameters | None = None,
    choice: Choice | None = None,
) -> Aggregator:
    """Fit the aggregator on all rows, as query-grouped cross-validation chooses.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores as :func:`esci_tournament.tasks.ensemble.scores.stack` returns
            them.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        members: k names.
        parameters: of the aggregator; None for the defaults.
        choice: what :func:`cross_validate` chose if it is known already; saves the cross-validation.

    Returns:
        The fitted aggregator.

    Raises:
        UsageError: if shapes do not fit or there are fewer queries than folds.
    """
    parameters = parameters or AggregatorParameters()
    check_shapes(columns, labels, groups, members)
    if choice is None:
        choice = cross_validate(columns, labels, groups, parameters).choice
    order = canonical_order(columns, labels, groups)
    ordered, truth = columns[order], labels[order].astype(np.int64)
    if choice.alone is None:
        logs = centred_logs(ordered)
        plain, cross = choice.ridges
        fits = (
            partial(fit_pool, logs, truth),
            partial(fit_logistic, logs, truth, plain),
            partial(fit_logistic, logs, truth, cross, True),
        )
        pool = mixture([(share, fit()) for share, fit in zip(choice.shares, fits, strict=True) if share])
    else:
        pool = alone(len(members), choice.alone, ordered)
    names = [f"{position}_{letter}" for position in range(len(members)) for letter in LABELS]
    settings = parameters.lightgbm(len(order))
    booster = lightgbm.Booster(settings, _dataset(ordered, truth, pool, settings, feature_name=names))
    for _ in range(choice.rounds):
        if booster.update():
            break
    # The round trip through text drops the training data and makes a fresh fit and a loaded one the same object
    text = lightgbm.Booster(model_str=booster.model_to_string()).model_to_string()
    by_itself = None if choice.alone is None else members[choice.alone]
    return Aggregator(tuple(members), text, choice.rounds, parameters, pool, choice.offsets, by_itself)


def _dataset(
    columns: np.ndarray, labels: np.ndarray, pool: Pool, settings: dict[str, Any], **rest: Any
) -> lightgbm.Dataset:
    """Return pairs as LightGBM reads them, with the pool that boosting starts from."""
    start = pool.raw_scores(columns).ravel(order="F")  # class by class
    features = columns.reshape(len(columns), -1).astype(np.float64)
    return lightgbm.Dataset(features, labels, init_score=start, params=settings, **rest)


def fold_of(groups: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold of each query key; it follows from the key alone.

    Args:
        groups: uint64 (n,), query keys.
        folds: number of folds.

    Returns:
        int64 (n,), 0 to folds - 1, as evenly spread as a hash makes it.
    """
    return np.minimum((salted_uniform(groups, "aggregator-fold") * folds).astype(np.int64), folds - 1)


def check_folds(groups: np.ndarray, folds: int) -> None:
    """Check that every fold of the cross-validation has a query, which a hash of about 30 queries makes near certain.

    Args:
        groups: uint64 (n,), query keys of the pairs that an aggregator is to learn from.
        folds: number of folds.

    Raises:
        UsageError: if one has none, or there is only one.
    """
    keys = np.unique(groups)
    filled = len(np.unique(fold_of(keys, folds)))
    if filled < max(folds, 2):
        raise UsageError(
            f"too few queries: the aggregator has {len(keys)} to learn from, and {folds - filled} of the {folds} folds "
            "of its cross-validation would have none; bring more queries (30 are enough), or raise the share of them "
            "that it learns from, `blend_share`"
        )


def canonical_order(columns: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return an order of the rows that follows from their content alone.

    Args:
        columns: float32 (n, k, 4), member scores.
        labels: int (n,).
        groups: uint64 (n,), query keys.

    Returns:
        int64 (n,), row numbers by query.
    """
    bits = np.ascontiguousarray(columns.reshape(len(columns), -1), dtype=np.float32).view(np.uint32)
    mixers = np.random.default_rng(20240301).integers(1, 2**63, size=(bits.shape[1], 1), dtype=np.uint64) * 2 + 1
    digest = np.zeros(len(columns), dtype=np.uint64)
    for column in range(bits.shape[1]):
        digest = (digest ^ (digest >> np.uint64(29))) * mixers[column] + bits[:, column]
    return np.lexsort((labels, digest, groups))


class _Fold:
    """One fold of the cross-validation: boosted round by round, watched on its held-out rows."""

    def __init__(
        self,
        columns: np.ndarray,
        labels: np.ndarray,
        held_out: np.ndarray,
        pool: Pool,
        parameters: AggregatorParameters,
    ) -> None:
        self.held_out, self.size = held_out, int(held_out.sum())
        self._threads = parameters.threads_for(len(columns))
        self._columns, self._labels, self._pool = columns[held_out], labels[held_out], pool
        settings = parameters.lightgbm(len(columns))
        data = _dataset(columns[~held_out], labels[~held_out], pool, settings)
        self._booster = lightgbm.Booster(settings, data)
        self._booster.add_valid(_dataset(self._columns, self._labels, pool, settings, reference=data), "held out")
        self.finished = False

    @property
    def loss_before(self) -> float:
        """Log loss before the first round, summed over the held-out rows, nats."""
        return _log_loss(self._pool.raw_scores(self._columns), self._labels) * self.size

    def update(self) -> float:
        """Boost one round and return the log loss summed over the held-out rows, nats."""
        self.finished = self._booster.update()
        return float(self._booster.eval_valid()[0][2]) * self.size

    def predict(self, rounds: int) -> np.ndarray:
        """Return the held-out rows' raw scores after some rounds, float64 (rows, 4)."""
        scores = self._pool.raw_scores(self._columns)
        if rounds:  # LightGBM takes 0 for all of them
            features = self._columns.reshape(len(self._columns), -1).astype(np.float64)
            trees = self._booster.predict(features, raw_score=True, num_iteration=rounds, num_threads=self._threads)
            scores = scores + np.asarray(trees).reshape(-1, CLASSES)
        return scores


def _boost_together(runs: Sequence[_Fold], parameters: AggregatorParameters) -> int:
    """Return the number of rounds with the least log loss over all folds; 0 where no round helps."""
    best_round, best_loss = 0, sum(run.loss_before for run in runs)
    for number in range(1, parameters.maximum_rounds + 1):
        loss = sum(run.update() for run in runs)
        if loss < best_loss:
            best_round, best_loss = number, loss
        if number - best_round >= parameters.patience or all(run.finished for run in runs):
            break
    return best_round
