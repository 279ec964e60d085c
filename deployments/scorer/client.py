"""A small client of the scorer, synchronous and asynchronous: typed answers, and retries while the scorer is busy.

Against a scorer that listens on its default address::

    with Client("http://127.0.0.1:8080") as scorer:
        answer = scorer.score("red lamp", "us", ["B07XJ8C8F5", {"title": "Velo red lamp"}])
        labels = [(one.id, one.label) for one in answer.products]
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from esci_tournament.registry.errors import StoreError, UsageError

_AGAIN = (429, 503)
_LONGEST_WAIT = 30.0

Product = str | Mapping[str, str | None]  # an id, or a mapping with id, title, brand, color, bullets, description


@dataclass(frozen=True)
class Labelled:
    """The answer for one product.

    Attributes:
        id: the id of the request, None when it had none.
        label: E, S, C or I; "" when there is an error.
        probabilities: class -> probability; empty when only labels were asked for, or there is an error.
        cached: whether the label came from the cache.
        error: code of the reason why there is no label (unknown_product, empty_product or not_scored), "" for none.
        contributions: candidate id -> class -> what the member added to the raw score; empty unless asked for.
    """

    id: str | None
    label: str
    probabilities: dict[str, float]
    cached: bool
    error: str = ""
    contributions: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """The answer to a page.

    Attributes:
        products: one answer for each product, in the order of the request.
        champion: the ensemble that answered, `name/version`.
        complete: whether every product was answered by the whole ensemble.
        members: candidate ids that scored products of this page; empty when all were cached.
        missing: candidate ids that did not answer in time.
        cache_hits: number of products whose label came from the cache.
        milliseconds: time in the scorer, ms.
        base: class -> expected raw score, to which contributions are added; empty unless asked for.
    """

    products: tuple[Labelled, ...]
    champion: str
    complete: bool
    members: tuple[str, ...]
    missing: tuple[str, ...]
    cache_hits: int
    milliseconds: float
    base: dict[str, float]

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Return the answer in a parsed document of `/v1/score`.

        Args:
            content: the document, as described by `ScoreAnswer` in `schemas`.

        Returns:
            The answer.
        """
        products = tuple(
            Labelled(
                one["id"],
                one["label"] or "",
                one.get("probabilities") or {},
                one["cached"],
                (one.get("error") or {}).get("code", ""),
                one.get("contributions") or {},
            )
            for one in content["products"]
        )
        champion = f"{content['champion']['name']}/{content['champion']['version']}"
        return cls(
            products, champion, content["complete"], tuple(content["members"]), tuple(content["missing"]),
            content["cache_hits"], content["milliseconds"], content.get("base") or {},
        )  # fmt: skip


class ScorerError(StoreError):
    """Raised when the scorer does not answer, or answers with an error.

    Args:
        message: What failed.
        status: HTTP status of the answer, 0 when there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Patience:
    """How often and how long a client waits when the scorer is busy (429, 503) or cannot be reached.

    Attributes:
        tries: number of calls in all.
        wait_s: seconds before the second call, doubled before each further one. A `Retry-After` of the scorer, of at
            most 30 s, is added to it.
    """

    tries: int = 4
    wait_s: float = 0.2

    def waits(self) -> Iterator[float]:
        """Yield the seconds before each further call, each between half and one and a half of its nominal value.

        They are random so that clients that were refused together do not come back together.

        Yields:
            `tries - 1` numbers of seconds.

        Example:
            >>> [0.5 <= wait / nominal <= 1.5 for wait, nominal in zip(Patience(tries=3).waits(), (0.2, 0.4))]
            [True, True]
        """
        for number in range(self.tries - 1):
            yield self.wait_s * 2**number * random.uniform(0.5, 1.5)


class Client:
    """A synchronous client; it keeps connections open, so use one for many calls.

    Use it in a `with` statement, or call :meth:`close` at the end.

    Args:
        address: URL of the scorer, such as "http://127.0.0.1:8080".
        key: API key, "" for none.
        timeout_s: time limit of one call, seconds.
        patience: when a call is tried again; default: four calls within about 1.4 s.
        **more: further arguments of :class:`httpx.Client`.
    """

    def __init__(
        self, address: str, key: str = "", timeout_s: float = 70.0, patience: Patience | None = None, **more: Any
    ) -> None:
        self._patience = patience or Patience()
        self._http = httpx.Client(base_url=address, headers=_headers(key), timeout=timeout_s, **more)

    def score(
        self,
        query: str,
        locale: str,
        products: Sequence[Product],
        want: str = "probabilities",
        deadline_ms: int | None = None,
    ) -> Page:
        """Label a page: the products that were found for a query.

        Args:
            query: the query, 1 to 1,000 characters.
            locale: us, es or jp.
            products: 1 to 1,000 products: ids of the catalogue, or mappings with some of the keys id, title, brand,
                color, bullets and description.
            want: "labels" (fastest), "probabilities" or "contributions" (slowest).
            deadline_ms: milliseconds that the scorer may take, 1 to 60,000; it then answers with the members that are
                done. Default: the scorer's setting `deadline_ms`.

        Returns:
            The answer, its products in the order of `products`.

        Raises:
            ScorerError: if the scorer does not answer, or answers with an error.
            UsageError: if the scorer refuses the request as wrong (413, 415 or 422).
        """
        return Page.of(self._call("POST", "/v1/score", _content(query, locale, products, want, deadline_ms)))

    def champion(self) -> dict[str, Any]:
        """Return the facts of the champion that serves.

        Returns:
            The document of `/v1/champion`: name, version, tournament, members, data, edges, since, device, replicas
            and products.

        Raises:
            ScorerError: if the scorer does not answer, or no champion serves.
        """
        return self._call("GET", "/v1/champion")

    def ready(self) -> bool:
        """Tell whether pages can be answered; False when the scorer cannot be reached."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _call(self, method: str, path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        waits = self._patience.waits()
        while True:
            answer, error = None, None
            try:
                answer = self._http.request(method, path, json=content)
            except httpx.HTTPError as failed:
                error = failed
            wait = _wait(answer, waits)
            if wait is None:
                return _understood(answer, error, path)
            time.sleep(wait)


