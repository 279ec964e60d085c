"""Hold a tournament in this process, with nothing started by hand."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esci_tournament.registry.children import end_too
from esci_tournament.registry.settings import Settings, using
from esci_tournament.registry.specs import CandidateSpec

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.task_runners import TaskRunner

    from esci_tournament.flows.context import Renewed, TournamentOutcome
    from esci_tournament.flows.progress_reporting import Reporter


def run_tournament(
    settings: Settings, data: Path | str, specs: Sequence[CandidateSpec], progress: AbstractContextManager[Reporter]
) -> TournamentOutcome:
    """Hold one tournament as a Prefect flow in this process.

    Args:
        settings: The settings in force.
        data: Folder with the official ESCI files, or where they come from: a URL, or "sql".
        specs: The candidates that enter; an empty sequence stands for those that are registered and untried.
        progress: Context manager that is entered while the flow runs. The function that it yields is called with the
            name of a stage, the share done in [0, 1] and a word on what is being done.

    Returns:
        The summary, the path of the report, and whether nothing had changed since the same tournament was held.

    Raises:
        BusyError: if another tournament runs in the same home.
        TournamentError: for every other failure; its subclasses say which.
    """
    with _here(settings, progress, "a tournament") as runner:
        from esci_tournament.flows.tournament import entering, tournament

        with entering(specs):
            return tournament.with_options(task_runner=runner)(str(data))


def run_reevaluation(
    settings: Settings, data: str | None, progress: AbstractContextManager[Reporter], trial: bool = False
) -> Renewed:
    """Evaluate champion and bench again on the newest data, as a Prefect flow in this process.

    Args:
        settings: The settings in force; a database's address is read from the environment by the flow itself.
        data: Folder, URL or "sql"; None for the setting `data`.
        progress: As in :func:`run_tournament`.
        trial: Whether nothing that serves may change by it, as :func:`esci_tournament.flows.reevaluate.reevaluate`
            has it.

    Returns:
        The outcome of the tournament that was held on the data, and the facts that the ledger keeps of it.

    Raises:
        BusyError: if a tournament runs in the same home.
        TournamentError: for every other failure; its subclasses say which.
    """
    with _here(settings, progress, "a re-evaluation") as runner:
        from esci_tournament.flows.reevaluate import reevaluate

        return reevaluate.with_options(task_runner=runner)(data, trial)


def run_refresh(settings: Settings, data: str | None, progress: AbstractContextManager[Reporter]) -> str:
    """Load and validate newer data, and have the scorers of this home use it; no model is judged.

    Args:
        settings: The settings in force.
        data: Folder, URL or "sql"; None for the setting `data`.
        progress: As in :func:`run_tournament`.

    Returns:
        The version of the data, the SHA-256 of its content in hex.

    Raises:
        BusyError: if a tournament runs in the same home.
        TournamentError: for every other failure; its subclasses say which.
    """
    with _here(settings, progress, "a refresh") as runner:
        from esci_tournament.flows.refresh import refresh

        return refresh.with_options(task_runner=runner)(data)


@contextmanager
def _here(
    settings: Settings, progress: AbstractContextManager[Reporter], what: str
) -> Iterator[TaskRunner[PrefectFuture[Any]]]:
    """Prepare this process to run a flow, alone in its home, and yield the runner for the flow's tasks."""
    from esci_tournament.registry.locks import tournament_lock

    with tournament_lock(settings.home, what):
        quiet_prefect(settings)
        answers = start_embedded_server()
        from prefect.task_runners import ThreadPoolTaskRunner

        # What flows import takes as long as the server, which begins meanwhile
        from esci_tournament.flows import progress_reporting
        from esci_tournament.flows.competition import workers_of

        answers()
        # Settings are no parameter of a flow: those hold passwords, and come from whoever may start a run in Prefect.
        with using(settings), progress as report, progress_reporting.to(report):
            runner: TaskRunner[PrefectFuture[Any]]
            # Prefect types flows with a runner of any future, but runners are invariant in theirs, so none fits
            runner = ThreadPoolTaskRunner(max_workers=workers_of(settings))  # type: ignore[assignment]
            yield runner


def quiet_prefect(settings: Settings) -> None:
    """Set the environment variables that make Prefect embedded and silent; call it before Prefect is imported.

    Variables that are set already stay as they are, but for the heartbeats of flow runs. Logging is silent because an
    error that ends a flow is reported once, by the command that ran it, and not again by Prefect with its traceback.
    Without PREFECT_API_URL, and with no `tournament up` for this home, Prefect starts a temporary server of its own;
    its database stays in the home folder, and it asks for the home's password.

    Args:
        settings: The settings in force; only `home` is used.
    """
    from esci_tournament.deployments.heartbeats import heartbeat_environment
    from esci_tournament.deployments.stack.access import database_variables, name_server, protect_embedded
    from esci_tournament.deployments.stack.state import prefect_api_url

    if api := prefect_api_url(settings.home):
        name_server(settings.home, api)
    if not os.environ.get("PREFECT_API_URL"):
        protect_embedded(settings.home)
    defaults = {
        "PREFECT_HOME": str(settings.home / "prefect"),
        **database_variables(settings.home),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(STARTUP_TIMEOUT_S),
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ.update(heartbeat_environment())  # whatever was set: the server's automation goes by them
    if "prefect" in sys.modules:  # of a program that uses Prefect itself: its client must know the password as well
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()


STARTUP_TIMEOUT_S = 180  # a first start migrates a database; Prefect's own 20 s are too few on a busy machine


def start_embedded_server() -> Callable[[], None]:
    """Begin to start Prefect's temporary server, and end it with this process even when that is killed.

    Prefect ends the server at a normal exit only; each kill -9 would leave one behind. With PREFECT_API_URL set, or
    after an earlier start in this process, there is a server already, and nothing is started.

    Returns:
        What waits until the server answers, and raises what its start has raised.
    """
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL

    server = SubprocessASGIServer()
    if PREFECT_API_URL.value() or server.running:
        return lambda: None
    started: Future[None] = Future()

    def start() -> None:
        try:
            server.start(timeout=STARTUP_TIMEOUT_S)
        except BaseException as error:
            started.set_exception(error)
        else:
            started.set_result(None)

    # In threads, because the start takes seconds, and a kill may come before the server answers
    threading.Thread(target=_watch, args=(server,), daemon=True, name="watch-prefect").start()
    threading.Thread(target=copy_context().run, args=(start,), daemon=True, name="start-prefect").start()
    return started.result


def _watch(server: SubprocessASGIServer) -> None:
    while server.server_process is None:
        time.sleep(0.02)
    end_too(server.server_process.pid)
