"""From a request to its answer: products are found, labels looked up, and the rest scored, all by one champion."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from esci_tournament.deployments.scorer.catalogue import TEXTS, Text, own_version
from esci_tournament.deployments.scorer.champion import Combined, ServingChampion
from esci_tournament.deployments.scorer.compute.dispatcher import PendingRequests
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.deployments.scorer.engine import Engine, Scored
from esci_tournament.deployments.scorer.labels import Labels
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.deployments.scorer.schemas import ScoreRequest
from esci_tournament.deployments.scorer.warm import Frequent
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.settings import Settings


class NoChampion(Exception):
    """Raised while there is no champion to serve."""


class NothingInTime(Exception):
    """Raised when no member answered any product of a page before its deadline."""


class NobodyAnswers(Exception):
    """Raised when no product of a page has a label, because every member failed on it or is fenced off."""


class ActiveChampion:
    """Holds the champion that serves now, None before the first. Used by the event loop's thread alone."""

    def __init__(self) -> None:
        self.champion: ServingChampion | None = None

    def take(self, champion: ServingChampion) -> threading.Event | None:
        """Let a champion serve all requests that come from now on; the one before it closes after its last request.

        Args:
            champion: loaded and warm.

        Returns:
            An event that is set when the one before it has closed; None when there was none.
        """
        before, self.champion = self.champion, champion
        if before is None:
            return None
        before.retire()
        return before.closed


@dataclass(frozen=True)
class _Page:
    """A page's products as they were found; k of them can be scored.

    Attributes:
        rows: catalogue row of each product, -1 where there is none.
        texts: position in the request -> texts, of products that brought their own.
        places: positions in the request of the products that can be scored, k of them, ascending.
        ids: their product ids, "" for none.
        versions: their text versions, see `text_version` and `own_version`, k of them.
        errors: position in the request -> code and message, of the other products.
    """

    rows: list[int]
    texts: dict[int, Text]
    places: list[int]
    ids: list[str]
    versions: list[int]
    errors: dict[int, dict[str, str]]

    @property
    def known(self) -> list[str]:
        """The ids that the catalogue knows: what is asked for by text cannot be labelled ahead."""
        if not self.texts:
            return self.ids
        return [one for place, one in zip(self.places, self.ids, strict=True) if place not in self.texts]

    def texts_at(self, champion: ServingChampion, places: Sequence[int]) -> list[Text]:
        """Return the texts of the products at some positions."""
        known = [place for place in places if place not in self.texts]
        found = dict(zip(known, champion.catalogue.texts([self.rows[place] for place in known]), strict=True))
        return [self.texts[place] if place in self.texts else found[place] for place in places]


@dataclass
class Scorer:
    """Answers pages; its methods run in the event loop.

    Attributes:
        settings: `deadline_ms` and `body_mib` are used.
        metrics: where it counts.
        engine: asks the champion's members.
        labels: the label cache.
        arrivals: counts requests that are being read.
        frequent: counts which pairs are asked for.
        active: holds the champion.
    """

    settings: Settings
    metrics: ScorerMetrics
    engine: Engine
    labels: Labels
    arrivals: PendingRequests
    frequent: Frequent
    active: ActiveChampion = field(default_factory=ActiveChampion)

    async def answer(self, request: ScoreRequest, begun: float) -> bytes:
        """Answer a page.

        Args:
            request: the page, validated.
            begun: when it arrived, seconds of `time.perf_counter`; the deadline counts from there.

        Returns:
            The answer as UTF-8 JSON, described by `schemas.ScoreAnswer`.

        Raises:
            NoChampion: if no champion serves yet.
            NothingInTime: if no product has a label because the members were late.
            NobodyAnswers: if no product has a label because the members failed or are fenced off.
            Overloaded: if too many pairs wait already.
        """
        champion = self.active.champion
        if champion is None:
            raise NoChampion("no champion serves yet; hold a tournament, or wait until it is loaded")
        champion.acquire()
        try:
            return await self._answer(champion, request, begun)
        finally:
            champion.release()

    async def _answer(self, champion: ServingChampion, request: ScoreRequest, begun: float) -> bytes:
        page = _find(champion, request)
        total = len(page.places)
        look_up = request.want != "contributions" and total > 0
        keys = (
            self.labels.keys(champion.card.number, request.locale, request.query, page.ids, page.versions)
            if total
            else None
        )
        probabilities = np.zeros((total, len(LABELS)))
        chosen = np.zeros(total, dtype=np.int64)
        hit = np.zeros(total, dtype=bool)
        if look_up and keys is not None:
            hit, chosen, probabilities = await self.labels.get(keys, labels_only=request.want == "labels")
        missed = np.flatnonzero(~hit).tolist()
        scored: Scored | None = None
        if missed:
            scored = await self._score(champion, request, page, missed, keys, begun)
            if scored.combined is not None:
                probabilities[missed] = self.labels.rounded(scored.combined.probabilities)
                chosen[missed] = scored.combined.labels
        labelled = hit if scored is None or scored.combined is None else np.ones(total, dtype=bool)
        if total and not labelled.any():
            if scored is not None and scored.late:
                raise NothingInTime(f"no member of {champion.card.id} answered in time; raise deadline_ms")
            raise NobodyAnswers(f"every member of {champion.card.id} failed on this page; /readyz says which and why")
        products = _products(champion, request, page, scored, missed, hit, labelled, chosen, probabilities)
        self.frequent.seen(request.locale, request.query, page.known)
        self._count(request.locale, page, hit, labelled, scored)
        answer = {
            "champion": {"name": champion.card.name, "version": champion.card.version},
            "products": products,
            "members": list(scored.members) if scored else [],
            "missing": list(scored.missing) if scored else [],
            "complete": scored is None or not scored.missing,
            "cache_hits": int(hit.sum()),
        }
        if scored is not None and scored.combined is not None and scored.combined.base is not None:
            answer["base"] = dict(zip(LABELS, scored.combined.base.round(5).tolist(), strict=True))
        seconds = time.perf_counter() - begun
        self.metrics.seconds.labels("scored" if missed else "cached").observe(seconds)
        answer["milliseconds"] = round(seconds * 1000, 3)
        return orjson.dumps(answer)

    async def _score(
        self,
        champion: ServingChampion,
        request: ScoreRequest,
        page: _Page,
        missed: list[int],
        keys: Any,
        begun: float,
    ) -> Scored:
        until = time.monotonic() + self._deadline_s(request) - (time.perf_counter() - begun)
        pairs = Pairs(request.query, request.locale, page.texts_at(champion, [page.places[row] for row in missed]))
        await self._let_others_in()
        own = keys[missed]

        def keep(combined: Combined) -> None:
            self.labels.put(own, combined.probabilities, combined.labels)

        if request.want == "labels":
            scored = await self.engine.label(champion, pairs, until)
        else:
            wanted = request.want == "contributions"
            scored = await self.engine.score(champion, pairs, until, contributions=wanted, too_late=keep)
        if scored.combined is not None and not scored.missing:
            self.labels.put(own, scored.combined.probabilities, scored.combined.labels, scored.early)
        elif scored.missing:
            self.metrics.incomplete.inc()
        return scored

    def _deadline_s(self, request: ScoreRequest) -> float:
        return (request.deadline_ms or self.settings.deadline_ms) / 1000

    async def _let_others_in(self) -> None:
        """Let requests that have arrived be read before this one is scored, so that they share its batches."""
        self.arrivals.count += 1
        try:
            await asyncio.sleep(0)
        finally:
            self.arrivals.count -= 1

    def _count(self, locale: str, page: _Page, hit: np.ndarray, labelled: np.ndarray, scored: Scored | None) -> None:
        hits, total = int(hit.sum()), len(hit)
        fresh = "scored" if scored is None or not scored.missing else "partial"
        counts = {"cached": hits, fresh: int(labelled.sum()) - hits, "not_scored": total - int(labelled.sum())}
        for error in page.errors.values():
            counts[error["code"]] = counts.get(error["code"], 0) + 1
        for outcome, number in counts.items():
            if number:
                self.metrics.products.labels(locale, outcome).inc(number)


