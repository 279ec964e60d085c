"""Calibration of probabilities: reliability by bins, expected calibration error, and temperature scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.scores import MemberScores, stack

BINS = 15
LOWEST, HIGHEST = 0.05, 20.0  # temperatures that are tried
_FLOOR = 1e-7  # keeps the loss of a wrong probability of zero finite


@dataclass(frozen=True)
class Calibration:
    """The calibration of one model.

    Attributes:
        temperature: fitted on pairs that the model did not learn from; above 1 the model is overconfident.
            None when it was not fitted.
        error: expected calibration error of the raw probabilities on the test pairs, in [0, 1]; None when they were not
            asked.
        error_after: the same of the tempered ones; None without a temperature.
        reliability: the raw probabilities' bins, each [mean confidence, accuracy, pairs], by rising confidence.
    """

    temperature: float | None
    error: float | None = None
    error_after: float | None = None
    reliability: list[list[float]] = field(default_factory=list)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that gives the labels the highest likelihood (Guo et al. 2017, arXiv 1706.04599).

    Args:
        probabilities: float (n, 4), out of sample.
        labels: int (n,), index into `LABELS`.

    Returns:
        A number from 0.05 to 20.

    Raises:
        UsageError: if there is no pair.
    """
    if not len(labels):
        raise UsageError("a temperature needs pairs with labels; there are none")
    logs = np.log(np.clip(probabilities.astype(np.float64), _FLOOR, None))
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[rows, labels]).mean())

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities at a temperature, softmax(log p / T); the most probable class stays the same.

    Args:
        probabilities: float (n, 4).
        temperature: T, above 0; above 1 makes them less confident.

    Returns:
        float32 (n, 4).
    """
    scaled = np.log(np.clip(probabilities.astype(np.float64), _FLOOR, None)) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> list[list[float]]:
    """Return confidence and accuracy by bins of equal width; the confidence is the highest of the four probabilities.

    Args:
        probabilities: float (n, 4).
        labels: int (n,), index into `LABELS`.
        bins: number of bins over [0, 1].

    Returns:
        [mean confidence, accuracy, pairs] of each bin that is not empty, by rising confidence.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    rows = []
    for number in np.unique(place):
        inside = place == number
        rows.append([float(confidence[inside].mean()), float(right[inside].mean()), float(inside.sum())])
    return rows


def calibration_error(rows: list[list[float]]) -> float:
    """Return the expected calibration error: |confidence - accuracy|, each bin weighted by its pairs.

    Args:
        rows: [mean confidence, accuracy, pairs] of each bin, as :func:`reliability` returns them.

    Returns:
        A number from 0 to 1; 0 without a pair.

    Example:
        >>> round(calibration_error([[0.9, 0.5, 10], [0.6, 0.6, 10]]), 3)
        0.2
    """
    pairs = sum(count for _, _, count in rows)
    return sum(count * abs(confidence - accuracy) for confidence, accuracy, count in rows) / pairs if pairs else 0.0


def calibrate(temperature: float | None, test: np.ndarray, labels: np.ndarray) -> Calibration:
    """Return the calibration on test pairs, before and, with a temperature, after tempering.

    Args:
        temperature: fitted on other pairs, or None.
        test: float (n, 4), probabilities of the test pairs.
        labels: int (n,), index into `LABELS`.

    Returns:
        The calibration.
    """
    raw = reliability(test, labels)
    after = None if temperature is None else calibration_error(reliability(tempered(test, temperature), labels))
    return Calibration(temperature, calibration_error(raw), after, raw)


def calibrate_members(
    learning: pd.DataFrame, test: pd.DataFrame | None, scores: Sequence[MemberScores]
) -> dict[str, Calibration]:
    """Return each member's calibration: the temperature from the pairs the aggregator learns from, the errors on test.

    Args:
        learning: example_id and label of the pairs the aggregator learns from.
        test: example_id and label of the test pairs; None to fit the temperatures alone.
        scores: of each member, out of sample on both.

    Returns:
        The calibration of each member, by its name.

    Raises:
        LeakError: if a score is missing or not out of sample.
        UsageError: if `learning` has no pair.
    """
    found = {}
    for one in scores:
        before = stack([one], learning["example_id"].to_numpy())[:, 0]
        temperature = fit_temperature(before, learning["label"].to_numpy())
        if test is None:
            found[one.member] = Calibration(temperature)
            continue
        held_out = stack([one], test["example_id"].to_numpy())[:, 0]
        found[one.member] = calibrate(temperature, held_out, test["label"].to_numpy())
    return found


def calibrate_ensemble(test: pd.DataFrame, scores: Sequence[MemberScores], aggregator: Aggregator) -> Calibration:
    """Return the calibration of an ensemble on the test pairs; it is not tempered.

    Args:
        test: example_id and label of the test pairs.
        scores: of each member of the aggregator, out of sample on the pairs; others are not read.
        aggregator: the ensemble's.

    Returns:
        The calibration, without a temperature.

    Raises:
        LeakError: if a score is missing or not out of sample.
    """
    by_name = {one.member: one for one in scores}
    columns = stack([by_name[name] for name in aggregator.members], test["example_id"].to_numpy())
    return calibrate(None, aggregator.predict_proba(columns), test["label"].to_numpy())
