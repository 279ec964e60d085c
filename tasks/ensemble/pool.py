"""The log-linear part of the aggregator: a weighted sum of the members' log-probabilities.

The raw score of class c of pair i is

    b_c + sum over members m and classes d of w_mdc * l_imd,    l_imd = log p_imd - mean over classes of log p_im

Three ways to fit it, from few numbers to many; all are penalised maximum likelihood, a convex problem:

- :func:`fit_pool`: one weight a member, not negative (a logarithmic opinion pool: Genest and Zidek 1986, "Combining
  Probability Distributions", section 4);
- :func:`fit_logistic` without cross weights: a weight for each member and class, w_mdc = 0 where d is not c, so that a
  member can be trusted with one class and not with another;
- :func:`fit_logistic` with cross weights: multinomial logistic regression on all log-probabilities ("stacking" in Ting
  and Witten 1999, "Issues in Stacked Generalization"), so that what a member says of one class bears on another.

A mixture of them is of the same form. Being a sum over members, it is its own attribution: the Shapley value of member
m is its term less the term's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize

from esci_tournament.registry.labels import CLASSES

_FLOOR = 1e-5  # probabilities below this count as this, so that a confident wrong member costs a bounded amount
_RIDGE = 1e-3  # of the mean log loss, nats: pulls weights towards 1 / members, and the classes' numbers towards 0
_BIAS_RIDGE = 1e-4  # of the classes' numbers in the class-wise fit
_MOST_STEPS, _PRECISION = 50, 1e-12  # of Newton's method; the precision is that of the mean log loss, nats
MOST_ROWS = 60_000  # pairs that so few numbers are fitted on


@dataclass(frozen=True)
class Pool:
    """A fitted pool.

    Attributes:
        weights: float64 (k,), (k, 4) or (k, 4, 4): of each member, of each member and class, or of each member, class
            that it speaks of and class that is scored.
        bias: float64 (4,).
        average: float64 (k, 4), each member's mean term over the pairs learnt from.
    """

    weights: np.ndarray
    bias: np.ndarray
    average: np.ndarray

    @property
    def base(self) -> np.ndarray:
        """The expected raw scores, float64 (4,)."""
        return self.bias + self.average.sum(axis=0)

    @property
    def full(self) -> np.ndarray:
        """The weights by member, class that it speaks of, and class that is scored, float64 (k, 4, 4)."""
        if self.weights.ndim == 3:
            return self.weights
        by_class = self.weights.reshape(len(self.weights), -1, 1)
        return np.eye(CLASSES) * np.broadcast_to(by_class, (len(self.weights), CLASSES, 1))

    def raw_scores(self, columns: np.ndarray) -> np.ndarray:
        """Return raw scores, float64 (n, 4), of member scores float (n, k, 4)."""
        return self.of_logs(centred_logs(columns))

    def of_logs(self, logs: np.ndarray) -> np.ndarray:
        """Return raw scores, float64 (n, 4), of :func:`centred_logs`, float64 (n, k, 4)."""
        return logs.reshape(len(logs), -1) @ self.full.reshape(-1, CLASSES) + self.bias

    def contributions(self, columns: np.ndarray) -> np.ndarray:
        """Return what each member adds to each raw score.

        Args:
            columns: float (n, k, 4), member scores.

        Returns:
            float64 (n, 4, k); their sum over members and :attr:`base` are the raw scores.
        """
        terms = np.einsum("nkd,kdc->nkc", centred_logs(columns), self.full) - self.average
        return terms.transpose(0, 2, 1)

    def to_json(self) -> dict[str, Any]:
        """Return weights, bias and average as JSON-able lists."""
        return {name: getattr(self, name).tolist() for name in ("weights", "bias", "average")}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Return the pool that :meth:`to_json` wrote.

        Args:
            facts: what :meth:`to_json` returned.

        Returns:
            An equal pool.

        Raises:
            ValueError: if a value or a shape is wrong.
            KeyError: if a fact is missing.
            TypeError: if a fact is of a wrong type.
        """
        found = cls(*(np.asarray(facts[name], dtype=np.float64) for name in ("weights", "bias", "average")))
        members = len(found.weights)
        if found.weights.shape not in ((members,), (members, CLASSES), (members, CLASSES, CLASSES)):
            raise ValueError(f"a pool with weights of shape {found.weights.shape}")
        if found.bias.shape != (CLASSES,) or found.average.shape != (members, CLASSES):
            raise ValueError(f"a pool of {members} members with shapes {found.bias.shape} and {found.average.shape}")
        return found


