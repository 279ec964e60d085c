"""The watcher, `python -m esci_tournament.deployments.watcher`: looks for candidates and listens to MLflow's webhooks.

The process outlives every server that it speaks to: what cannot be reached is tried again, a little later each time.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import Any

# An MLflow server that is gone would keep a look waiting for minutes; the next look is the better try.
for _name, _value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}.items():
    os.environ.setdefault(_name, _value)

import httpx  # noqa: E402
import uvicorn  # noqa: E402

from esci_tournament.deployments.stack.access import without_password  # noqa: E402
from esci_tournament.deployments.stack.services import reachable  # noqa: E402
from esci_tournament.deployments.webhook import PATH, Guard, make_app  # noqa: E402
from esci_tournament.flows.watch import Watch  # noqa: E402
from esci_tournament.registry.errors import TournamentError  # noqa: E402
from esci_tournament.registry.settings import Settings, read_settings  # noqa: E402
from esci_tournament.registry.webhooks import ensure_webhook, webhook_secret  # noqa: E402
from esci_tournament.registry.workspace import Workspace  # noqa: E402

LONGEST_WAIT_S = 60.0  # between two looks while something cannot be reached
PROBE_S = 2.0

_log = logging.getLogger("watcher")


class Watcher:
    """The loop: a sweep, then a wait that an event or the end cuts short.

    Args:
        settings: Settings in force.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopped = threading.Event()
        self._woken = threading.Event()
        self._named: set[str] = set()
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._health: dict[str, Any] = {"status": "starts", "sweeps": 0, "last_sweep": None, "errors": []}

    def wake(self, version: str) -> None:
        """Let the next sweep begin at once, and look at this version."""
        with self._lock:
            self._named.add(version)
        self._woken.set()

    def stop(self) -> None:
        """Let the loop end after the sweep under way."""
        self.stopped.set()
        self._woken.set()

    def health(self) -> dict[str, Any]:
        """Return how the loop is doing; errors are of the last sweep, the process itself is well."""
        return dict(self._health)

    def run(self) -> None:
        """Sweep until stopped."""
        failures = 0
        while not self.stopped.is_set():
            self._woken.clear()
            with self._lock:
                named, self._named = self._named, set()
            errors = self._sweep(named)
            failures = failures + 1 if errors else 0
            if errors:
                with self._lock:
                    self._named |= named
            self._health = {
                "status": "degraded" if errors else "ok",
                "sweeps": self._health["sweeps"] + 1,
                "last_sweep": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "errors": errors,
            }
            interval = self.settings.watch_interval_s
            longest = max(interval, LONGEST_WAIT_S)
            self._woken.wait(min(longest, interval * 2 ** min(failures, 10)) if failures > 1 else interval)

    def _sweep(self, named: set[str]) -> list[str]:
        try:
            if self._watch is None:
                self._watch = Watch(Workspace(self.settings))
            swept = self._watch.sweep(named)
        except Exception as error:  # the ledger cannot be opened
            self._watch = None
            _log.warning("%s: %s", type(error).__name__, error)
            return [f"{type(error).__name__}: {error}"]
        for words in swept.done:
            _log.info("%s", words)
        for trouble in swept.errors:
            _log.warning("%s: %s", type(trouble).__name__, trouble, exc_info=not isinstance(trouble, TournamentError))
        return [f"{type(trouble).__name__}: {trouble}" for trouble in swept.errors]


def subscribe(settings: Settings, secret: str, stopped: threading.Event) -> None:
    """Tell the MLflow server where to send its events, as soon as it answers; until then polling is enough."""
    given = settings.tracking_uri.startswith(("http://", "https://"))
    server = settings.tracking_uri if given else f"http://{reachable(settings.host)}:{settings.mlflow_port}"
    url = settings.webhook_url or f"http://{reachable(settings.host)}:{settings.watcher_port}{PATH}"
    while not stopped.is_set():
        try:
            if httpx.get(f"{server.rstrip('/')}/health", timeout=PROBE_S).status_code == 200:
                ensure_webhook(server, url, secret)
                _log.info("MLflow at %s sends its events to %s", without_password(server), url)
                return
        except httpx.HTTPError:
            pass
        except Exception as error:
            _log.warning("no webhooks, and polling goes on: %s", error)
            return
        stopped.wait(10 * PROBE_S)


def listen(settings: Settings, watcher: Watcher, secret: str) -> uvicorn.Server:
    """Return the receiver, not started yet."""
    app = make_app(Guard(secret, settings.webhook_age_s), watcher.wake, watcher.health)
    config = uvicorn.Config(
        app, host=settings.host, port=settings.watcher_port, log_level="warning", timeout_graceful_shutdown=3
    )
    return uvicorn.Server(config)


def main() -> int:
    """Watch until SIGTERM or SIGINT; return the exit code."""
    # Forced: Prefect gives the root logger a handler of its own, and a level that hides what the loop says.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True)
    for noisy in ("httpx", "mlflow", "alembic", "prefect"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = read_settings()
        secret = webhook_secret(settings)
    except TournamentError as error:
        _log.error("%s", error)
        return error.exit_code
    watcher = Watcher(settings)
    _log.info("looking at %s every %g s", without_password(settings.tracking_uri), settings.watch_interval_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watcher.stop())
    server = listen(settings, watcher, secret)
    receiver = threading.Thread(target=server.run, name="receiver", daemon=True)
    receiver.start()
    threading.Thread(target=subscribe, args=(settings, secret, watcher.stopped), name="subscribe", daemon=True).start()
    threading.Thread(target=_end_with, args=(receiver, watcher), name="guard", daemon=True).start()
    watcher.run()
    died = not receiver.is_alive()
    server.should_exit = True
    receiver.join(timeout=5)
    return 1 if died else 0


def _end_with(receiver: threading.Thread, watcher: Watcher) -> None:
    """Stop the loop when the receiver ends: its port is taken, and whoever supervises this must know."""
    receiver.join()
    if not watcher.stopped.is_set():
        _log.error("the receiver on port %s has ended", watcher.settings.watcher_port)
        watcher.stop()


if __name__ == "__main__":
    sys.exit(main())
