"""`tournament up`: start Prefect, MLflow, the worker and the watcher with one command."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esci_tournament.deployments.cli.common import Output, command, failure, settings_of
from esci_tournament.deployments.cli.ending import ending

if TYPE_CHECKING:
    from esci_tournament.deployments.stack.state import State
    from esci_tournament.registry.errors import TournamentError
    from esci_tournament.registry.settings import Settings

END_S = 50.0  # each of two groups of services gets 20 s to end before it is killed

DESCRIPTION = """\
Start a Prefect server and an MLflow server with their UIs, the worker that holds tournaments, reviews and weekly
re-evaluations, and the watcher that enters the candidates that are registered. Waits until each is healthy, restarts
those that die, and ends them all on Ctrl-C or `tournament down`. A second `up` shows what runs.

Prefect asks for a password, which commands of the home know. The link that is printed logs a browser in once;
`tournament login` prints another.

examples:
  tournament up --data esci/                stay in the foreground
  tournament up --data esci/ --detach       return once all are healthy
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "up", work, "start servers, worker and watcher on this machine", DESCRIPTION)
    parser.add_argument("--data", metavar="DIR", help="what registered candidates compete on (default: setting data)")
    parser.add_argument("--detach", action="store_true", help="return once all are healthy")
    parser.add_argument("--no-link", action="store_true", help="print no login link: the output goes to a log")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine only)")
    for name in ("prefect", "mlflow", "watcher"):
        parser.add_argument(f"--{name}-port", type=int, metavar="PORT", help=f"port of {name}")


def work(options: argparse.Namespace, output: Output) -> None:
    """Start the stack, or show the one that runs already."""
    from esci_tournament.deployments.stack.state import stack_folder

    settings = settings_of(
        options,
        data=data_of(options.data),
        host=options.host,
        prefect_port=options.prefect_port,
        mlflow_port=options.mlflow_port,
        watcher_port=options.watcher_port,
    )
    stack_folder(settings.home)
    if state := wait_for_running(settings):
        output.say(f"the stack of {settings.home} runs already")
        untold = untold_of(settings, state)
        show(settings, state, output, with_link=not options.no_link, untold=untold)
        if untold is not None:
            raise untold
        return
    check_policy(settings)
    check_settings(settings)
    if options.detach:
        state = detach(settings)
        untold = untold_of(settings, state)
        show(settings, state, output, with_link=not options.no_link, untold=untold)
        output.say(f"end it with: tournament down --home {settings.home}")
        if untold is not None:
            raise untold
    else:
        stay(settings, output, with_link=not options.no_link)


def check_policy(settings: Settings) -> None:
    """Bring settings under the ledger's policy before anything starts, where reviews go through Prefect from now on.

    A ledger that cannot be reached yet is left to the services, which wait for it.

    Args:
        settings: Those of the stack.

    Raises:
        PolicyError: If a setting asks for less than the policy does.
    """
    from esci_tournament.registry.errors import BusyError, StoreError
    from esci_tournament.registry.policies import govern
    from esci_tournament.registry.workspace import Workspace

    with suppress(StoreError, BusyError), Workspace(settings).ledger as ledger:
        govern(ledger, settings, has_api=True)


def check_settings(settings: Settings) -> None:
    """Check the setting `notify_block` before anything is started.

    Raises:
        UsageError: if it is not type/name.
    """
    from esci_tournament.deployments.notify_block import parts_of

    if settings.notify_block:
        parts_of(settings.notify_block)


def untold_of(settings: Settings, state: State) -> TournamentError | None:
    """Return why nobody is told what happens, though the setting `notify_block` asks for it; None when all is well.

    A block is made in the server that `up` starts, so servers without it run on.

    Args:
        settings: `home` and `notify_block` are used.
        state: what runs.
    """
    from esci_tournament.deployments.notify_block import check_block
    from esci_tournament.deployments.stack.access import auth_string
    from esci_tournament.registry.errors import TournamentError

    try:
        check_block(settings.notify_block or "", state.api, auth_string(settings.home))
    except TournamentError as error:
        return error
    return None


def data_of(said: str | None) -> str | None:
    """Return the value of `--data` in a form that does not depend on the current folder.

    Args:
        said: a folder, a URL, "sql", or None.

    Returns:
        The folder's absolute path; anything else as it is.

    Raises:
        DataError: if a folder is named that does not exist.

    Example:
        >>> data_of("sql"), data_of("https://data.example.com/esci.tar.gz")
        ('sql', 'https://data.example.com/esci.tar.gz')
    """
    from esci_tournament.registry.errors import DataError

    if said is None or said == "sql" or "://" in said:
        return said
    folder = Path(said).expanduser().resolve()
    if not folder.is_dir():
        raise DataError(
            f"--data: there is no folder {folder}", advice="make one with: tournament data download --to DIR"
        )
    return str(folder)


