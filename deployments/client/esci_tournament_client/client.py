"""The clients: they send requests over connections that they keep, and wait, as `exchange` says."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from esci_tournament_client._version import __version__
from esci_tournament_client.answers import ChampionFacts, Locale, Page, Product, Readiness, Want
from esci_tournament_client.errors import NoAnswerError
from esci_tournament_client.exchange import (
    Outcome,
    Reply,
    Retry,
    Send,
    Steps,
    Wait,
    champion_facts,
    readiness,
    scored,
)

# Less than the scorer's setting `idle_timeout_s`, 75 s: who closes first is not surprised by a closed connection
_KEPT_S = 60.0

T = TypeVar("T")


class Client:
    """A synchronous client; it keeps connections open, so make one and use it for all calls, from any thread.

    Use it in a `with` statement, or call :meth:`close` at the end.

    Args:
        url: address of the scorer, such as "http://127.0.0.1:8080"; it may have a path, where a proxy serves it there.
        api_key: API key, "" for none.
        timeout_s: seconds that connecting, sending and each wait for data may take; a page with a longer `deadline_ms`
            may take that, and two seconds more.
        retry: when a request is sent again.
        connections: connections that are open at once; further calls wait for one, `timeout_s` at most.
        headers: further headers of every request.
        verify: whether, and against which certificates, TLS certificates are checked.
        transport: what sends the requests, in place of the network.

    Raises:
        ValueError: if the URL or the API key cannot be one.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout_s: float = 10.0,
        retry: Retry | None = None,
        connections: int = 100,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.timeout_s, self.retry = _checked(url), timeout_s, retry or Retry()
        self._http = httpx.Client(
            base_url=self.url,
            headers=_headers(api_key, headers),
            timeout=timeout_s,
            limits=_limits(connections),
            verify=verify,
            transport=transport,
        )

    def score(
        self,
        query: str,
        locale: Locale,
        products: Sequence[str | Product | Mapping[str, str | None]],
        *,
        want: Want = "probabilities",
        deadline_ms: int | None = None,
    ) -> Page:
        """Label a page: the products that were found for a query.

        More products than a request may have (1,000, or 7 MiB of text; fewer where the scorer or a proxy refuses as
        many) are sent in several requests, one after the other. If the champion changes between them, those that the
        old one answered are sent again.

        Args:
            query: the query, 1 to 1,000 characters.
            locale: us, es or jp.
            products: at least one: ids of the catalogue, or mappings with some of the keys id, title, brand, color,
                bullets and description.
            want: "labels" (fastest), "probabilities" or "contributions" (slowest).
            deadline_ms: milliseconds that the scorer may take for each request, 1 to 60,000; it then answers with the
                members that are done. Default: the scorer's setting `deadline_ms`.

        Returns:
            The answer, its products in the order of `products`.

        Raises:
            RequestError: if the request is wrong; its `fields` say where.
            AuthError: if a good API key is needed.
            BusyError: if too much waits, or the key asks too often.
            UnavailableError: if no champion serves.
            DeadlineError: if no member answered in time.
            MembersError: if every member failed.
            NoAnswerError: if the scorer cannot be reached, or does not answer within `timeout_s`.
            AnswerError: if what came is no scorer's answer.
        """
        return self._run(scored(query, locale, products, want, deadline_ms, self.retry))

    def champion(self) -> ChampionFacts:
        """Return the facts of the champion that serves.

        Returns:
            Its name, version, tournament, members, data, and what it computes on.

        Raises:
            UnavailableError: if no champion serves.
            ScorerError: if there is no answer for another reason, as for :meth:`score`.
        """
        return self._run(champion_facts(self.retry))

    def health(self) -> Readiness:
        """Return whether pages can be answered and, for those who may score, what is wrong. It is asked for once.

        Returns:
            The state; a scorer that is not ready is no error.

        Raises:
            NoAnswerError: if the scorer cannot be reached, or does not answer within `timeout_s`.
            AnswerError: if what came is no scorer's answer.
        """
        return self._run(readiness())

    def ready(self) -> bool:
        """Tell whether pages can be answered; False when the scorer cannot be reached."""
        try:
            return self.health().ready
        except NoAnswerError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: T = end.value
                return answer
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                outcome = None
                continue
            try:
                outcome = _reply(self._http.request(**_request(step, self.timeout_s)))
            except httpx.RequestError as error:
                outcome = error


class AsyncClient:
    """The asynchronous client; arguments, answers and errors are those of :class:`Client`.

    Use it in an `async with` statement, or await :meth:`close` at the end; it belongs to one event loop.
    """

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        timeout_s: float = 10.0,
        retry: Retry | None = None,
        connections: int = 100,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url, self.timeout_s, self.retry = _checked(url), timeout_s, retry or Retry()
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=_headers(api_key, headers),
            timeout=timeout_s,
            limits=_limits(connections),
            verify=verify,
            transport=transport,
        )

    async def score(
        self,
        query: str,
        locale: Locale,
        products: Sequence[str | Product | Mapping[str, str | None]],
        *,
        want: Want = "probabilities",
        deadline_ms: int | None = None,
    ) -> Page:
        """Label a page; see :meth:`Client.score`."""
        return await self._run(scored(query, locale, products, want, deadline_ms, self.retry))

    async def champion(self) -> ChampionFacts:
        """Return the facts of the champion that serves; see :meth:`Client.champion`."""
        return await self._run(champion_facts(self.retry))

    async def health(self) -> Readiness:
        """Return whether pages can be answered; see :meth:`Client.health`."""
        return await self._run(readiness())

    async def ready(self) -> bool:
        """Tell whether pages can be answered; False when the scorer cannot be reached."""
        try:
            return (await self.health()).ready
        except NoAnswerError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: T = end.value
                return answer
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                outcome = None
                continue
            try:
                outcome = _reply(await self._http.request(**_request(step, self.timeout_s)))
            except httpx.RequestError as error:
                outcome = error


def _checked(url: str) -> str:
    """Return the URL as it may be shown and sent to.

    Raises:
        ValueError: if it cannot be a scorer's.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a scorer; give one such as http://127.0.0.1:8080")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the address may have no user, query or fragment; give the key as api_key")
    return url.rstrip("/")


def _headers(api_key: str, more: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of every request.

    Raises:
        ValueError: if the key cannot be one; it is not shown.
    """
    key = api_key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            "the API key has characters that no key has; is it the whole line that was shown, and no more?"
        )
    own = {"user-agent": f"esci-tournament-client/{__version__}", "accept": "application/json"}
    return {**own, **({"authorization": f"Bearer {key}"} if key else {}), **(more or {})}


def _limits(connections: int) -> httpx.Limits:
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEPT_S)


def _request(send: Send, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of httpx's `request`."""
    request: dict[str, Any] = {"method": send.method, "url": send.path}
    if send.content is not None:
        request |= {"content": send.content, "headers": {"content-type": "application/json"}}
    if send.least_timeout_s > timeout_s:
        request["timeout"] = httpx.Timeout(timeout_s, read=send.least_timeout_s)
    return request


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, response.headers, response.content)