def alone(members: int, position: int, columns: np.ndarray) -> Pool:
    """Return the pool that answers as one member does by itself.

    Args:
        members: k, the number of members.
        position: of the one that answers, 0 to k - 1.
        columns: float (n, k, 4), member scores, which the average term is taken over.

    Returns:
        A pool whose probabilities are those of the member, below 1e-5 as 1e-5.
    """
    weights = np.zeros(members)
    weights[position] = 1.0
    return Pool(weights, np.zeros(CLASSES), centred_logs(columns).mean(axis=0) * weights[:, None])


def mixture(parts: Sequence[tuple[float, Pool]]) -> Pool:
    """Return the weighted sum of pools of the same members.

    Args:
        parts: share and pool, one at least; those of share 0 are left out where another is not.
    """
    parts = [part for part in parts if part[0]] or parts[:1]
    crossed = any(pool.weights.ndim == 3 for _, pool in parts)
    return Pool(
        np.sum([share * (pool.full if crossed else _by_class(pool)) for share, pool in parts], axis=0),
        np.sum([share * pool.bias for share, pool in parts], axis=0),
        np.sum([share * pool.average for share, pool in parts], axis=0),
    )


def _by_class(pool: Pool) -> np.ndarray:
    return np.array(np.broadcast_to(pool.weights.reshape(len(pool.weights), -1), (len(pool.weights), CLASSES)))


def fit_pool(logs: np.ndarray, labels: np.ndarray) -> Pool:
    """Return the pool with a weight a member that gives the labels the highest likelihood, less a small ridge penalty.

    Args:
        logs: float64 (n, k, 4), what :func:`centred_logs` makes of out-of-sample scores.
        labels: int (n,), index into `LABELS`.

    Returns:
        The pool, fitted on at most 60,000 pairs, evenly spread over the rows.
    """
    logs, labels = _some(logs, labels, MOST_ROWS)
    members, row = logs.shape[1], np.arange(len(labels))
    truth = np.zeros((len(labels), CLASSES))
    truth[row, labels] = 1.0
    middle = np.concatenate([np.full(members, 1 / members), np.zeros(CLASSES)])

    def loss(found: np.ndarray) -> tuple[float, np.ndarray]:
        scores = np.einsum("nkc,k->nc", logs, found[:members]) + found[members:]
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        total = shares.sum(axis=1, keepdims=True)
        shares /= total
        value = float((np.log(total[:, 0]) - scores[row, labels]).mean())
        slope = (shares - truth) / len(labels)
        away = found - middle
        gradient = np.concatenate([np.einsum("nkc,nc->k", logs, slope), slope.sum(axis=0)]) + 2 * _RIDGE * away
        return value + _RIDGE * float(away @ away), gradient

    bounds = [(0.0, None)] * members + [(None, None)] * CLASSES
    found = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}).x
    return Pool(found[:members], found[members:], logs.mean(axis=0) * found[:members, None])


