"""What Prometheus sees of a watcher: numbers of its own sweeps, and of what stands in its ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from esci_tournament.deployments.watcher import Watcher
from esci_tournament.deployments.watcher_metrics import WatcherMetrics
from esci_tournament.flows.turn import device_lock
from esci_tournament.flows.watch import DRIFTED
from esci_tournament.registry.policies import current
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.workspace import Workspace


def samples(metrics: WatcherMetrics) -> dict[tuple[str, ...], float]:
    """Return name and label values -> value of all that Prometheus would read."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A home whose ledger has two candidates that wait, one that is refused, and a look that was lost."""
    made = Workspace(read_settings(home=tmp_path))
    queue = Queue(made.ledger)
    queue.arrive("first/1", "d", "queued")
    queue.arrive("second/1", "d", "queued")
    queue.arrive("third/1", "d", "refused", {"complaint": "no such checkpoint"})
    made.ledger.record_data_version("data")
    made.ledger.start_tournament("t-1", "data")
    made.ledger.record_look("split", "t-1", 0, {"level": 0.02, "seen": 0.0})
    made.ledger.record_verdict("t-1", "refuse")
    made.ledger.record_event("finished", "", "t-1")
    yield made
    made.ledger.close()


def test_the_ledger_is_told_in_numbers(workspace: Workspace) -> None:
    metrics = WatcherMetrics()
    metrics.read(workspace)
    seen = samples(metrics)
    assert seen["tournament_candidates", "queued"] == 2
    assert seen["tournament_candidates", "refused"] == 1
    assert seen["tournament_candidates", "member"] == 0
    assert seen["tournament_running", "auto"] == 0
    assert seen["tournament_reviews_open",] == 0
    assert seen["tournament_review_oldest_seconds",] == 0
    assert seen["tournament_error_budget_left_ratio",] == pytest.approx(0.5)  # 0.02 of 0.8 * 0.05
    assert seen["tournament_events_total", "finished"] == 1
    assert 0 < seen["tournament_queue_oldest_seconds",] < 60
    time.sleep(0.02)
    assert samples(metrics)["tournament_queue_oldest_seconds",] > seen["tournament_queue_oldest_seconds",]
    assert current(workspace.ledger) is None, "whoever looks on decides nothing"


def test_what_changes_is_seen_by_the_next_sweep(workspace: Workspace) -> None:
    metrics = WatcherMetrics()
    metrics.read(workspace)
    ledger = workspace.ledger
    ledger.record_event(DRIFTED, "esci-ensemble")
    Queue(ledger).dispatch("auto", 2)
    with ledger.keep(device_lock(workspace.settings), 0.0):
        metrics.read(workspace)
    seen = samples(metrics)
    assert seen["tournament_events_total", DRIFTED] == 1
    assert seen["tournament_running", "auto"] == 1


def test_an_open_review_is_counted_with_its_age(tmp_path: Path) -> None:
    workspace = Workspace(read_settings(home=tmp_path))
    ledger = workspace.ledger
    ledger.record_data_version("data")
    ledger.start_tournament("t-1", "data")
    ledger.record_ensemble("t-1", "esci-ensemble", 1)
    ledger.record_verdict("t-1", "promote")
    ledger.record_event("finished", "", "t-1")
    metrics = WatcherMetrics()
    metrics.read(workspace)
    seen = samples(metrics)
    assert seen["tournament_reviews_open",] == 1
    assert 0 < seen["tournament_review_oldest_seconds",] < 60
    ledger.close()


def test_sweeps_are_counted_by_how_they_ended(tmp_path: Path, empty_mlflow: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow)
    watcher = Watcher(read_settings(home=tmp_path))
    assert watcher._sweep(set()) == []
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    assert watcher._sweep(set())
    seen = samples(watcher.metrics)
    assert (seen["watcher_sweeps_total", "ok"], seen["watcher_sweeps_total", "failed"]) == (1, 1)
    assert seen["watcher_errors_total", "StoreError"] >= 1
    assert time.time() - seen["watcher_last_full_look_timestamp_seconds",] < 60
    assert seen["watcher_last_sweep_timestamp_seconds",] >= seen["watcher_last_success_timestamp_seconds",] > 0


def test_a_ledger_that_cannot_be_opened_is_a_failed_sweep(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    watcher = Watcher(read_settings(home=tmp_path, ledger_url=f"sqlite:///{tmp_path}/file/ledger.db"))
    assert watcher._sweep(set())
    seen = samples(watcher.metrics)
    assert (seen["watcher_sweeps_total", "ok"], seen["watcher_sweeps_total", "failed"]) == (0, 1)
