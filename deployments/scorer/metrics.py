"""The Prometheus metrics of one scorer, in a registry of their own, so that a process can have several scorers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from esci_tournament.deployments.scorer.cache import LabelCache

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_PAIRS = (1, 10, 20, 40, 80, 160, 320, 640, 1280)


class ScorerMetrics:
    """The scorer's metrics; every name begins with `scorer_`, and each one's help text says what it counts.

    Attributes:
        registry: the Prometheus registry that has them all.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "requests to /v1/score by HTTP status", "status")
        self.seconds = self._histogram("request_seconds", "seconds in the scorer; kind: cached or scored", "kind")
        self.products = self._counter("products", "products answered, by locale and outcome", "locale", "outcome")
        self.refused = self._counter("refused", "requests turned away, by reason", "reason")
        self.incomplete = self._counter("incomplete", "pages that not every member answered in time")
        self.queued_pairs = self._gauge("queued_pairs", "pairs that wait for members or are being scored")
        self.in_flight = self._gauge("requests_in_flight", "requests under way")
        self.member_seconds = self._histogram("member_seconds", "seconds of a member's batch", "member")
        self.member_pairs = self._histogram("member_batch_pairs", "pairs of a member's batch", "member", buckets=_PAIRS)
        self.member_requests = self._counter("member_batch_requests", "requests in a member's batches", "member")
        self.member_failures = self._counter("member_failures", "batches without scores", "member", "reason")
        self.member_fenced = self._gauge("member_fenced", "1 while a member is fenced off", "member")
        self.replicas = self._gauge("replicas", "replicas that compute", "name")
        self.replicas_lost = self._counter("replicas_lost", "replicas that died or were ended because they hung")
        self.pairs_saved = self._counter("member_pairs_saved", "pairs that early exit did not ask a member", "member")
        self.exit_checked = self._counter("early_exit_checked", "labels of early exits checked against the ensemble")
        self.exit_differed = self._counter("early_exit_differed", "checked labels that differ from the ensemble's")
        self.champion = self._gauge("champion_version", "version that serves", "name")
        self.swaps = self._counter("swaps", "champions taken over while serving")
        self.refreshes = self._counter("refreshes", "times that the champion took up newer data while serving")
        self.swap_seconds = self._histogram("swap_seconds", "seconds from noticing a champion to serving it")
        self.swaps_refused = self._counter("swaps_refused", "champions refused at their warm-up")
        self.looks_failed = self._counter(
            "looks_failed", "looks for a new champion that failed, by what failed", "what"
        )
        self.last_look = self._gauge("last_look_timestamp_seconds", "when the ledger was last read, Unix time")
        self.connections = self._gauge("connections", "open connections")
        self.connections_refused = self._counter("connections_refused", "connections cut short, by reason", "reason")
        self.cache_failures = self._counter("labels_lost", "look-ups and writes of labels that came to nothing")

    def batch(self, member: str, pairs: int, requests: int, seconds: float) -> None:
        """Count a batch that a member has scored.

        Args:
            member: candidate id.
            pairs: pairs in the batch.
            requests: requests that they came from.
            seconds: time that the replica took, seconds.
        """
        self.member_seconds.labels(member).observe(seconds)
        self.member_pairs.labels(member).observe(pairs)
        self.member_requests.labels(member).inc(requests)

    def member_failed(self, member: str, reason: str, fenced: bool) -> None:
        """Count a batch for which a member gave no scores.

        Args:
            member: candidate id.
            reason: "error" or "timeout".
            fenced: whether the member is fenced off from now on.
        """
        self.member_failures.labels(member, reason).inc()
        if fenced:
            self.member_fenced.labels(member).set(1)

    def saved(self, members: Iterable[str], pairs: int) -> None:
        """Count pairs that members were not asked about, because of an early exit.

        Args:
            members: candidate ids.
            pairs: number of pairs, for each of them.
        """
        for name in members if pairs else ():
            self.pairs_saved.labels(name).inc(pairs)

    def show_fenced(self, members: Mapping[str, bool]) -> None:
        """Set the gauge of each member, 1 while it is fenced off.

        Args:
            members: candidate id -> whether it is fenced off.
        """
        for name, fenced in members.items():
            self.member_fenced.labels(name).set(int(fenced))

    def member_gone(self, member: str) -> None:
        """Remove the gauge of a member that no longer serves."""
        with suppress(KeyError):
            self.member_fenced.remove(member)

    def connection_refused(self, reason: str) -> None:
        """Count a connection that was closed, or a request that was refused, because of a limit on connections.

        Args:
            reason: a word, see :class:`~esci_tournament.deployments.crowd.Crowd`.
        """
        self.connections_refused.labels(reason).inc()

    def show_cache(self, cache: LabelCache) -> None:
        """Add the figures of the label cache, which are read at each scrape."""
        self.registry.register(_CacheCollector(cache))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format, UTF-8.

        Example:
            >>> metrics = ScorerMetrics()
            >>> metrics.saved(["minilm/1"], 40)
            >>> b'scorer_member_pairs_saved_total{member="minilm/1"} 40.0' in metrics.text()
            True
        """
        return generate_latest(self.registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"scorer_{name}", help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"scorer_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"scorer_{name}", help, labels, registry=self.registry, buckets=buckets)


class _CacheCollector(Collector):
    def __init__(self, cache: LabelCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """Yield the cache's figures."""
        stats = self._cache.stats()
        for name, help, total in (
            ("hits", "pairs found", stats.hits),
            ("misses", "pairs not found", stats.misses),
            ("evicted", "pairs that had to go", stats.evicted),
            ("rebuilt", "damaged files that were replaced", stats.rebuilt),
            ("errors", "look-ups and writes that could not be made", stats.failures),
        ):
            yield CounterMetricFamily(f"scorer_cache_{name}", help, value=total)
        yield GaugeMetricFamily("scorer_cache_available", "1 when the cache will be asked", int(stats.available))
        for name, help, value in (("entries", "pairs kept", stats.entries), ("bytes", "size on disk", stats.bytes)):
            if value is not None:
                yield GaugeMetricFamily(f"scorer_cache_{name}", help, value=value)
