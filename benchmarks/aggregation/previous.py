"""The aggregator of release 1: what the new one is compared with.

LightGBM started from nothing or from a log-linear pool, whichever had less log loss out of fold. Rare classes were
weighted in the fit: by their frequency to the power of the smallest of 0, -0.25, -0.5 and -0.75 whose macro F1 out of
fold was within a standard error of the best, among those that cost accuracy and weighted F1 0.02 at most. The label was
the most probable class.
"""

from __future__ import annotations

from dataclasses import dataclass

import lightgbm
import numpy as np
from scipy.optimize import minimize

from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.aggregate import AggregatorParameters, softmax
from esci_tournament.tasks.ensemble.bootstrap import resampled_sums
from esci_tournament.tasks.ensemble.counts import all_metrics, confusion_by_query
from esci_tournament.tasks.ensemble.fitting import canonical_order, fold_of
from esci_tournament.tasks.ensemble.pool import centred_logs

POWERS, MARGIN, RESAMPLES = (0.0, 0.25, 0.5, 0.75), 0.02, 500
_RIDGE = 1e-3


def previous_release(
    columns: np.ndarray, labels: np.ndarray, groups: np.ndarray, fresh: np.ndarray, parameters: AggregatorParameters
) -> np.ndarray:
    """Return the probabilities of fresh pairs, float64 (n, 4)."""
    order = canonical_order(columns, labels, groups)
    pairs = Pairs(centred_logs(columns[order]), _features(columns[order]), labels[order].astype(np.int64))
    settings, fold = parameters.lightgbm(len(order)), fold_of(groups[order], parameters.folds)

    def validated(pooled: bool, power: float) -> tuple[np.ndarray, int, float]:
        return _validated(pairs, fold, pooled, power, settings, parameters)

    plain, pool = validated(False, 0.0), validated(True, 0.0)
    pooled = pool[2] < plain[2]
    tried = [pool if pooled else plain, *(validated(pooled, power) for power in POWERS[1:])]
    chosen = _least_power([one[0] for one in tried], pairs.labels, groups[order], parameters.seed)
    fitted = Boosted(pairs, None, pooled, POWERS[chosen], settings)
    for _ in range(tried[chosen][1]):
        fitted.booster.update()
    return fitted.predict(centred_logs(fresh), _features(fresh), tried[chosen][1])


@dataclass(frozen=True)
class Pairs:
    """Pairs to fit on: logs float64 (n, k, 4), features float64 (n, 4 k), labels int64 (n,)."""

    logs: np.ndarray
    features: np.ndarray
    labels: np.ndarray

    def of(self, rows: np.ndarray) -> Pairs:
        return Pairs(self.logs[rows], self.features[rows], self.labels[rows])


class Boosted:
    """Trees on weighted pairs, from a pool or from nothing, and their loss on the rows that are held out, if any."""

    def __init__(
        self, pairs: Pairs, held_out: np.ndarray | None, pooled: bool, power: float, settings: dict[str, object]
    ) -> None:
        counts = np.maximum(np.bincount(pairs.labels, minlength=CLASSES), 1)
        weights = ((len(pairs.labels) / counts) ** power)[pairs.labels]
        weights /= weights.mean()
        fit = pairs if held_out is None else pairs.of(~held_out)
        fit_weights = weights if held_out is None else weights[~held_out]
        self._pool = _pool(fit.logs, fit.labels, fit_weights) if pooled else None
        data = self._data(fit, fit_weights if power else None, settings)
        self.booster = lightgbm.Booster(settings, data)
        self.loss_before = np.inf
        if held_out is not None:
            self.held, held_weights = pairs.of(held_out), weights[held_out]
            self.weight = float(held_weights.sum())
            held = self._data(self.held, held_weights if power else None, settings, reference=data)
            self.booster.add_valid(held, "held out")
            if pooled:
                said = softmax(self._base(self.held.logs))[np.arange(len(held_weights)), self.held.labels]
                self.loss_before = -float(held_weights @ np.log(np.maximum(said, 1e-15)))

    def _data(
        self, pairs: Pairs, weights: np.ndarray | None, settings: dict[str, object], **rest: object
    ) -> lightgbm.Dataset:
        start = None if self._pool is None else self._base(pairs.logs).ravel(order="F")
        return lightgbm.Dataset(pairs.features, pairs.labels, weight=weights, init_score=start, params=settings, **rest)

    def _base(self, logs: np.ndarray) -> np.ndarray:
        members = logs.shape[1]
        return np.einsum("nkc,k->nc", logs, self._pool[:members]) + self._pool[members:]

    def loss(self) -> float:
        """Boost one round and return the loss summed over the weighted held-out rows."""
        self.booster.update()
        return float(self.booster.eval_valid()[0][2]) * self.weight

    def predict(self, logs: np.ndarray, features: np.ndarray, rounds: int) -> np.ndarray:
        scores = np.zeros((len(logs), CLASSES)) if self._pool is None else self._base(logs)
        if rounds:  # LightGBM takes 0 for all of them
            scores = scores + np.asarray(self.booster.predict(features, raw_score=True, num_iteration=rounds))
        return softmax(scores)


