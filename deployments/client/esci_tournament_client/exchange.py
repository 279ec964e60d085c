"""What is sent, what is waited for and what an answer means, without input or output: both clients drive this.

Each function here that is a generator yields steps, :class:`Send` or :class:`Wait`, and is sent what became of them: a
:class:`Reply` or the transport's error after the first, None after the second.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from esci_tournament_client.answers import ChampionFacts, Page, Product, Readiness
from esci_tournament_client.errors import (
    OF_STATUS,
    AnswerError,
    AnswerTimeoutError,
    FieldProblem,
    NoAnswerError,
    RequestError,
    ScorerError,
    UnavailableError,
)

MOST_PRODUCTS = 1000  # of a request, as the scorer's OpenAPI document says
MOST_BYTES = 7 * 2**20  # of a request's products; the scorer's setting `body_mib` is 8 MiB unless it was changed
_ROUNDS = 3  # that a page in several requests is asked for, until one champion has answered all of it
_REFUSED_FOR_NOW = (429, 503)
_TOO_LARGE = 413
_AFTER_DEADLINE_S = 2.0  # that an answer may take beyond its own deadline, before the connection is given up

# Made once: `json.dumps` with these settings makes one at every call, and there is a call for each product
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """When a request is sent again.

    That is done where it was refused for now (429, 503), where nothing was sent because no connection was made, and
    once where a connection broke before its answer: to score a page changes nothing. It is never done after a timeout,
    a wrong request or an answer.

    Attributes:
        times: how often a request is sent again, 0 for never.
        wait_s: seconds before the second try, doubled before each further one up to `most_wait_s`, each made up to a
            half longer or shorter at random, so that clients which were refused together do not come back together. It
            is added to the scorer's `Retry-After`.
        most_wait_s: seconds that all waits of one request may add up to. Where the scorer asks for more, its refusal is
            raised at once.
    """

    times: int = 3
    wait_s: float = 0.1
    most_wait_s: float = 5.0

    def wait(self, number: int, asked_s: float) -> float:
        """Return the seconds to wait before one more try.

        Args:
            number: of tries so far, from 1.
            asked_s: what the scorer asked for, 0 when it did not.

        Returns:
            Seconds.

        Example:
            >>> 3.1 <= Retry(wait_s=0.1).wait(2, asked_s=3.0) <= 3.3
            True
        """
        nominal = min(self.wait_s * 2.0 ** min(number - 1, 30), self.most_wait_s)
        return asked_s + nominal * random.uniform(0.5, 1.5)


@dataclass(frozen=True, slots=True)
class Send:
    """A request.

    Attributes:
        method: GET or POST.
        path: below the scorer's address.
        content: body, JSON; None for none.
        least_timeout_s: seconds that an answer must be waited for, whatever the client's own timeout.
    """

    method: str
    path: str
    content: bytes | None = None
    least_timeout_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause.

    Attributes:
        seconds: how long.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response.

    Attributes:
        status: HTTP status.
        headers: by their names in lower case.
        content: the body.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that `Retry-After` asks for, as a number or as a date; None when there is none that can be read."""
        said = self.headers.get("retry-after", "").strip()
        if said.isdecimal():
            return float(said)
        try:
            until = parsedate_to_datetime(said)
        except ValueError:
            return None
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max((until - datetime.now(UTC)).total_seconds(), 0.0)


Step = Send | Wait
Outcome = Reply | httpx.RequestError | None
Steps = Generator[Step, Outcome, T]


def replied(send: Send, retry: Retry) -> Steps[Reply]:
    """Send one request, again where that is safe and helps.

    Args:
        send: the request.
        retry: how often and how long.

    Yields:
        Requests and pauses.

    Returns:
        The last response, whatever its status.

    Raises:
        NoAnswerError: if there was none.
    """
    waited, broken = 0.0, 0
    for number in range(1, retry.times + 2):
        outcome = yield send
        asked = 0.0
        if isinstance(outcome, Reply):
            if outcome.status not in _REFUSED_FOR_NOW:
                return outcome
            asked = outcome.retry_after_s or 0.0
        else:
            assert outcome is not None
            broken += not _nothing_sent(outcome)
            if not _may_help(outcome) or broken > 1:
                break
        wait = retry.wait(number, asked)
        if number > retry.times or waited + wait > retry.most_wait_s:
            break
        waited += wait
        yield Wait(wait)
    if isinstance(outcome, Reply):
        return outcome
    assert outcome is not None
    kind = AnswerTimeoutError if isinstance(outcome, httpx.TimeoutException) else NoAnswerError
    raise kind(_no_answer(outcome)) from outcome


