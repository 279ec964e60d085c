"""Fit the aggregator: folds by query, boosted side by side and stopped together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import CLASSES, LABELS
from esci_tournament.tasks.data.dataset import salted_uniform
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters, check_shapes, softmax
from esci_tournament.tasks.ensemble.pool import Pool, fit_pool


@dataclass(frozen=True)
class CrossValidated:
    """The result of a cross-validation.

    Attributes:
        probabilities: float32 (n, 4), each row predicted by a fold that did not see its query.
        rounds: the number of rounds with the least mean log loss over the folds.
        log_loss: that loss, nats a pair.
    """

    probabilities: np.ndarray
    rounds: int
    log_loss: float


def cross_validate(
    columns: np.ndarray, labels: np.ndarray, groups: np.ndarray, parameters: AggregatorParameters | None = None
) -> CrossValidated:
    """Boost all folds side by side, stop them together, and predict each fold's held-out rows at the best round.

    A query's fold follows from its key alone, and rows are put into an order that follows from their content: the
    order in which they come does not matter. One common number of rounds is the only thing chosen on the held-out rows.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        parameters: of the aggregator; None for the defaults.

    Returns:
        Out-of-fold probabilities in the order of the rows, the rounds and the loss.

    Raises:
        UsageError: if shapes do not fit or there are fewer queries than folds.
    """
    parameters = parameters or AggregatorParameters()
    check_shapes(columns, labels, groups)
    order = canonical_order(columns, labels, groups)
    truth = labels[order].astype(np.int64)
    fold = fold_of(groups[order], parameters.folds)
    weights = pair_weights(truth, parameters.balance)
    runs = [_Fold(columns[order], truth, weights, fold == number, parameters) for number in range(parameters.folds)]
    rounds, loss = _boost_together(runs, parameters)
    probabilities = np.empty((len(order), CLASSES), dtype=np.float32)
    for run in runs:
        probabilities[order[run.held_out]] = run.predict(rounds)
    return CrossValidated(probabilities, rounds, loss)


def out_of_fold(
    columns: np.ndarray, labels: np.ndarray, groups: np.ndarray, parameters: AggregatorParameters | None = None
) -> np.ndarray:
    """Return out-of-fold class probabilities.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        parameters: of the aggregator; None for the defaults.

    Returns:
        float32 (n, 4); see :func:`cross_validate`.

    Raises:
        UsageError: if shapes do not fit or there are fewer queries than folds.
    """
    return cross_validate(columns, labels, groups, parameters).probabilities


def fit_aggregator(
    columns: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    members: Sequence[str],
    parameters: AggregatorParameters | None = None,
    rounds: int | None = None,
) -> Aggregator:
    """Fit the aggregator on all rows, with as many rounds as query-grouped cross-validation chooses.

    Args:
        columns: float32 (n, k, 4), out-of-sample scores as :func:`esci_tournament.tasks.ensemble.scores.stack` returns
            them.
        labels: int8 (n,), index into `LABELS`.
        groups: uint64 (n,), query keys.
        members: k names.
        parameters: of the aggregator; None for the defaults.
        rounds: the number of rounds if it is known already; saves the cross-validation.

    Returns:
        The fitted aggregator.

    Raises:
        UsageError: if shapes do not fit or there are fewer queries than folds.
    """
    parameters = parameters or AggregatorParameters()
    check_shapes(columns, labels, groups, members)
    if rounds is None:
        rounds = cross_validate(columns, labels, groups, parameters).rounds
    order = canonical_order(columns, labels, groups)
    names = [f"{position}_{letter}" for position in range(len(members)) for letter in LABELS]
    settings = parameters.lightgbm(len(order))
    ordered, truth = columns[order], labels[order].astype(np.int64)
    weights = pair_weights(truth, parameters.balance)
    pool = fit_pool(ordered, truth, weights) if parameters.start == "pool" else None
    data = _dataset(ordered, truth, weights, pool, settings, feature_name=names)
    booster = lightgbm.Booster(settings, data)
    for _ in range(rounds):
        if booster.update():
            break
    # The round trip through text drops the training data and makes a fresh fit and a loaded one the same object
    text = lightgbm.Booster(model_str=booster.model_to_string()).model_to_string()
    return Aggregator(tuple(members), text, rounds, parameters, pool)


def _dataset(
    columns: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None,
    pool: Pool | None,
    settings: dict[str, Any],
    **rest: Any,
) -> lightgbm.Dataset:
    """Return pairs as LightGBM reads them, with what boosting starts from."""
    start = None if pool is None else pool.raw_scores(columns).ravel(order="F")  # class by class
    features = columns.reshape(len(columns), -1).astype(np.float64)
    return lightgbm.Dataset(features, labels, weight=weights, init_score=start, params=settings, **rest)


def pair_weights(labels: np.ndarray, balance: float) -> np.ndarray | None:
    """Return the weight of each pair: the frequency of its class to the power -`balance`.

    Args:
        labels: int (n,), index into `LABELS`.
        balance: the power; 0 for no weights.

    Returns:
        float64 (n,) of mean 1, or None for no weights.

    Example:
        >>> pair_weights(np.array([0, 0, 0, 1]), balance=1.0).round(3).tolist()
        [0.667, 0.667, 0.667, 2.0]
    """
    if not balance:
        return None
    counts = np.maximum(np.bincount(labels, minlength=CLASSES), 1)
    weights = ((len(labels) / counts) ** balance)[labels]
    return weights / weights.mean()


def fold_of(groups: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold of each query key; it follows from the key alone.

    Args:
        groups: uint64 (n,), query keys.
        folds: number of folds.

    Returns:
        int64 (n,), 0 to folds - 1, as evenly spread as a hash makes it.
    """
    return np.minimum((salted_uniform(groups, "aggregator-fold") * folds).astype(np.int64), folds - 1)


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
        weights: np.ndarray | None,
        held_out: np.ndarray,
        parameters: AggregatorParameters,
    ) -> None:
        if not held_out.any() or held_out.all():
            raise UsageError(
                f"a fold of {parameters.folds} has no query to learn from or to be tested on: too few queries "
                "(fewer than about 30); lower `folds` or give the aggregator more pairs"
            )
        self.held_out, self._threads = held_out, parameters.threads_for(len(columns))
        self._columns, self._labels = columns[held_out], labels[held_out]
        settings = parameters.lightgbm(len(columns))
        fitted_weights, held_weights = (None, None) if weights is None else (weights[~held_out], weights[held_out])
        self._weights = held_weights
        self.weight = float(len(self._labels) if held_weights is None else held_weights.sum())
        fitted, truth = columns[~held_out], labels[~held_out]
        self._pool = fit_pool(fitted, truth, fitted_weights) if parameters.start == "pool" else None
        data = _dataset(fitted, truth, fitted_weights, self._pool, settings)
        self._booster = lightgbm.Booster(settings, data)
        held = _dataset(self._columns, self._labels, held_weights, self._pool, settings, reference=data)
        self._booster.add_valid(held, "held out")
        self.finished = False

    @property
    def loss_before(self) -> float:
        """Log loss before the first round, summed over the weighed held-out rows, nats; infinite without a pool."""
        if self._pool is None:
            return np.inf
        shares = softmax(self._pool.raw_scores(self._columns))
        logs = np.log(np.maximum(shares[np.arange(len(shares)), self._labels], 1e-15))
        return -float(logs.sum() if self._weights is None else self._weights @ logs)

    def update(self) -> float:
        """Boost one round and return the log loss summed over the weighed held-out rows, nats."""
        self.finished = self._booster.update()
        return float(self._booster.eval_valid()[0][2]) * self.weight

    def predict(self, rounds: int) -> np.ndarray:
        """Return the held-out rows' probabilities after some rounds, float64 (rows, 4)."""
        features = self._columns.reshape(len(self._columns), -1).astype(np.float64)
        if self._pool is None:
            return np.asarray(self._booster.predict(features, num_iteration=rounds, num_threads=self._threads))
        scores = self._pool.raw_scores(self._columns)
        if rounds:  # LightGBM takes 0 for all of them
            trees = self._booster.predict(features, raw_score=True, num_iteration=rounds, num_threads=self._threads)
            scores = scores + np.asarray(trees).reshape(-1, CLASSES)
        return softmax(scores)


def _boost_together(runs: Sequence[_Fold], parameters: AggregatorParameters) -> tuple[int, float]:
    weight = sum(run.weight for run in runs)
    before = sum(run.loss_before for run in runs) / weight
    best_round, best_loss = (0, before) if np.isfinite(before) else (1, np.inf)
    for number in range(1, parameters.maximum_rounds + 1):
        loss = sum(run.update() for run in runs) / weight
        if loss < best_loss:
            best_round, best_loss = number, loss
        if number - best_round >= parameters.patience or all(run.finished for run in runs):
            break
    return best_round, float(best_loss)