def _validated(
    pairs: Pairs, fold: np.ndarray, pooled: bool, power: float, settings: dict[str, object],
    parameters: AggregatorParameters,
) -> tuple[np.ndarray, int, float]:  # fmt: skip
    """Return out-of-fold probabilities, the number of rounds and the loss."""
    held_out = [fold == number for number in range(parameters.folds)]
    runs = [Boosted(pairs, rows, pooled, power, settings) for rows in held_out]
    best_round, best = (0 if pooled else 1), sum(run.loss_before for run in runs)
    for number in range(1, parameters.maximum_rounds + 1):
        loss = sum(run.loss() for run in runs)
        if loss < best:
            best_round, best = number, loss
        if number - best_round >= parameters.patience:
            break
    probabilities = np.empty((len(fold), CLASSES), np.float32)
    for run, rows in zip(runs, held_out, strict=True):
        probabilities[rows] = run.predict(run.held.logs, run.held.features, best_round)
    return probabilities, best_round, best / sum(run.weight for run in runs)


def _least_power(probabilities: list[np.ndarray], labels: np.ndarray, groups: np.ndarray, seed: int) -> int:
    """Return the place of the least power within a standard error of the best allowed one."""
    counts = np.stack([confusion_by_query(labels, one.argmax(axis=1), groups)[1] for one in probabilities], axis=1)
    overall = all_metrics(counts.sum(axis=0))
    costs = np.max([overall[name].max() - overall[name] for name in ("accuracy", "weighted_f1")], axis=0)
    allowed, values = costs <= max(MARGIN, costs.min()), overall["macro_f1"]
    table = counts.reshape(len(counts), -1).astype(np.float32)
    sums = resampled_sums(table, np.zeros(len(table), np.int64), RESAMPLES, seed)[:, 0]
    resampled = all_metrics(sums.reshape(RESAMPLES, len(POWERS), CLASSES, CLASSES))["macro_f1"]
    best = int(np.where(allowed, values, -np.inf).argmax())
    errors = (resampled[:, [best]] - resampled).std(axis=0, ddof=1)
    return int(np.flatnonzero(allowed & (values[best] - values <= errors))[0])


def _pool(logs: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weight of each member and the number of each class, float64 (k + 4,), by weighted likelihood."""
    members, row = logs.shape[1], np.arange(len(labels))
    truth = np.eye(CLASSES)[labels]
    counts = weights / len(labels)
    middle = np.concatenate([np.full(members, 1 / members), np.zeros(CLASSES)])

    def loss(found: np.ndarray) -> tuple[float, np.ndarray]:
        scores = np.einsum("nkc,k->nc", logs, found[:members]) + found[members:]
        shares, away = softmax(scores), found - middle
        slope = (shares - truth) * counts[:, None]
        value = -float(counts @ np.log(np.maximum(shares[row, labels], 1e-300))) + _RIDGE * float(away @ away)
        return value, np.concatenate([np.einsum("nkc,nc->k", logs, slope), slope.sum(axis=0)]) + 2 * _RIDGE * away

    bounds = [(0.0, None)] * members + [(None, None)] * CLASSES
    return minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}).x


def _features(columns: np.ndarray) -> np.ndarray:
    return columns.reshape(len(columns), -1).astype(np.float64)