def wait_for_running(settings: Settings) -> State | None:
    """Wait until the stack of the home is healthy, for at most `startup_timeout_s` seconds.

    Args:
        settings: `home` and `startup_timeout_s` are used.

    Returns:
        What runs, healthy or not when the time is up; None at once when nothing runs.
    """
    from esci_tournament.deployments.stack.state import running

    end = time.monotonic() + settings.startup_timeout_s
    while (state := running(settings.home)) and not state.healthy and time.monotonic() < end:
        time.sleep(0.2)
    return state


def stay(settings: Settings, output: Output, with_link: bool) -> None:
    """Run the stack in this process until Ctrl-C or a signal; print a login link if one is wanted."""
    from esci_tournament.deployments.stack.supervise import Supervisor

    supervisor = Supervisor(settings, say=output.say)
    ending.grace_s = END_S
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: supervisor.stop())
    output.say("starting; the first start of a home takes up to a minute")

    def when_healthy(state: State) -> None:
        untold = untold_of(settings, state)
        show(settings, state, output, with_link, untold)
        output.say("Ctrl-C ends them all")
        if untold is not None:
            output.error(f"the servers run, but {untold}")

    supervisor.run(when_healthy)
    output.say("all have ended")


def detach(settings: Settings) -> State:
    """Start the stack in a process of its own, and wait until it is healthy.

    Args:
        settings: those of the stack; they are handed on as environment variables.

    Returns:
        What runs.

    Raises:
        BusyError: if a port is taken.
        ServiceError: if the stack does not come up; the message has the reason and its log.
    """
    from esci_tournament.deployments.stack.services import environment_of, services_of
    from esci_tournament.deployments.stack.state import running
    from esci_tournament.deployments.stack.supervise import check_ports, end_leftovers
    from esci_tournament.registry import errors
    from esci_tournament.registry.processes import module_path, python_module

    end_leftovers(settings.home)
    check_ports(settings.host, services_of(settings))
    log = settings.home / "logs" / "stack.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            python_module("esci_tournament.deployments.cli", "up", "--no-link"),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=os.environ | environment_of(settings) | module_path(),
            start_new_session=True,
        )
    while process.poll() is None:
        state = running(settings.home)
        if state is not None and state.healthy:
            return state
        time.sleep(0.2)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "no reason")
    raise errors.ServiceError(f"the stack did not come up: {said}; its log is {log}")


def show(
    settings: Settings, state: State, output: Output, with_link: bool, untold: TournamentError | None = None
) -> None:
    """Show the addresses, the folder of the logs, and the data of a stack that runs.

    Args:
        settings: `home` and `host` are used.
        state: what runs.
        output: where the words or the document go.
        with_link: whether to make and show a link that logs a browser in once.
        untold: what keeps notifications from being sent; the document has it as its error.
    """
    from esci_tournament.deployments.stack.logins import LOGIN_S, login_link
    from esci_tournament.deployments.stack.supervise import warning_of

    named = {"prefect": "Prefect", "mlflow": "MLflow", "watcher": "watcher"}
    for name, words in named.items():
        if name in state.addresses:
            output.say(f"{words:<8} {state.addresses[name]}")
    link = login_link(settings.home, state.api) if with_link else None
    if link:
        output.say(f"log in   {link}")
        output.say(f"         once, within {LOGIN_S / 60:.0f} minutes; another link: tournament login")
    output.say(f"logs     {settings.home / 'logs'}")
    if state.data:
        output.say(f"data     {state.data}")
    else:
        output.say("no data: candidates wait until it is given, with --data or the setting data")
    if warning := warning_of(settings.host):
        output.say(warning)
    output.document(
        {
            "home": str(settings.home),
            "supervisor": state.supervisor.pid,
            "services": {name: process.pid for name, process in state.services.items()},
            "addresses": state.addresses,
            "login": link,
            "prefect_api_url": state.api,
            "tracking_uri": state.tracking_uri,
            "data": state.data,
            "healthy": state.healthy,
        }
        | (failure(str(untold), type(untold).__name__, untold.exit_code) if untold is not None else {})
    )
