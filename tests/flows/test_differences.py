"""A difference between MLflow and the record is told once, again when it is another one, and when it is over."""

from __future__ import annotations

from esci_tournament.flows.differences import AGREES, DIFFERS, tell
from esci_tournament.registry.workspace import Workspace


def test_what_differs_is_told_once_and_that_it_is_over_too(workspace: Workspace) -> None:
    assert tell(workspace, {"a/1": "edited", "b/1": ""}) == ["edited"]
    assert tell(workspace, {"a/1": "edited", "b/1": "deleted"}) == ["deleted"]
    assert tell(workspace, {"a/1": "deleted"}) == ["deleted"]
    assert tell(workspace, {"a/1": "", "b/1": "deleted"}) == ["a/1 is in MLflow as it is on record again"]
    assert tell(workspace, {"a/1": ""}) == []
    told = [(one.subject, one.payload["text"]) for one in workspace.ledger.events(kind=DIFFERS)]
    assert told == [("a/1", "edited"), ("b/1", "deleted"), ("a/1", "deleted")]
    assert [one.subject for one in workspace.ledger.events(kind=AGREES)] == ["a/1"]
