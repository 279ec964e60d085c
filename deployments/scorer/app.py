"""The scorer's HTTP application: routes, and errors as responses. Pages are answered by `service`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from esci_tournament.deployments.scorer import schemas
from esci_tournament.deployments.scorer.admission import Overloaded
from esci_tournament.deployments.scorer.gate import Closed, Gate, OwnHost, Stranger
from esci_tournament.deployments.scorer.memory import Trimmer
from esci_tournament.deployments.scorer.openapi import JSON, PAGE_POLICY, answers, describe, page_of, score_operation
from esci_tournament.deployments.scorer.reading import Refused, read_page
from esci_tournament.deployments.scorer.service import NobodyAnswers, NoChampion, NothingInTime, Scorer
from esci_tournament.deployments.scorer.swap import Following
from esci_tournament.deployments.scorer.try_page import PAGE, POLICY

_log = logging.getLogger("scorer")
_MIB = 2**20
_CLIENT_GONE = 499  # in the metrics only

Running = Callable[[], AbstractAsyncContextManager[None]]  # entered while the application runs


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def make_app(
    scorer: Scorer,
    gate: Gate,
    following: Following,
    running: Running = _nothing,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """Return the application with the routes `/v1/score`, `/v1/champion`, `/healthz`, `/readyz` and `/metrics`.

    Args:
        scorer: answers pages.
        gate: checks API keys and rates.
        following: state of the thread that follows the ledger, shown by `/readyz`.
        running: returns a context manager that is entered while the application runs, for what runs beside it.
        hosts: names under which it may be asked; None for any.

    Returns:
        The application.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with running():
            yield

    app = FastAPI(
        title="ESCI scorer",
        version=version("esci-tournament"),
        summary="Labels query-product pairs Exact, Substitute, Complement or Irrelevant with the champion ensemble.",
        lifespan=lifespan,
        redoc_url=None,
        docs_url=None,  # FastAPI's page loads scripts of another host
        openapi_url=None,
    )
    describe(app)
    trimmer = Trimmer()
    if hosts is not None:
        app.add_middleware(OwnHost, hosts=hosts, answer=lambda message: problem_of(Refused(403, "forbidden", message)))

    @app.post("/v1/score", **score_operation())
    async def score(request: Request) -> Response:
        """Label a page: one query and up to 1,000 products, each given by id or by text."""
        begun, size = time.perf_counter(), 0
        scorer.metrics.in_flight.inc()
        status = 500
        try:
            await gate.admit(request)
            body = await _body(request, int(scorer.settings.body_mib * _MIB), scorer.settings.body_timeout_s)
            gate.charge(request, len(body))
            size, page = len(body), read_page(body)
            del body
            content = await scorer.answer(page, begun)
            status = 200
            return Response(content, media_type=JSON)
        except ClientDisconnect:  # nobody reads the answer
            status = _CLIENT_GONE
            return Response(status_code=status)
        except Exception as error:
            response = problem_of(error)
            status = response.status_code
            if status == 500:
                _log.exception("a page could not be answered")
            scorer.metrics.refused.labels(_word_of(error)).inc()
            return response
        finally:
            trimmer.after(size)
            scorer.metrics.in_flight.dec()
            scorer.metrics.requests.labels(str(status)).inc()

    @app.get("/v1/champion", responses=answers(401, 429, 503), response_model=schemas.ChampionAnswer)
    async def champion(request: Request) -> Response:
        """Return the facts of the champion that serves."""
        await gate.admit(request)
        serving = scorer.active.champion
        if serving is None:
            raise NoChampion("no champion serves yet")
        facts = {
            "name": serving.card.name,
            "version": serving.card.version,
            "tournament": serving.card.tournament,
            "members": list(serving.names),
            "data": serving.card.data_version,
            "edges": serving.card.edges or None,
            "since": serving.since.isoformat(timespec="seconds"),
            "device": ", ".join(serving.fleet.devices),
            "replicas": len(serving.dispatcher.replicas),
            "products": len(serving.catalogue),
        }
        return Response(orjson.dumps(facts), media_type=JSON)

    @app.get("/healthz", response_model=schemas.Health)
    async def healthz() -> Response:
        """Answer as long as the process lives. Restart it when this fails."""
        return Response(b'{"alive":true}', media_type=JSON)

    @app.get("/readyz", response_model=schemas.Readiness, responses={503: {"model": schemas.Readiness}})
    async def readyz(request: Request) -> Response:
        """Return whether pages can be answered. Send no traffic while this is not 200.

        Whoever may score is told what is wrong, too.
        """
        serving = scorer.active.champion
        members = [] if serving is None else list(serving.members.values())
        ready = serving is not None and serving.usable and gate.works
        status = 200 if ready else 503
        if not await gate.admits(request):
            return Response(orjson.dumps({"ready": ready}), status_code=status, media_type=JSON)
        facts = {
            "ready": ready,
            "champion": serving.card.version if serving else None,
            "members": [
                {"name": one.name, "fenced": one.breaker.fenced, "reason": one.breaker.reason} for one in members
            ],
            "queued_pairs": scorer.engine.admission.pairs,
            "trouble": following.trouble,
            "refused": following.refused,
            "looked_s_ago": round(time.monotonic() - following.looked, 1) if following.looked else None,
        }
        return Response(orjson.dumps(facts), status_code=status, media_type=JSON)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **answers(401, 429)},
    )
    async def metrics(request: Request) -> Response:
        """Return the metrics in Prometheus' text format."""
        await gate.admit(request)
        return Response(scorer.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/openapi.json", include_in_schema=False)
    async def document(request: Request) -> Response:
        await gate.admit(request)
        return Response(orjson.dumps(app.openapi()), media_type=JSON)

    @app.get("/", include_in_schema=False)
    async def try_a_query() -> Response:
        return Response(PAGE, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        await gate.admit(request)
        return Response(
            page_of(app.openapi()), media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY}
        )

    async def on_error(_request: Request, error: Exception) -> Response:
        return problem_of(error)

    for kind in (
        Refused,
        Stranger,
        Closed,
        Overloaded,
        NoChampion,
        NothingInTime,
        NobodyAnswers,
        HTTPException,
        Exception,
    ):
        app.add_exception_handler(kind, on_error)
    return app


def problem_of(error: Exception) -> Response:
    """Return the response for an error: a JSON document with error (a code), message and fields.

    Args:
        error: what was raised. One that is not known becomes status 500, its message only in the log.

    Returns:
        The response, with `Retry-After` (seconds) for the statuses 429 and 503.

    Example:
        >>> response = problem_of(Overloaded("20000 pairs wait", retry_after_s=3))
        >>> response.status_code, response.headers["Retry-After"]
        (429, '3')
    """
    status, headers, fields = 500, {}, []
    if isinstance(error, Refused):
        status, fields = error.status, error.fields
    elif isinstance(error, Stranger):
        status, headers = 401, {"WWW-Authenticate": "Bearer"}
    elif isinstance(error, Closed):
        status, headers = 503, {"Retry-After": "5"}
    elif isinstance(error, Overloaded):
        status, headers = 429, {"Retry-After": str(error.retry_after_s)}
    elif isinstance(error, NoChampion):
        status, headers = 503, {"Retry-After": "2"}
    elif isinstance(error, NothingInTime):
        status = 504
    elif isinstance(error, NobodyAnswers):
        status = 502
    elif isinstance(error, HTTPException):
        status, headers = error.status_code, dict(error.headers or {})
    message = str(error) if status != 500 else "the scorer failed; its log says why"
    if isinstance(error, HTTPException):
        message = str(error.detail)
    content = {"error": _word_of(error), "message": message, "fields": fields}
    return Response(orjson.dumps(content), status_code=status, headers=headers, media_type=JSON)


def _word_of(error: Exception) -> str:
    if isinstance(error, Refused):
        return error.error
    if isinstance(error, HTTPException):
        return {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    words = {
        Stranger: "unauthorized",
        Closed: "keys_unreadable",
        NoChampion: "no_champion",
        NothingInTime: "deadline",
        NobodyAnswers: "members_failed",
    }
    return "too_many_requests" if isinstance(error, Overloaded) else words.get(type(error), "internal")


async def _body(request: Request, most: int, seconds: float) -> bytes:
    """Return the body of a request.

    Raises:
        Refused: if it is no JSON by its header, larger than `most` bytes, or does not come.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise Refused(415, "unsupported_media_type", f"the content type is {kind or 'absent'}; send {JSON}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "unsupported_media_type", "the body is compressed; send it as it is")
    too_large = Refused(413, "body_too_large", f"a body may have {most} bytes (setting body_mib)")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise Refused(408, "body_timeout", f"the body did not come within {seconds:g} s") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)
