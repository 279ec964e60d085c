"""Predict the metric of sets of models not fitted yet: a Gaussian process over sets, learnt from those that are fitted.

Two sets that share most models reach about the same metric. The covariance of their values is
exp(-sum of the weights of the models that stand in one and not in the other). A weight for each model, the scale and
the noise are those of highest posterior density: marginal likelihood times a prior that holds the weights together.

Values far below the best are raised to a floor before the process learns from them. How bad a bad set is says nothing
about which of the good ones is best, but a few very low values would fix the scale of everything.

The next set to fit is the one with the largest expected improvement (Mockus 1975; Jones, Schonlau and Welch 1998).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr

_WEIGHT = 1 / 8  # models that may differ before two sets say little about each other: 8
_SPREAD_OF_WEIGHTS = 0.5  # standard deviation of the logarithm of a weight
_NOISE = 0.01  # share of the variance that no set explains about another
_FLOOR = 2.0  # below the best, in distances from the best to the median of the others
_STEPS = 20  # of the optimizer, from the last optimum
_BOUNDS = (-7.0, 3.0)  # of all logarithms
_SMALLEST = 1e-9  # variance at which a division is still safe
_SQUARE_ROOT_OF_TAU = 2.5066282746310002


class Surrogate:
    """A Gaussian process over sets of models, given as rows of indicators.

    Args:
        models: Number of models, k.
    """

    def __init__(self, models: int) -> None:
        self._typical = np.log([*[_WEIGHT] * models, 1.0, _NOISE])
        self._spread = np.array([*[_SPREAD_OF_WEIGHTS] * models, 1.5, 1.0])
        self._logs = self._typical.copy()
        self._centre, self._unit, self._floor, self._mean = 0.0, 1.0, -np.inf, 0.0
        self._sets: np.ndarray = np.zeros((0, models))
        self._factor: np.ndarray = np.zeros((0, 0))  # Cholesky's, lower
        self._whitened: np.ndarray = np.zeros(0)

    def learn(self, sets: np.ndarray, values: np.ndarray, best: float) -> None:
        """Learn the weights, the scale and the noise, and condition on the values.

        Args:
            sets: bool (n, k), sets that are fitted, n >= 1.
            values: float64 (n,), the metric of each.
            best: the metric that is to be improved on; it sets the floor.
        """
        lower = values[values < best]
        self._floor = best - _FLOOR * (best - float(np.median(lower))) if len(lower) else best
        raised = np.maximum(values, self._floor)
        self._centre, self._unit = float(raised.mean()), max(float(raised.std()), 1e-9)
        self._sets, scaled = sets.astype(np.float64), (raised - self._centre) / self._unit
        found = minimize(
            self._objective,
            self._logs,
            args=(self._sets, scaled),
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS] * len(self._logs),
            options={"maxiter": _STEPS},
        )
        self._logs = found.x
        weights, scale, noise = self.parts()
        covariance = scale * _kernel(self._sets, self._sets, weights)
        self._factor = np.linalg.cholesky(covariance + noise * np.eye(len(sets)))
        ones, white = (self._white(column) for column in (np.ones(len(sets)), scaled))
        self._mean = float(ones @ white / (ones @ ones))
        self._whitened = white - self._mean * ones

    def beliefs(self, proposals: np.ndarray) -> Beliefs:
        """Return what is believed of sets that are not fitted.

        Args:
            proposals: bool (m, k).

        Returns:
            Mean and variance of each, which learn from the next fits.
        """
        weights, scale, _ = self.parts()
        rows = proposals.astype(np.float64)
        loadings = self._white(scale * _kernel(self._sets, rows, weights))
        return Beliefs(rows, loadings, self._mean + self._whitened @ loadings, self)

    def scaled(self, value: float) -> float:
        """Return a value in the unit that the process works in."""
        return (max(value, self._floor) - self._centre) / self._unit

    def parts(self) -> tuple[np.ndarray, float, float]:
        """Return the weight of each model, float64 (k,), the variance of the process, and that of the noise."""
        return _parts(self._logs)

    def _white(self, columns: np.ndarray) -> np.ndarray:
        return np.asarray(solve_triangular(self._factor, columns, lower=True, check_finite=False))

    def _objective(self, logs: np.ndarray, sets: np.ndarray, scaled: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative log posterior density, up to a constant, and its gradient in the logarithms."""
        weights, scale, noise = _parts(logs)
        shared = scale * _kernel(sets, sets, weights)
        factor = cho_factor(shared + noise * np.eye(len(sets)), lower=True, check_finite=False)
        inverse = cho_solve(factor, np.eye(len(sets)), check_finite=False)
        mean = float(inverse.sum(axis=0) @ scaled / inverse.sum())
        residual = inverse @ (scaled - mean)
        value = 0.5 * (scaled - mean) @ residual + np.log(np.diag(factor[0])).sum()
        slope = 0.5 * (inverse - np.outer(residual, residual))
        weighted = slope * shared
        # Model i counts in the distance of two sets of which one has it and the other has not
        apart = 2 * (sets.T @ weighted.sum(axis=1) - np.einsum("ni,ni->i", sets, weighted @ sets))
        gradient = np.concatenate([-weights * apart, [weighted.sum(), noise * np.trace(slope)]])
        off = (logs - self._typical) / self._spread
        return float(value + 0.5 * off @ off), gradient + off / self._spread


class Beliefs:
    """Mean and variance of proposals, updated with each further fit without learning anew.

    Args:
        rows: float64 (m, k), indicators of the proposals.
        loadings: float64 (n, m), the covariance with the fitted sets, whitened.
        mean: float64 (m,), in the process's unit.
        surrogate: what they come from.
    """

    def __init__(self, rows: np.ndarray, loadings: np.ndarray, mean: np.ndarray, surrogate: Surrogate) -> None:
        self._rows, self._loadings, self._mean, self._surrogate = rows, loadings, mean, surrogate
        self._weights, self._scale, self._noise = surrogate.parts()
        self._variance = self._scale - np.einsum("nm,nm->m", loadings, loadings)

    def expected_improvement(self, best: float) -> np.ndarray:
        """Return by how much each proposal is expected to exceed `best`, as a share of the spread of the values.

        Args:
            best: the metric to improve on.

        Returns:
            float64 (m,), 0 or more.
        """
        deviation = np.sqrt(np.maximum(self._variance, _SMALLEST))
        surplus = (self._mean - self._surrogate.scaled(best)) / deviation
        return np.asarray(deviation * (surplus * ndtr(surplus) + np.exp(-0.5 * surplus**2) / _SQUARE_ROOT_OF_TAU))

    def add(self, place: int, value: float) -> None:
        """Condition on the metric of one proposal too.

        Args:
            place: its row.
            value: its metric.
        """
        shared = self._scale * _kernel(self._rows[[place]], self._rows, self._weights)[0]
        deviation = np.sqrt(max(self._variance[place], _SMALLEST) + self._noise)
        new = (shared - self._loadings[:, place] @ self._loadings) / deviation
        surprise = (self._surrogate.scaled(value) - self._mean[place]) / deviation
        self._loadings = np.vstack([self._loadings, new])
        self._mean = self._mean + surprise * new
        self._variance = self._variance - new**2


def _parts(logs: np.ndarray) -> tuple[np.ndarray, float, float]:
    return np.exp(logs[:-2]), float(np.exp(logs[-2])), float(np.exp(logs[-1]))


def _kernel(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    distance = (first @ weights)[:, None] + (second @ weights)[None, :] - 2 * (first * weights) @ second.T
    return np.asarray(np.exp(-np.maximum(distance, 0)))
