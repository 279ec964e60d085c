"""The Prometheus metrics of a watcher: its sweeps, and what its ledger says of candidates, tournaments and reviews."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from esci_tournament.flows.looks import budget_left
from esci_tournament.flows.turn import device_lock
from esci_tournament.flows.watch import DRIFTED, INVALID, TAMPERED
from esci_tournament.registry.attestation import DIFFERS
from esci_tournament.registry.policies import in_force
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.reviews import waiting
from esci_tournament.registry.states import State, states
from esci_tournament.registry.workspace import Workspace

# Kinds of events in the ledger that are counted: how tournaments and candidates ended, and what somebody did by hand
COUNTED = ("finished", "failed", "candidate_failed", DRIFTED, INVALID, TAMPERED, DIFFERS)


@dataclass(frozen=True)
class QueueFacts:
    """What a ledger says, in numbers. Moments are in Unix time.

    Attributes:
        candidates: state -> how many candidates are in it; every state is there.
        queued_since: when the candidate that has waited longest was queued, None when none waits.
        reviews: how many verdicts wait for a reviewer.
        review_since: the moment of the oldest of them, None without one.
        events: kind -> how many events of it there are, of the kinds in :data:`COUNTED`.
        budget_left: share of the error budget that no look at test pairs has spent, 0 to 1.
    """

    candidates: Mapping[str, int] = field(default_factory=dict)
    queued_since: float | None = None
    reviews: int = 0
    review_since: float | None = None
    events: Mapping[str, int] = field(default_factory=dict)
    budget_left: float = 1.0


def facts_of(workspace: Workspace) -> QueueFacts:
    """Return what the ledger of a home says now.

    Args:
        workspace: ledger and settings.

    Raises:
        StoreError: if the ledger cannot be read.
    """
    ledger, ensemble = workspace.ledger, workspace.settings.ensemble_name
    found = {candidate: one.state for candidate, one in states(ledger, ensemble).items()}
    counted = Tally(found.values())
    queued = [one.at.timestamp() for one in Queue(ledger).arrivals() if found.get(one.candidate) == "queued"]
    opened = [case.verdict.at.timestamp() for case in waiting(ledger, ensemble)]
    kinds = Tally(event.kind for event in ledger.events())
    return QueueFacts(
        candidates={state: counted[state] for state in get_args(State)},
        queued_since=min(queued, default=None),
        reviews=len(opened),
        review_since=min(opened, default=None),
        events={kind: kinds[kind] for kind in COUNTED},
        budget_left=budget_left(ledger, _alpha(workspace)),
    )


class WatcherMetrics:
    """The metrics of one watcher; names begin with `watcher_` (its sweeps) or `tournament_` (what the ledger says).

    What the ledger says is as of the last sweep that could read it; ages grow between sweeps.

    Attributes:
        registry: the Prometheus registry that has them all.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._facts = QueueFacts()
        self._mark: object = None
        self.sweeps = self._counter("watcher_sweeps", "sweeps by outcome: ok or failed", "outcome")
        for outcome in ("ok", "failed"):
            self.sweeps.labels(outcome)
        self.errors = self._counter("watcher_errors", "errors of steps of sweeps, by class", "error")
        self.last_sweep = self._gauge("watcher_last_sweep_timestamp_seconds", "end of the last sweep, Unix time")
        self.last_success = self._gauge(
            "watcher_last_success_timestamp_seconds", "end of the last sweep without errors, Unix time"
        )
        self.last_full_look = self._gauge(
            "watcher_last_full_look_timestamp_seconds", "when every version in MLflow was last looked at, Unix time"
        )
        self.candidates = self._gauge("tournament_candidates", "candidates by state", "state")
        self.running = self._gauge("tournament_running", "tournaments that are held now, by device", "device")
        self.reviews = self._gauge("tournament_reviews_open", "verdicts that wait for a reviewer")
        self.budget = self._gauge(
            "tournament_error_budget_left_ratio", "share of the error budget that is left, 0 to 1"
        )
        self.budget.set(1.0)
        queued = self._gauge("tournament_queue_oldest_seconds", "how long a queued candidate has waited, 0 without one")
        queued.set_function(lambda: _age(self._facts.queued_since))
        review = self._gauge("tournament_review_oldest_seconds", "how long an open review has waited, 0 without one")
        review.set_function(lambda: _age(self._facts.review_since))
        self.registry.register(_EventCollector(self))

    @property
    def events(self) -> Mapping[str, int]:
        """Kind -> number of events in the ledger, as of the last sweep that could read it."""
        return self._facts.events

    def swept(self, errors: Iterable[BaseException], full_look: float | None) -> None:
        """Count a sweep that has just ended.

        Args:
            errors: what made steps of it fail.
            full_look: when every version in MLflow was last looked at, Unix time; None when none was yet.
        """
        kinds = [type(error).__name__ for error in errors]
        for kind in kinds:
            self.errors.labels(kind).inc()
        self.sweeps.labels("failed" if kinds else "ok").inc()
        self.last_sweep.set_to_current_time()
        if not kinds:
            self.last_success.set_to_current_time()
        if full_look is not None:
            self.last_full_look.set(full_look)

    def read(self, workspace: Workspace) -> None:
        """Read what the ledger says; only whether a tournament is held when no row was added since the last time.

        Args:
            workspace: ledger and settings.

        Raises:
            StoreError: if the ledger cannot be read.
        """
        settings = workspace.settings
        self.running.labels(settings.device).set(workspace.ledger.is_locked(device_lock(settings)))
        mark = Queue(workspace.ledger).mark()
        if mark == self._mark:
            return
        self._facts, self._mark = facts_of(workspace), mark
        for state, number in self._facts.candidates.items():
            self.candidates.labels(state).set(number)
        self.reviews.set(self._facts.reviews)
        self.budget.set(self._facts.budget_left)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format, UTF-8.

        Example:
            >>> metrics = WatcherMetrics()
            >>> metrics.swept([], None)
            >>> b'watcher_sweeps_total{outcome="ok"} 1.0' in metrics.text()
            True
        """
        return generate_latest(self.registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(name, help, labels, registry=self.registry)


class _EventCollector(Collector):
    """Events in the ledger, which are counted there: a watcher that is restarted goes on from the same number."""

    def __init__(self, metrics: WatcherMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the counter."""
        family = CounterMetricFamily("tournament_events", "events in the ledger, by kind", labels=["kind"])
        for kind, number in self._metrics.events.items():
            family.add_metric([kind], number)
        yield family


def _age(since: float | None) -> float:
    return 0.0 if since is None else max(0.0, time.time() - since)


def _alpha(workspace: Workspace) -> float:
    """Return the error probability that tournaments go by; unlike them, this records no policy."""
    settings = workspace.settings
    said = "alpha" in settings.model_fields_set
    return settings.alpha if said else in_force(workspace.ledger, settings).alpha