def fit_logistic(
    logs: np.ndarray,
    labels: np.ndarray,
    ridge: float,
    cross: bool = False,
    start: Pool | None = None,
    maximum_rows: int = MOST_ROWS,
) -> Pool:
    """Return the pool with a weight for each member and class that gives the labels the highest penalised likelihood.

    Newton's method with step halving: it needs some six steps, each ten products of matrices.

    Args:
        logs: float64 (n, k, 4), what :func:`centred_logs` makes of out-of-sample scores.
        labels: int (n,), index into `LABELS`.
        ridge: penalty on the mean log loss, nats: pulls a member's weight for its own class towards 1 / members, and
            for the other classes towards 0. Above 0.
        cross: whether what a member says of one class may bear on another.
        start: where to begin, such as a fit of the same kind with another ridge; it saves steps and changes no result
            beyond rounding.
        maximum_rows: pairs to fit on at most, evenly spread over the rows.

    Returns:
        The pool.
    """
    logs, labels = _some(logs, labels, maximum_rows)
    rows, members = len(labels), logs.shape[1]
    one = np.ones((rows, 1))
    if cross:
        design = [np.concatenate([logs.reshape(rows, -1), one], axis=1)] * CLASSES
        own = np.eye(CLASSES)[None].repeat(members, axis=0).reshape(-1, CLASSES).T / members  # class by number
    else:
        design = [np.concatenate([logs[:, :, label], one], axis=1) for label in range(CLASSES)]
        own = np.full((CLASSES, members), 1 / members)
    width = design[0].shape[1]  # the weights and the bias of one class stand together
    truth = np.zeros((rows, CLASSES))
    truth[np.arange(rows), labels] = 1.0
    middle = np.concatenate([own, np.zeros((CLASSES, 1))], axis=1)
    penalty = np.tile(np.append(np.full(width - 1, 2 * ridge), 2 * _BIAS_RIDGE), CLASSES)

    def loss(found: np.ndarray) -> tuple[float, np.ndarray]:
        scores = np.stack([part @ numbers for part, numbers in zip(design, found, strict=True)], axis=1)
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        total = shares.sum(axis=1)
        away = (found - middle).ravel()
        value = float((np.log(total) - scores[truth > 0]).mean()) + float(penalty @ away**2) / 2
        return value, shares / total[:, None]

    found = middle.copy()
    if start is not None:
        weights = start.full.reshape(-1, CLASSES).T if cross else _by_class(start).T
        found = np.column_stack([weights, start.bias])
    value, shares = loss(found)
    for _ in range(_MOST_STEPS):
        error = shares - truth
        slope = np.stack([part.T @ error[:, label] for label, part in enumerate(design)]).ravel() / rows
        slope += penalty * (found - middle).ravel()
        step = -np.linalg.solve(_curvature(design, shares) + np.diag(penalty), slope)
        if -slope @ step < _PRECISION:
            break
        length = 1.0
        while True:
            tried = found + length * step.reshape(CLASSES, width)
            new_value, new_shares = loss(tried)
            if new_value <= value or length < 1e-4:
                break
            length /= 2
        found, value, shares = tried, new_value, new_shares
    weights = np.ascontiguousarray(found[:, :-1].T)
    weights = weights.reshape(members, CLASSES, CLASSES) if cross else weights
    pool = Pool(weights, found[:, -1].copy(), np.zeros((members, CLASSES)))
    return Pool(weights, pool.bias, np.einsum("kd,kdc->kc", logs.mean(axis=0), pool.full))


def _curvature(design: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Return the second derivatives of the mean log loss, float64 (4 * numbers, 4 * numbers)."""
    width = design[0].shape[1]
    found = np.empty((CLASSES, width, CLASSES, width))
    for one in range(CLASSES):
        for other in range(one, CLASSES):
            weight = shares[:, one] * ((one == other) - shares[:, other]) / len(shares)
            found[one, :, other] = design[one].T @ (weight[:, None] * design[other])
            found[other, :, one] = found[one, :, other].T
    return found.reshape(CLASSES * width, CLASSES * width)


def _some(logs: np.ndarray, labels: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    if len(labels) <= most:
        return logs, labels
    rows = np.linspace(0, len(labels) - 1, most).astype(np.int64)
    return logs[rows], labels[rows]


def centred_logs(columns: np.ndarray) -> np.ndarray:
    """Return the logarithms of probabilities less their mean over the classes.

    Args:
        columns: float (n, k, 4), probabilities; below 1e-5 they count as 1e-5.

    Returns:
        float64 (n, k, 4).
    """
    logs = np.log(np.clip(columns.astype(np.float64), _FLOOR, None))
    return logs - logs.mean(axis=2, keepdims=True)