def scored(
    query: str,
    locale: str,
    products: Sequence[str | Product | Mapping[str, str | None]],
    want: str,
    deadline_ms: int | None,
    retry: Retry,
) -> Steps[Page]:
    """Score a page, in several requests where it is larger than a request may be.

    Args:
        query: the query.
        locale: us, es or jp.
        products: ids, or mappings with the keys of :class:`Product`.
        want: labels, probabilities or contributions.
        deadline_ms: milliseconds that the scorer may take for each request, None for its own setting.
        retry: how often and how long each request is sent again.

    Yields:
        Requests and pauses.

    Returns:
        The answer, all of it by one champion.

    Raises:
        RequestError: if the request cannot be sent or is wrong.
        UnavailableError: if no champion serves, or it changes again and again.
        ScorerError: of another kind, which says why there is no answer.
    """
    if isinstance(products, str | bytes):
        raise RequestError("products is a text; give a list of ids or of mappings", fields=[_PRODUCTS])
    asked = {"query": query, "locale": locale, "want": want}
    head = _encoded(asked if deadline_ms is None else {**asked, "deadline_ms": deadline_ms}, "")
    rows = [_encoded({"id": one} if isinstance(one, str) else one, f"products.{at}") for at, one in enumerate(products)]
    least_s = 0.0 if not isinstance(deadline_ms, int) else deadline_ms / 1000 + _AFTER_DEADLINE_S
    parts: list[tuple[int, int, Page]] = []
    most, start = MOST_PRODUCTS, 0
    while start < len(rows) or not parts:
        stop = _end(rows, start, most)
        send = Send("POST", "/v1/score", _body(head, rows[start:stop]), least_s)
        reply = yield from replied(send, retry)
        if reply.status == _TOO_LARGE and stop - start > 1:
            most = (stop - start) // 2
            continue
        parts.append((start, stop, _page(reply, start, stop)))
        start = stop
    for _ in range(_ROUNDS - 1):
        newest = parts[-1][2].champion
        for place, (start, stop, page) in enumerate(parts):
            if page.champion != newest:
                send = Send("POST", "/v1/score", _body(head, rows[start:stop]), least_s)
                reply = yield from replied(send, retry)
                parts[place] = (start, stop, _page(reply, start, stop))
    pages = [page for _, _, page in parts]
    if len({page.champion for page in pages}) > 1:
        raise UnavailableError("the champion changed again and again while this page was asked for; ask again")
    return _joined(pages)


def champion_facts(retry: Retry) -> Steps[ChampionFacts]:
    """Ask for the champion that serves.

    Args:
        retry: how often and how long.

    Yields:
        Requests and pauses.

    Returns:
        Its facts.

    Raises:
        ScorerError: of the kind that says why there are none.
    """
    reply = yield from replied(Send("GET", "/v1/champion"), retry)
    return _understood(reply, ChampionFacts.of)


def readiness() -> Steps[Readiness]:
    """Ask whether pages can be answered; a scorer that is not ready answers 503, which is not tried again.

    Yields:
        One request.

    Returns:
        The state.

    Raises:
        ScorerError: if the scorer does not tell it.
    """
    reply = yield from replied(Send("GET", "/readyz"), Retry(0))
    if reply.status == 503 and b'"ready"' in reply.content:  # that is its answer, not an error
        reply = replace(reply, status=200)
    return _understood(reply, Readiness.of)


