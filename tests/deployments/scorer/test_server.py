"""A scorer is put together from settings, and listens where it may."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from esci_tournament.deployments.scorer.keys import FILE, MARK, Keys
from esci_tournament.deployments.scorer.server import build_scorer, limits_of, serve
from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.registry.settings import Settings


class Bound(Exception):
    """Raised by a test as soon as a scorer is bound, so that it never serves."""


def bound(settings: Settings, host: str, port: int = 0) -> str:
    """Return the address at which a scorer would listen."""

    def stop(address: str) -> None:
        raise Bound(address)

    with pytest.raises(Bound) as found:
        serve(settings, host, port, ready=stop)
    return str(found.value)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")  # so that what `serve` puts there is taken back
    return Settings(home=tmp_path / "home", replicas=0)


def test_what_is_put_together_opens_neither_ledger_nor_mlflow(settings: Settings) -> None:
    parts = build_scorer(settings)
    try:
        assert {path.name for path in settings.home.iterdir()} == {"cache"}
        assert parts.scorer.active.champion is None
        assert parts.scorer.labels.cache is not None
    finally:
        parts.scorer.labels.close()


def test_settings_of_rates_and_of_the_queue_reach_what_they_bound(settings: Settings) -> None:
    changed = settings.model_copy(update={"rate_per_s": 7.0, "rate_burst_s": 3.0, "queued_pairs": 123})
    parts = build_scorer(changed, open_to_all=False)
    parts.scorer.labels.close()
    assert (parts.gate.open, parts.gate.rate_per_s, parts.gate.burst_s) == (False, 7.0, 3.0)
    assert parts.scorer.engine.admission.most_pairs == 123


def test_a_device_that_is_not_there_is_wrong_usage_before_anything_is_made(settings: Settings) -> None:
    with pytest.raises(UsageError, match="cuda:99"):
        build_scorer(settings.model_copy(update={"device": "cuda:99"}))
    assert not settings.home.exists()


def test_a_port_is_chosen_and_told_where_none_was_wanted(settings: Settings) -> None:
    address = bound(settings, "127.0.0.1")
    assert address.startswith("http://127.0.0.1:")
    assert int(address.rpartition(":")[2]) > 0


def test_a_port_that_is_taken_is_named(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StoreError, match=rf"cannot listen on 127\.0\.0\.1:{port}.*choose another --port"):
            serve(settings, "127.0.0.1", port)


def test_for_everybody_it_does_not_listen_without_a_key(settings: Settings) -> None:
    with pytest.raises(UsageError, match="no API key was made"):
        serve(settings, "0.0.0.0", 0)
    assert not settings.home.exists()


def test_settings_of_connections_reach_what_they_bound(settings: Settings) -> None:
    changed = {
        "connections": 77,
        "connections_per_address": None,
        "trusted_proxies": ("10.0.0.0/8",),
        "bodies_mib": 2.0,
    }
    changed |= {"head_timeout_s": 3.0, "body_timeout_s": 4.0, "idle_timeout_s": 5.0}
    limits = limits_of(settings.model_copy(update=changed))
    assert (limits.connections, limits.per_address, limits.proxies) == (77, None, ("10.0.0.0/8",))
    assert (limits.head_s, limits.body_s, limits.idle_s, limits.bodies_bytes) == (3.0, 4.0, 5.0, 2 * 2**20)


def test_keys_of_an_earlier_version_are_needed_from_the_start(settings: Settings) -> None:
    """S5.3: nobody has asked yet when the file is removed."""
    keys = Keys(settings.home / FILE)
    keys.create("shop")
    keys.file.with_suffix(MARK).unlink()
    parts = build_scorer(settings)
    parts.scorer.labels.close()
    keys.file.unlink()
    assert parts.gate.keys.required
    assert Keys(settings.home / FILE).required