_EMPTY = {"code": "empty_product", "message": "it has neither an id nor text"}
_UNKNOWN = {"code": "unknown_product", "message": "the catalogue does not know this id in this locale; send its text"}
_NOT_SCORED = {"code": "not_scored", "message": "no member answered in time"}


def _find(champion: ServingChampion, request: ScoreRequest) -> _Page:
    products = request.products
    texts: dict[int, Text] = {}
    errors: dict[int, dict[str, str]] = {}
    asked: list[int] = []
    for place, product in enumerate(products):
        if product.title or product.brand or product.color or product.bullets or product.description:
            own = [getattr(product, name) or "" for name in TEXTS]
            if any(map(str.strip, own)):
                texts[place] = Text(product.id or "", *own)
                continue
        if product.id:
            asked.append(place)
        else:
            errors[place] = _EMPTY
    rows = [-1] * len(products)
    versions = [0] * len(products)
    if asked:
        found = champion.catalogue.find(request.locale, [products[place].id or "" for place in asked])
        known = found >= 0
        numbers = iter(champion.catalogue.versions(found[known]).tolist())
        for place, row in zip(asked, found.tolist(), strict=True):
            rows[place] = row
            if row >= 0:
                versions[place] = next(numbers)
            else:
                errors[place] = _UNKNOWN
    for place, text in texts.items():
        versions[place] = own_version(text)
    places = [place for place in range(len(products)) if place not in errors] if errors else list(range(len(products)))
    ids = [products[place].id or "" for place in places]
    return _Page(rows, texts, places, ids, [versions[place] for place in places], errors)


def _products(
    champion: ServingChampion,
    request: ScoreRequest,
    page: _Page,
    scored: Scored | None,
    missed: list[int],
    hit: np.ndarray,
    labelled: np.ndarray,
    chosen: np.ndarray,
    probabilities: np.ndarray,
) -> list[dict[str, Any]]:
    """Return one answer for each product of the request, in its order."""
    answers: list[dict[str, Any]] = [{}] * len(request.products)
    for place, error in page.errors.items():
        answers[place] = {"id": request.products[place].id, "label": None, "cached": False, "error": error}
    with_probabilities = request.want != "labels"
    rows = zip(
        page.places, hit.tolist(), labelled.tolist(), chosen.tolist(), probabilities.round(4).tolist(), strict=True
    )
    for place, cached, good, label, values in rows:
        answer: dict[str, Any] = {"id": request.products[place].id, "label": LABELS[label] if good else None}
        if not good:
            answer["error"] = _NOT_SCORED
        elif with_probabilities:
            answer["probabilities"] = dict(zip(LABELS, values, strict=True))
        answer["cached"] = cached
        answers[place] = answer
    if scored is not None and scored.combined is not None and scored.combined.contributions is not None:
        values = scored.combined.contributions.transpose(0, 2, 1).round(5).tolist()
        for row, members in zip(missed, values, strict=True):
            answers[page.places[row]]["contributions"] = {
                name: dict(zip(LABELS, added, strict=True))
                for name, added in zip(scored.combined.members, members, strict=True)
            }
    return answers
