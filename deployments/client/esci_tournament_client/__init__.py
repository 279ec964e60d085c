"""A client of the scorer that `tournament serve` starts: typed answers, typed errors, retries where they are safe.

    from esci_tournament_client import Client

    with Client("http://127.0.0.1:8080", api_key="esci_...") as scorer:
        page = scorer.score("red desk lamp", "us", ["B07XJ8C8F5", {"title": "Velo desk lamp, red"}])
        labels = page.labels

:class:`AsyncClient` has the same methods for asyncio. Everything that is not exported here is private.
"""

from __future__ import annotations

from esci_tournament_client._version import __version__
from esci_tournament_client.answers import (
    Champion,
    ChampionFacts,
    ItemError,
    Label,
    Labelled,
    Locale,
    MemberState,
    Page,
    Product,
    Readiness,
    Want,
)
from esci_tournament_client.client import AsyncClient, Client
from esci_tournament_client.errors import (
    AnswerError,
    AnswerTimeoutError,
    AuthError,
    BusyError,
    DeadlineError,
    FieldProblem,
    MembersError,
    NoAnswerError,
    RequestError,
    ScorerError,
    UnavailableError,
)
from esci_tournament_client.exchange import Retry

__all__ = [
    "AnswerError",
    "AnswerTimeoutError",
    "AsyncClient",
    "AuthError",
    "BusyError",
    "Champion",
    "ChampionFacts",
    "Client",
    "DeadlineError",
    "FieldProblem",
    "ItemError",
    "Label",
    "Labelled",
    "Locale",
    "MemberState",
    "MembersError",
    "NoAnswerError",
    "Page",
    "Product",
    "Readiness",
    "RequestError",
    "Retry",
    "ScorerError",
    "UnavailableError",
    "Want",
    "__version__",
]
