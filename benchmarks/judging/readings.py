"""Test splits on which two models read the same evidence: their probabilities, labels, and how much they agree."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax

from esci_tournament.tasks.ensemble.case import Answers, JudgeInput
from esci_tournament.tasks.ensemble.counts import confusion, macro_f1
from esci_tournament.tasks.ensemble.spending import History

PAGE = 8
PRIOR = np.array([0.65, 0.22, 0.03, 0.10])
OFFSETS = np.array([0.0, 0.3, 1.2, 0.7])  # for the decision, about those that are best for macro F1 in these worlds
SIGNAL = 1.2
BY_PRODUCT = 0.6  # of the rest, where there are products: share that the pairs of a product have in common
BY_QUERY = 0.5  # share of a reading's variance that the pairs of a query have in common
_LARGE = 60_000  # queries from which the true gain of a cell is worked out


@dataclass(frozen=True)
class Gain:
    """How a challenger differs from its champion.

    Attributes:
        signal: what it sees more of the label.
        alike: share of the variance of its readings that it has in common with the champion's.
        offsets: of the best offsets, the share by which the champion decides: below 1, a gain in labels alone.
    """

    signal: float
    alike: float
    offsets: float = 1.0


class Page:
    """Test queries with a page of pairs each.

    A model's reading of a pair is the label's unit vector times its signal plus noise; its probabilities are those of
    Bayes' rule for that reading, so it is calibrated.

    Args:
        random: the generator of everything.
        queries: number of queries.
        products: number of products, whose pairs have a part of the noise in common too; 0 for pairs of one product
            each, of which the judge is told nothing.
    """

    def __init__(self, random: np.random.Generator, queries: int, products: int = 0) -> None:
        self.random, self.queries, self._products = random, queries, products
        self.query = np.repeat(np.arange(queries), PAGE)
        self.labels = random.choice(4, size=len(self.query), p=PRIOR).astype(np.int8)
        self.keys = np.sort(random.integers(0, 2**63, size=queries, dtype=np.uint64))
        self.product = random.integers(products, size=len(self.query)) if products else None
        self._truth = np.eye(4)[self.labels]

    def noise(self) -> np.ndarray:
        """Return noise of unit variance, of which pairs of a query have a part in common, float64 (n, 4)."""
        shared = self.random.normal(size=(self.queries, 4))[self.query]
        own = self.random.normal(size=(len(self.query), 4))
        if self.product is not None:
            alike = self.random.normal(size=(self._products, 4))[self.product]
            own = np.sqrt(BY_PRODUCT) * alike + np.sqrt(1 - BY_PRODUCT) * own
        return np.sqrt(BY_QUERY) * shared + np.sqrt(1 - BY_QUERY) * own

    def log_probabilities(self, noise: np.ndarray, signal: float = SIGNAL) -> np.ndarray:
        """Return what a model with this noise makes of the pairs, float64 (n, 4)."""
        return log_softmax(signal * (signal * self._truth + noise) + np.log(PRIOR), axis=1)

    def followed_by(self, other: Page, dropped: int) -> Page:
        """Return these queries without the first `dropped`, and those of another page behind them."""
        page = copy(self)
        page.queries = self.queries - dropped + other.queries
        page.query = np.repeat(np.arange(page.queries), PAGE)
        page.labels = np.concatenate([self.labels[dropped * PAGE :], other.labels])
        page.keys = np.concatenate([self.keys[dropped:], other.keys])
        page._truth = np.eye(4)[page.labels]
        return page

    def fall_of_loss(self, challenger: np.ndarray, champion: np.ndarray) -> float:
        """Return by how much the mean log loss of one side is below that of the other, in nats."""
        rows = np.arange(len(self.labels))
        return float((challenger[rows, self.labels] - champion[rows, self.labels]).mean())

    def both(self, gain: Gain) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-probabilities of a challenger and of its champion."""
        common, one, other = self.noise(), self.noise(), self.noise()
        noises = (np.sqrt(gain.alike) * common + np.sqrt(1 - gain.alike) * own for own in (one, other))
        return tuple(  # type: ignore[return-value]
            self.log_probabilities(noise, SIGNAL + more) for noise, more in zip(noises, (gain.signal, 0.0), strict=True)
        )

    def case(self, challenger: np.ndarray, champion: np.ndarray, before: History, offsets: float = 1.0) -> JudgeInput:
        """Return the judge's input; `offsets` are the champion's, see :class:`Gain`."""
        locales = np.full(len(self.query), "us")
        sides = (answers_of(challenger), answers_of(champion, offsets))
        return JudgeInput.from_answers(
            self.labels, self.keys[self.query], locales, *sides, products=self.product, before=before
        )


def answers_of(log_probabilities: np.ndarray, offsets: float = 1.0) -> Answers:
    """Return probabilities, and labels decided by a share of the best offsets."""
    decided = (log_probabilities + offsets * OFFSETS).argmax(axis=1)
    return Answers(np.exp(log_probabilities).astype(np.float32), decided)


def true_gain(gain: Gain) -> tuple[float, float]:
    """Return the true gain in macro F1 and the share of pairs that both sides answer differently."""
    said = []
    for one in (gain, Gain(0.0, gain.alike)):  # the luck of this draw is that of equal sides with the same noise
        page = Page(np.random.default_rng(7), _LARGE)
        ours, theirs = page.both(one)
        said += [answers_of(ours).labels, answers_of(theirs, one.offsets).labels]
    scores = [float(macro_f1(confusion(page.labels, labels))) for labels in said]
    return (scores[0] - scores[1]) - (scores[2] - scores[3]), float((said[0] != said[1]).mean())


@cache
def gain_of(points: float, differ: float) -> Gain:
    """Return the challenger whose true gain is `points` of macro F1 and who answers a share `differ` otherwise.

    Args:
        points: 0 to 1.
        differ: share of pairs, 0 to 1.
    """
    alike = brentq(lambda share: true_gain(Gain(0.0, share))[1] - differ, 0.01, 0.995, xtol=2e-3)
    signal = brentq(lambda more: true_gain(Gain(more, alike))[0] - points, 0.0, 0.8, xtol=5e-4)
    return Gain(signal, alike)


@cache
def gain_in_labels(points: float, alike: float = 0.9) -> Gain:
    """Return the challenger that gains `points` of macro F1 by better offsets, and whose probabilities are no better.

    Args:
        points: 0 to 1.
        alike: as in :class:`Gain`.
    """
    share = brentq(lambda offsets: true_gain(Gain(0.0, alike, offsets))[0] - points, 0.0, 1.0, xtol=5e-3)
    return Gain(0.0, alike, share)