def error_of(reply: Reply, start: int = 0) -> ScorerError:
    """Return the error that a response stands for.

    Args:
        reply: one with another status than 200.
        start: position in the caller's list of the request's first product.

    Returns:
        The error, with the scorer's own message where there is one.

    Example:
        >>> raw = b'{"error": "unauthorized", "message": "a good API key is needed", "fields": []}'
        >>> error_of(Reply(401, {}, raw))
        AuthError('401 unauthorized: a good API key is needed', 401, 'unauthorized', (), None)
    """
    kind = OF_STATUS.get(reply.status, AnswerError)
    try:
        content = json.loads(reply.content)
        code, message = str(content["error"]), str(content["message"])
        fields = [FieldProblem(_moved(one["field"], start), str(one["message"])) for one in content.get("fields", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        return _foreign(reply, kind)
    if fields and start:
        message = f"field {fields[0].field}: {fields[0].message}"
    return kind(f"{reply.status} {code}: {message}", reply.status, code, fields, reply.retry_after_s)


_PRODUCTS = FieldProblem("products", "not a list")


def _understood(reply: Reply, of: Callable[[Any], T], start: int = 0) -> T:
    """Return what a response says; raise its error, or that it is none of a scorer's answers."""
    if reply.status != 200:
        raise error_of(reply, start)
    try:
        return of(json.loads(reply.content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _foreign(reply) from error


def _page(reply: Reply, start: int, stop: int) -> Page:
    page = _understood(reply, Page.of, start)
    if len(page.products) != stop - start:
        raise AnswerError(f"{len(page.products)} answers came for {stop - start} products", reply.status)
    return page


def _joined(pages: Sequence[Page]) -> Page:
    if len(pages) == 1:
        return pages[0]
    return replace(
        pages[0],
        products=tuple(one for page in pages for one in page.products),
        members=tuple(dict.fromkeys(name for page in pages for name in page.members)),
        missing=tuple(dict.fromkeys(name for page in pages for name in page.missing)),
        complete=all(page.complete for page in pages),
        cache_hits=sum(page.cache_hits for page in pages),
        milliseconds=sum(page.milliseconds for page in pages),
        base=pages[0].base if all(page.base == pages[0].base for page in pages) else None,
    )


def _encoded(value: Any, at: str) -> bytes:
    """Return a part of a request as JSON.

    Raises:
        RequestError: if JSON has no such thing, naming the field.
    """
    if not isinstance(value, Mapping):
        wrong = FieldProblem(at, f"it is of type {type(value).__name__}; give an id or a mapping")
        raise RequestError(f"field {wrong.field}: {wrong.message}", fields=[wrong])
    try:
        return _json(dict(value))
    except (TypeError, ValueError, RecursionError):
        for name, one in value.items():
            try:
                _json({name: one})
            except (TypeError, ValueError, RecursionError) as error:
                wrong = FieldProblem(f"{at}.{name}" if at else str(name), f"it cannot be sent as JSON: {error}")
                raise RequestError(f"field {wrong.field}: {wrong.message}", fields=[wrong]) from error
        raise


def _json(value: Any) -> bytes:
    return _encode(value).encode()


def _body(head: bytes, rows: Sequence[bytes]) -> bytes:
    return b'%b,"products":[%b]}' % (head[:-1], b",".join(rows))


def _end(rows: Sequence[bytes], start: int, most: int) -> int:
    """Return where the request that begins at a product ends, so that it has neither too many nor too large ones."""
    size, stop = 0, start
    while stop < min(start + most, len(rows)):
        size += len(rows[stop]) + 1
        if size > MOST_BYTES and stop > start:
            break
        stop += 1
    return stop


def _moved(field: str, start: int) -> str:
    """Return a field of a request as a field of the caller's whole page: products.3.title -> products.1003.title."""
    head, _, rest = str(field).partition(".")
    number, dot, name = rest.partition(".")
    return f"products.{int(number) + start}{dot}{name}" if head == "products" and number.isdecimal() else str(field)


def _nothing_sent(error: httpx.RequestError) -> bool:
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


def _may_help(error: httpx.RequestError) -> bool:
    """Tell whether another try may go better: no connection, or one that ended before its answer."""
    if isinstance(error, httpx.ConnectError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    return isinstance(error, httpx.ConnectTimeout | httpx.NetworkError | httpx.RemoteProtocolError)


def _no_answer(error: httpx.RequestError) -> str:
    try:
        address = str(error.request.url.copy_with(userinfo=b""))
    except RuntimeError:  # it knows no request
        address = "the scorer"
    advice = "does the scorer run?"
    if isinstance(error, httpx.ConnectTimeout):
        advice = "is it the right address, and does the scorer run?"
    elif isinstance(error, httpx.PoolTimeout):
        advice = "all connections are in use; raise connections"
    elif isinstance(error, httpx.TimeoutException):
        advice = "raise timeout_s, or give a deadline_ms"
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"no answer from {address} ({words}); {advice}"


def _foreign(reply: Reply, kind: type[ScorerError] = AnswerError) -> ScorerError:
    """Return the error for what no scorer says; a proxy may say it, or something else that listens there."""
    to = f", to {reply.headers['location']}" if 300 <= reply.status < 400 and "location" in reply.headers else ""
    words = reply.content[:200].decode("utf-8", "replace")
    message = f"{reply.status}{to}: this is not a scorer's answer: {words!r}; is the address right?"
    return kind(message, reply.status, retry_after_s=reply.retry_after_s)