class AsyncClient:
    """The asynchronous client; arguments, answers and errors are those of :class:`Client`.

    Use it in an `async with` statement, or await :meth:`close` at the end.
    """

    def __init__(
        self, address: str, key: str = "", timeout_s: float = 70.0, patience: Patience | None = None, **more: Any
    ) -> None:
        self._patience = patience or Patience()
        self._http = httpx.AsyncClient(base_url=address, headers=_headers(key), timeout=timeout_s, **more)

    async def score(
        self,
        query: str,
        locale: str,
        products: Sequence[Product],
        want: str = "probabilities",
        deadline_ms: int | None = None,
    ) -> Page:
        """Label a page; see :meth:`Client.score`."""
        return Page.of(await self._call("POST", "/v1/score", _content(query, locale, products, want, deadline_ms)))

    async def champion(self) -> dict[str, Any]:
        """Return the facts of the champion that serves; see :meth:`Client.champion`."""
        return await self._call("GET", "/v1/champion")

    async def ready(self) -> bool:
        """Tell whether pages can be answered; False when the scorer cannot be reached."""
        try:
            return (await self._http.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def _call(self, method: str, path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        waits = self._patience.waits()
        while True:
            answer, error = None, None
            try:
                answer = await self._http.request(method, path, json=content)
            except httpx.HTTPError as failed:
                error = failed
            wait = _wait(answer, waits)
            if wait is None:
                return _understood(answer, error, path)
            await asyncio.sleep(wait)


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _content(
    query: str, locale: str, products: Sequence[Product], want: str, deadline_ms: int | None
) -> dict[str, Any]:
    rows = [{"id": one} if isinstance(one, str) else dict(one) for one in products]
    content: dict[str, Any] = {"query": query, "locale": locale, "products": rows, "want": want}
    return content if deadline_ms is None else {**content, "deadline_ms": deadline_ms}


def _wait(answer: httpx.Response | None, waits: Iterator[float]) -> float | None:
    """Return the seconds until the next try; None when there is an answer, or no try is left."""
    if answer is not None and answer.status_code not in _AGAIN:
        return None
    own = next(waits, None)
    if own is None or answer is None:
        return own
    said = answer.headers.get("retry-after", "")
    return min(float(said), _LONGEST_WAIT) + own if said.isdecimal() else own


def _understood(answer: httpx.Response | None, error: Exception | None, path: str) -> dict[str, Any]:
    if answer is None:
        raise ScorerError(f"{path}: no answer ({type(error).__name__}: {error}); does the scorer run?") from error
    try:
        content = answer.json()
    except ValueError:
        content = {"message": answer.text[:200]}
    if answer.status_code == 200:
        return content
    message = f"{path}: {answer.status_code} {content.get('error', '')}: {content.get('message', '')}"
    if answer.status_code in (413, 415, 422):
        raise UsageError(message)
    raise ScorerError(message, answer.status_code)
