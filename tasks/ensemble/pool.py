"""A log-linear pool of the members: what the trees start from where there is too little data to learn more.

The raw score of class c of pair i is

    b_c + sum over members m of w_m * l_imc,    l_imc = log p_imc - mean over classes of log p_im,    w_m >= 0

(a logarithmic opinion pool: Genest and Zidek 1986, "Combining Probability Distributions", section 4). One weight a
member and one number a class are fitted by penalised maximum likelihood, which is a convex problem. Being a sum over
members, it is its own attribution: the Shapley value of member m is its term less the term's mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize

from esci_tournament.registry.labels import CLASSES

_FLOOR = 1e-5  # probabilities below this count as this, so that a confident wrong member costs a bounded amount
_RIDGE = 1e-3  # of the mean log loss, nats: pulls weights towards 1 / members, and the classes' numbers towards 0
_MOST_ROWS = 60_000  # pairs that so few numbers are fitted on


@dataclass(frozen=True)
class Pool:
    """A fitted pool.

    Attributes:
        weights: float64 (k,), not negative.
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

    def raw_scores(self, columns: np.ndarray) -> np.ndarray:
        """Return raw scores, float64 (n, 4), of member scores float (n, k, 4)."""
        return np.einsum("nkc,k->nc", centred_logs(columns), self.weights) + self.bias

    def contributions(self, columns: np.ndarray) -> np.ndarray:
        """Return what each member adds to each raw score.

        Args:
            columns: float (n, k, 4), member scores.

        Returns:
            float64 (n, 4, k); their sum over members and :attr:`base` are the raw scores.
        """
        terms = centred_logs(columns) * self.weights[:, None] - self.average
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
        if found.bias.shape != (CLASSES,) or found.average.shape != (members, CLASSES):
            raise ValueError(f"a pool of {members} members with shapes {found.bias.shape} and {found.average.shape}")
        return found


def fit_pool(columns: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Pool:
    """Return the pool that gives the labels the highest likelihood, less a small ridge penalty.

    Args:
        columns: float (n, k, 4), out-of-sample scores.
        labels: int (n,), index into `LABELS`.
        weights: float64 (n,), of the pairs, mean 1; None for equal weights.

    Returns:
        The pool, fitted on at most 60,000 pairs, evenly spread over the rows.
    """
    if len(labels) > _MOST_ROWS:
        rows = np.linspace(0, len(labels) - 1, _MOST_ROWS).astype(np.int64)
        columns, labels = columns[rows], labels[rows]
        weights = None if weights is None else weights[rows]
    logs = centred_logs(columns)
    members, row = logs.shape[1], np.arange(len(labels))
    truth = np.zeros((len(labels), CLASSES))
    truth[row, labels] = 1.0
    counts = (np.ones(len(labels)) if weights is None else weights) / len(labels)
    middle = np.concatenate([np.full(members, 1 / members), np.zeros(CLASSES)])

    def loss(found: np.ndarray) -> tuple[float, np.ndarray]:
        scores = np.einsum("nkc,k->nc", logs, found[:members]) + found[members:]
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        total = shares.sum(axis=1, keepdims=True)
        shares /= total
        value = float(counts @ (np.log(total[:, 0]) - scores[row, labels]))
        slope = (shares - truth) * counts[:, None]
        away = found - middle
        gradient = np.concatenate([np.einsum("nkc,nc->k", logs, slope), slope.sum(axis=0)]) + 2 * _RIDGE * away
        return value + _RIDGE * float(away @ away), gradient

    bounds = [(0.0, None)] * members + [(None, None)] * CLASSES
    found = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}).x
    return Pool(found[:members], found[members:], logs.mean(axis=0) * found[:members, None])


def centred_logs(columns: np.ndarray) -> np.ndarray:
    """Return the logarithms of probabilities less their mean over the classes.

    Args:
        columns: float (n, k, 4), probabilities; below 1e-5 they count as 1e-5.

    Returns:
        float64 (n, k, 4).
    """
    logs = np.log(np.clip(columns.astype(np.float64), _FLOOR, None))
    return logs - logs.mean(axis=2, keepdims=True)
