"""The watcher, `python -m esci_tournament.deployments.watcher`: looks for candidates and listens to MLflow's webhooks.

It polls MLflow every `watch_interval_s` seconds; a webhook only makes it poll sooner. A server that cannot be reached
does not end the process: it is tried again, with growing pauses.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import Any

# With MLflow's own retries a poll of a server that is gone takes minutes; the next poll tries again anyway.
for _name, _value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}.items():
    os.environ.setdefault(_name, _value)

import httpx  # noqa: E402
import uvicorn  # noqa: E402

from esci_tournament.deployments.connections import limited_protocol  # noqa: E402
from esci_tournament.deployments.crowd import BACKLOG  # noqa: E402
from esci_tournament.deployments.lasting_output import outlast_output  # noqa: E402
from esci_tournament.deployments.listening import PromptServer  # noqa: E402
from esci_tournament.deployments.stack.services import reachable  # noqa: E402
from esci_tournament.deployments.watcher_metrics import WatcherMetrics  # noqa: E402
from esci_tournament.deployments.webhook import LIMITS, PATH, Guard, make_app  # noqa: E402
from esci_tournament.flows.watch import Watch  # noqa: E402
from esci_tournament.registry.addresses import without_password  # noqa: E402
from esci_tournament.registry.errors import TournamentError  # noqa: E402
from esci_tournament.registry.secrecy import hide_process  # noqa: E402
from esci_tournament.registry.settings import Settings, read_settings  # noqa: E402
from esci_tournament.registry.webhooks import ensure_webhook, webhook_secret  # noqa: E402
from esci_tournament.registry.workspace import Workspace  # noqa: E402

LONGEST_WAIT_S = 60.0  # between two sweeps while something cannot be reached, unless they are rarer anyway,
LONGEST_WAIT = 4  # and so many intervals: what was restarted is back in seconds, and its work should not wait
END_S = 8.0  # from a signal to the end; less than the 10 s that a container gets
PROBE_S = 2.0  # timeout of a request for MLflow's health

_log = logging.getLogger("watcher")


class Watcher:
    """The loop: a sweep of :class:`Watch`, then a wait that :meth:`wake` and :meth:`stop` cut short.

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
        self.metrics = WatcherMetrics()
        self._health: dict[str, Any] = {"status": "starts", "sweeps": 0, "last_sweep": None, "errors": []}

    def wake(self, version: str) -> None:
        """Let the next sweep begin at once, and look at the version with this id (`name/version`) first."""
        with self._lock:
            self._named.add(version)
        self._woken.set()

    def stop(self) -> None:
        """Let the loop end after the sweep under way; may be called from a signal handler."""
        self.stopped.set()
        self._woken.set()

    def health(self) -> dict[str, Any]:
        """Return how the loop is doing.

        Returns:
            "status" ("starts", "ok" or "degraded"), "sweeps" (how many were made), "last_sweep" (UTC, ISO 8601, or
            None) and "errors" (texts, of the last sweep).
        """
        return dict(self._health)

    def run(self) -> None:
        """Sweep until :meth:`stop` is called; errors of a sweep are logged and make the pauses longer."""
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
            longest = max(interval, min(LONGEST_WAIT_S, LONGEST_WAIT * interval))
            self._woken.wait(min(longest, interval * 2 ** min(failures, 10)) if failures > 1 else interval)

    def _sweep(self, named: set[str]) -> list[str]:
        try:
            if self._watch is None:
                workspace = Workspace(self.settings)
                self._watch, self._workspace = Watch(workspace), workspace
            swept = self._watch.sweep(named)
        except Exception as error:  # the ledger cannot be opened
            self._watch = None
            _log.warning("%s: %s", type(error).__name__, error)
            self.metrics.swept([error], None)
            return [f"{type(error).__name__}: {error}"]
        try:
            self.metrics.read(self._workspace)
        except Exception as error:
            swept.errors.append(error)
        self.metrics.swept(swept.errors, self._watch.full_look_at)
        for words in swept.done:
            _log.info("%s", words)
        for trouble in swept.errors:
            expected = isinstance(trouble, TournamentError | httpx.HTTPError)
            _log.warning("%s: %s", type(trouble).__name__, trouble, exc_info=None if expected else trouble)
        return [f"{type(trouble).__name__}: {trouble}" for trouble in swept.errors]


def subscribe(settings: Settings, secret: str, stopped: threading.Event) -> None:
    """Make the MLflow server's webhook, as soon as the server answers; one that refuses is left without.

    Args:
        settings: `tracking_uri`, `webhook_url`, and host and ports of the stack.
        secret: What the server signs its events with.
        stopped: Ends the attempts when it is set.
    """
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
            _log.warning("polling goes on; events come if an administrator of MLflow has made a webhook: %s", error)
            return
        stopped.wait(10 * PROBE_S)


def listen(settings: Settings, watcher: Watcher, secret: str) -> uvicorn.Server:
    """Return the HTTP server that receives webhooks, not started yet.

    Args:
        settings: `host` and `watcher_port` are where it listens, `webhook_age_s` how old an event may be.
        watcher: What a genuine event wakes, whose health `/healthz` shows, and whose metrics `/metrics` does.
        secret: What the MLflow server signs its events with.

    Returns:
        The server; its `run` blocks until `should_exit` is set.
    """
    app = make_app(Guard(secret, settings.webhook_age_s), watcher.wake, watcher.health, watcher.metrics.text)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.watcher_port,
        http=limited_protocol(LIMITS),
        ws="none",
        backlog=BACKLOG,
        log_level="warning",
        timeout_graceful_shutdown=3,
    )
    return PromptServer(config)


def main() -> int:
    """Watch until SIGTERM, SIGINT or SIGHUP.

    Returns:
        The exit code: 0, 1 when the receiver of webhooks has ended by itself, or that of a wrong setting.
    """
    hide_process()
    outlast_output()
    # Forced: Prefect gives the root logger a handler of its own, and a level that hides our messages.
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
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: watcher.stop())
    threading.Thread(target=_end_in_time, args=(watcher,), name="end", daemon=True).start()
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


def _end_in_time(watcher: Watcher) -> None:
    """End the process when the sweep under way takes too long; what it has done is stored, the next one goes on."""
    watcher.stopped.wait()
    time.sleep(END_S)
    _log.warning("the sweep under way was broken off")
    os._exit(0)


def _end_with(receiver: threading.Thread, watcher: Watcher) -> None:
    """Stop the loop when the receiver ends, because its port is taken: the exit code shows it to the supervisor."""
    receiver.join()
    if not watcher.stopped.is_set():
        _log.error("the receiver on port %s has ended", watcher.settings.watcher_port)
        watcher.stop()


if __name__ == "__main__":
    sys.exit(main())
