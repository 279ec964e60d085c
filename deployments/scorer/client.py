"""A small client of the scorer, synchronous and asynchronous: typed answers, and patience when the scorer asks for it.

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

Product = str | Mapping[str, str | None]


@dataclass(frozen=True)
class Labelled:
    """One product's answer.

    Attributes:
        id: as it was asked. label: E, S, C or I; "" when there is an error. error: why there is no label, in a word.
        probabilities: of each class; empty for `labels`. cached: whether it was known.
        contributions: member -> class -> what it added to the raw score; empty unless asked for.
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
        products: in the order of the question. champion: name/version. complete: whether all members were heard.
        members, missing: who scored, and who should have. cache_hits: products that were known.
        milliseconds: time in the scorer. base: expected raw scores, for contributions.
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
        """Return the answer in a JSON document."""
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
    """Raised when the scorer does not answer, or not with what was asked for; `status` is HTTP's, 0 for no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Patience:
    """How often and how long a client waits when the scorer is busy (429, 503) or cannot be reached.

    Attributes:
        tries: calls in all. wait_s: before the second; doubled each time, unless the scorer says how long.
    """

    tries: int = 4
    wait_s: float = 0.2

    def waits(self) -> Iterator[float]:
        """Yield the seconds before each further try, with some chance in them so that clients do not come together."""
        for number in range(self.tries - 1):
            yield self.wait_s * 2**number * random.uniform(0.5, 1.5)


class Client:
    """A synchronous client; it keeps connections open, so use one for many calls.

    Args:
        address: such as http://127.0.0.1:8080. key: API key. timeout_s: of one call. patience: when to try again.

    Raises:
        ScorerError: by every method, when there is no answer. UsageError: when the scorer calls the request wrong.
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
        """Label a page.

        Args:
            products: ids of the catalogue, or mappings with id, title, brand, color, bullets, description.
            want: labels, probabilities or contributions. deadline_ms: default: the scorer's.
        """
        return Page.of(self._call("POST", "/v1/score", _content(query, locale, products, want, deadline_ms)))

    def champion(self) -> dict[str, Any]:
        """Return who serves."""
        return self._call("GET", "/v1/champion")

    def ready(self) -> bool:
        """Tell whether pages can be answered."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
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
    """The asynchronous client; everything as in :class:`Client`."""

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
        """Return who serves."""
        return await self._call("GET", "/v1/champion")

    async def ready(self) -> bool:
        """Tell whether pages can be answered."""
        try:
            return (await self._http.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    async def close(self) -> None:
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
    """Return the seconds until the next try, None when there is none: it is answered, or patience is at its end."""
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
