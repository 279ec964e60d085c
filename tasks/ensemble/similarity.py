"""Similarity of members: correlation of their errors, with near-copies named in words.

Members are compared after calibration: each at the temperature that gives the labels the highest likelihood. Two models
that differ in how sure they are, and in nothing else, are copies for an aggregator, which weighs log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from esci_tournament.tasks.ensemble.calibrate import fit_temperature, tempered

NEAR_COPY_CORRELATION = 0.9
NEAR_COPY_AGREEMENT = 0.9


@dataclass(frozen=True)
class Likeness:
    """The similarity of two members.

    Attributes:
        first: name of one.
        second: name of the other.
        correlation: Pearson correlation of their errors: of the calibrated probabilities of all four classes, less the
            members' mean answer to pairs of the same true class.
        agreement: share of pairs that both give the same label, 0 to 1.
        near_copy: whether both are at 0.9 or above.
        sentence: the same in words.
    """

    first: str
    second: str
    correlation: float
    agreement: float
    near_copy: bool
    sentence: str


def compare_members(columns: np.ndarray, labels: np.ndarray, members: Sequence[str]) -> tuple[Likeness, ...]:
    """Return the likeness of every two members, the most alike first.

    Args:
        columns: float32 (n, k, 4), member scores.
        labels: int8 (n,), index into `LABELS`.
        members: k names.

    Returns:
        k (k - 1) / 2 entries.
    """
    calibrated = [tempered(one, fit_temperature(one, labels)) for one in columns.transpose(1, 0, 2)]
    errors = np.stack(calibrated, axis=1).astype(np.float64)
    # All members are wrong about the same noisy labels: only errors beyond the mean answer to a class are compared
    for label in np.unique(labels):
        errors[labels == label] -= errors[labels == label].mean(axis=0)
    flat = errors.transpose(1, 0, 2).reshape(len(members), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1)
    correlations = (flat @ flat.T) / np.maximum(np.outer(norms, norms), 1e-300)
    given = columns.argmax(axis=2)
    pairs = []
    for a in range(len(members)):
        for b in range(a + 1, len(members)):
            correlation = float(correlations[a, b])
            agreement = float((given[:, a] == given[:, b]).mean())
            pairs.append(_describe(members[a], members[b], correlation, agreement))
    return tuple(sorted(pairs, key=lambda pair: (-pair.correlation, pair.first, pair.second)))


def _describe(first: str, second: str, correlation: float, agreement: float) -> Likeness:
    copy = correlation >= NEAR_COPY_CORRELATION and agreement >= NEAR_COPY_AGREEMENT
    facts = f"they give the same label to {agreement:.0%} of pairs and their errors correlate at {correlation:.2f}"
    if copy:
        sentence = (
            f"{first} and {second} are near-copies: {facts}. Each hides the other's worth (SHAP splits the credit "
            "between them), and keeping both buys little: compare what dropping one costs."
        )
    elif correlation >= 0.7:
        sentence = f"{first} and {second} err alike: {facts}."
    elif correlation >= 0.3:
        sentence = f"{first} and {second} share part of their errors: {facts}."
    else:
        sentence = f"{first} and {second} err differently, which is what an ensemble needs: {facts}."
    return Likeness(first, second, correlation, agreement, copy, sentence)
