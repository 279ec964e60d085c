"""Hold a tournament in this process, with nothing started by hand."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry.settings import Settings
from registry.specs import CandidateSpec

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

    from deployments.cli.common import Output
    from flows.held import Outcome


def hold(settings: Settings, data: Path, specs: Sequence[CandidateSpec], output: Output) -> Outcome:
    """Hold one tournament and return its outcome; progress goes to standard error.

    Raises:
        BusyError: if another tournament runs in the same home.
        TournamentError: whatever else ends a tournament.
    """
    from registry.locks import tournament_lock

    with tournament_lock(settings.home):
        quiet_prefect(settings)
        from prefect.task_runners import ThreadPoolTaskRunner

        from deployments.cli.progress import board
        from flows import reporting
        from flows.competition import workers_of
        from flows.tournament import tournament

        start_embedded_server()
        held_here = tournament.with_options(task_runner=ThreadPoolTaskRunner(max_workers=workers_of(settings)))
        with board(output) as shown, reporting.to(shown.report):
            return held_here(
                str(data),
                [spec.model_dump(mode="json") for spec in specs],
                settings.model_dump(mode="json"),
            )


def quiet_prefect(settings: Settings) -> None:
    """Make Prefect embedded and silent, unless the environment says otherwise; must come before its import.

    An error that ends a flow is said once, by the command that ran it, and not again by Prefect with its traceback.
    Without PREFECT_API_URL Prefect starts a temporary server of its own; its database stays in the home folder.
    """
    defaults = {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(STARTUP_TIMEOUT_S),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


STARTUP_TIMEOUT_S = 180  # a first start migrates a database; Prefect's own 20 s are too few on a busy machine

# $1 is this process, $2 the server: the loop ends within a second of us, whatever ended us.
_WATCH = 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; kill "$2" 2>/dev/null'


def start_embedded_server() -> None:
    """Start Prefect's temporary server, and see to it that it ends with this process, kill -9 included.

    Prefect ends it at a normal exit; a killed process would leave it behind, one more for each kill. With
    PREFECT_API_URL set there is a server already, and nothing is started.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    server = SubprocessASGIServer()
    # Beside the start, which takes seconds: a kill may come before the server answers.
    threading.Thread(target=_watch, args=(server,), daemon=True, name="watch-prefect").start()
    server.start(timeout=STARTUP_TIMEOUT_S)


def _watch(server: SubprocessASGIServer) -> None:
    while server.server_process is None:
        time.sleep(0.02)
    subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "watch", str(os.getpid()), str(server.server_process.pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
