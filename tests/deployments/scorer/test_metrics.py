"""What Prometheus sees of a scorer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from esci_tournament.deployments.scorer.cache import entries_of
from esci_tournament.deployments.scorer.file_cache import FileCache
from esci_tournament.deployments.scorer.metrics import ScorerMetrics


def samples(metrics: ScorerMetrics) -> dict[tuple[str, ...], float]:
    """Return name and label values -> value of all that Prometheus would read."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_every_name_begins_with_the_scorers() -> None:
    assert all(name.startswith("scorer_") for name, *_ in samples(ScorerMetrics()))


def test_two_scorers_of_one_process_count_for_themselves() -> None:
    one, other = ScorerMetrics(), ScorerMetrics()
    one.swaps.inc()
    assert samples(one)["scorer_swaps_total",] == 1
    assert samples(other)["scorer_swaps_total",] == 0


def test_a_batch_counts_its_pairs_its_requests_and_its_time() -> None:
    metrics = ScorerMetrics()
    metrics.batch("a/1", pairs=40, requests=3, seconds=0.5)
    metrics.batch("a/1", pairs=2, requests=1, seconds=0.25)
    seen = samples(metrics)
    assert seen["scorer_member_batch_pairs_sum", "a/1"] == 42
    assert seen["scorer_member_batch_requests_total", "a/1"] == 4
    assert seen["scorer_member_seconds_sum", "a/1"] == 0.75


def test_a_member_is_shown_as_fenced_from_the_failure_that_fences_until_it_recovers_or_goes() -> None:
    metrics, place = ScorerMetrics(), ("scorer_member_fenced", "a/1")
    metrics.member_failed("a/1", "error", fenced=False)
    assert place not in samples(metrics)
    metrics.member_failed("a/1", "error", fenced=True)
    assert samples(metrics)[place] == 1
    assert samples(metrics)["scorer_member_failures_total", "a/1", "error"] == 2
    metrics.show_fenced({"a/1": False})
    assert samples(metrics)[place] == 0
    metrics.member_gone("a/1")
    metrics.member_gone("a/1")
    assert place not in samples(metrics)


def test_members_that_were_saved_nothing_are_not_listed() -> None:
    metrics = ScorerMetrics()
    metrics.saved(["a/1"], 0)
    assert ("scorer_member_pairs_saved_total", "a/1") not in samples(metrics)
    metrics.saved(["a/1", "b/1"], 5)
    assert samples(metrics)["scorer_member_pairs_saved_total", "b/1"] == 5


def test_the_cache_is_asked_at_each_look_even_when_it_is_closed(tmp_path: Path) -> None:
    metrics, cache = ScorerMetrics(), FileCache(tmp_path, 4)
    metrics.show_cache(cache)
    assert samples(metrics)["scorer_cache_hits_total",] == 0
    keys = np.arange(32, dtype=np.uint8).reshape(2, 16)
    cache.put(keys, entries_of(np.eye(4)[:2], np.arange(2)))
    cache.get(keys)
    seen = samples(metrics)
    assert (seen["scorer_cache_hits_total",], seen["scorer_cache_entries",]) == (2, 2)
    cache.close()
    seen = samples(metrics)
    assert (seen["scorer_cache_hits_total",], seen["scorer_cache_available",]) == (2, 0)
    assert ("scorer_cache_entries",) not in seen
