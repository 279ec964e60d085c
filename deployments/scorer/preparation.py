"""Preparation of a champion before it serves: the labels of the most frequent pairs are put into the cache."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from esci_tournament.deployments.scorer.champion import ServingChampion
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.deployments.scorer.labels import Labels
from esci_tournament.deployments.scorer.warm import Frequent, fill
from esci_tournament.registry.errors import StoreError, TournamentError
from esci_tournament.registry.files import disk_in_words
from esci_tournament.registry.settings import Settings

_log = logging.getLogger("scorer")
_FADE_SECONDS, _SAVE_SECONDS = 86_400.0, 60.0
_PAGE_SECONDS = 30.0

Await = Callable[[Coroutine[Any, Any, Any]], Any]  # runs a coroutine in the event loop, from another thread


class Preparation:
    """Counts which pairs are asked for most, and prepares each new champion for them.

    Args:
        settings: `warm_pairs` and `warm_s`.
        labels: the cache that labels are put into.
        folder: where the counts are kept over a restart; made when they are first written.

    Attributes:
        frequent: the counts.
    """

    def __init__(self, settings: Settings, labels: Labels, folder: Path) -> None:
        self._settings, self._labels, self._folder = settings, labels, folder
        self.frequent = Frequent.load(self._counts, max(settings.warm_pairs, 1))
        self._saved = self._faded = time.monotonic()

    @property
    def _counts(self) -> Path:
        return self._folder / "frequent.json"

    def ready(self, champion: ServingChampion, wait_for: Await, going_on: Callable[[], bool]) -> None:
        """Put the champion's labels of the most frequent pairs into the cache. Called outside the event loop.

        It ends after `warm_s` seconds, and does nothing without a cache or with `warm_pairs` 0. A page on which a
        member fails ends it too; that is logged, not raised.

        Args:
            champion: the champion; it has a replica.
            wait_for: called with a coroutine, which it runs in the event loop; returns the coroutine's result.
            going_on: called before each page; preparation ends when it returns False.
        """
        if self._labels.cache is None or not self._settings.warm_pairs:
            return
        until = time.monotonic() + self._settings.warm_s
        try:
            scored = fill(
                self._labels.cache,
                self.frequent.pages(self._settings.warm_pairs),
                champion.card.number,
                lambda locale, ids: _versions(champion, locale, ids),
                lambda locale, query, ids: _score(champion, wait_for, locale, query, ids),
                lambda: going_on() and time.monotonic() < until,
            )
        except TournamentError as error:  # a page on which a member fails is no reason to refuse a champion
            _log.warning("%s: labels are not put into the cache ahead: %s", champion.card.id, error)
            return
        _log.info("%s: %d frequent pairs are labelled ahead", champion.card.id, scored)

    def retrieved(self) -> dict[str, int]:
        """Return how often the most frequent products were asked for: product id -> count, over all queries."""
        counts: dict[str, int] = {}
        for (_, _, product), count in self.frequent.most(2 * self.frequent.capacity):
            counts[product] = counts.get(product, 0) + count
        return counts

    def remember(self, now: bool = False) -> None:
        """Write the counts to disk if the last time is more than a minute ago; a failure is logged.

        Counts are halved once a day, so that pairs that are no longer asked for lose their place.

        Args:
            now: whether to write in any case.
        """
        elapsed = time.monotonic()
        if not len(self.frequent) or not (now or elapsed - self._saved > _SAVE_SECONDS):
            return
        if elapsed - self._faded > _FADE_SECONDS:
            self.frequent.fade()
            self._faded = elapsed
        self._saved = elapsed
        try:
            with disk_in_words("counts of pairs", self._folder):
                self.frequent.save(self._counts)
        except (OSError, StoreError) as error:
            _log.warning("what is asked for most cannot be kept: %s", error)


def _versions(champion: ServingChampion, locale: str, ids: Sequence[str]) -> tuple[list[str], np.ndarray]:
    rows = champion.catalogue.find(locale, ids)
    known = [one for one, row in zip(ids, rows.tolist(), strict=True) if row >= 0]
    return known, champion.catalogue.versions(rows[rows >= 0])


def _score(
    champion: ServingChampion, wait_for: Await, locale: str, query: str, ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    texts = champion.catalogue.texts(champion.catalogue.find(locale, ids).tolist())
    scores = wait_for(champion.scores(Pairs(query, locale, texts), _PAGE_SECONDS))
    combined = champion.combine(scores)
    return combined.probabilities, combined.labels
