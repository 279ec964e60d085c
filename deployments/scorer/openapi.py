"""The parts of the OpenAPI document that FastAPI cannot derive: the scorer parses bodies and writes answers itself."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from esci_tournament.deployments.scorer import schemas

JSON = "application/json"
_REF = "#/components/schemas/{model}"
_RETRY = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}}
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}, {}]
_WORDS = {
    401: "A good API key is needed.",
    408: "Header or body did not come in time.",
    413: "The body is too large, or there are more than 1,000 products.",
    415: "The body is no JSON.",
    422: "A field is wrong; `fields` names it.",
    429: "Too much waits, or this key asks too often.",
    502: "Every member failed on this page.",
    503: "No champion serves yet, the API keys cannot be read, or other requests take all the room there is.",
    504: "No member answered before the deadline.",
}


PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_STYLE = "body{font:16px sans-serif;max-width:60em;margin:2em auto}pre{background:#eee;padding:1em;overflow:auto}"


def page_of(document: dict[str, Any]) -> str:
    """Return an OpenAPI document as a page of HTML, without scripts.

    Args:
        document: as FastAPI makes it.

    Example:
        >>> facts = {"info": {"title": "A <b>", "version": "1"}, "paths": {}, "components": {"schemas": {}}}
        >>> "<h1>A &lt;b&gt; 1</h1>" in page_of(facts)
        True
    """
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    parts = [f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"]
    parts.append('<p>The whole description, for tools: <a href="/openapi.json">openapi.json</a></p>')
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2>{escape(method.upper())} {escape(path)}</h2>")
            parts.append(f"<p>{escape(operation.get('description', ''))}</p>")
            content = operation.get("requestBody", {}).get("content", {}).get(JSON, {})
            for example in content.get("examples", {}).values():
                parts.append(f"<p>{escape(example['summary'])}</p><pre>{escape(_indented(example['value']))}</pre>")
            rows = (
                f"<li>{escape(status)}: {escape(one['description'])}" for status, one in operation["responses"].items()
            )
            parts.append(f"<ul>{''.join(rows)}</ul>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"<h3>{escape(name)}</h3><pre>{escape(_indented(schema))}</pre>")
    return "".join(parts)


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of error responses, as FastAPI's `responses` takes it.

    Args:
        *statuses: HTTP statuses of 400 and above that the route may answer with.

    Returns:
        Status -> model, description and, for 429 and 503, headers.

    Example:
        >>> answers(429)[429]["description"], "headers" in answers(401)[401]
        ('Too much waits, or this key asks too often.', False)
    """
    return {
        status: {
            "model": schemas.Problem,
            "description": _WORDS[status],
            **({"headers": _RETRY} if status in (429, 503) else {}),
        }
        for status in statuses
    }


def score_operation() -> dict[str, Any]:
    """Return the documentation of `POST /v1/score`, as keyword arguments for FastAPI's `app.post`."""
    example = {"content": {JSON: {"example": schemas.ANSWER_EXAMPLE}}}
    return {
        "response_model": schemas.ScoreAnswer,
        "responses": {200: example, **answers(401, 408, 413, 415, 422, 429, 502, 503, 504)},
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {
                        "schema": {"$ref": _REF.format(model="ScoreRequest")},
                        "examples": schemas.REQUEST_EXAMPLES,
                    }
                },
            },
        },
    }


def describe(app: FastAPI) -> None:
    """Add the request's schema and the ways to send an API key to the application's OpenAPI document.

    Args:
        app: the application; its `openapi` method is replaced. The document is made when it is first asked for.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            request = schemas.ScoreRequest.model_json_schema(ref_template=_REF)
            components = made.setdefault("components", {})
            definitions = {**request.pop("$defs"), "ScoreRequest": request}
            components["schemas"] = {**components.get("schemas", {}), **definitions}
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            for path in ("/v1/score", "/v1/champion", "/metrics"):
                for operation in made["paths"][path].values():
                    operation["security"] = _SECURITY
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
