"""`tournament down`: end the servers that `tournament up` started."""

from __future__ import annotations

import argparse
import os
import signal
import time
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, settings_of

WAIT_S = 60.0  # for the supervisor, which gives each group of services 20 s before it kills it


def add_parser(commands: Any) -> None:
    """Add the command."""
    command(commands, "down", work, "end what `tournament up` started", "End servers, worker and watcher of a home.")


def work(options: argparse.Namespace, output: Output) -> None:
    """End the stack of the home, and the services that a killed supervisor left running."""
    from esci_tournament.deployments.stack.state import read_state, running
    from esci_tournament.deployments.stack.supervise import end_leftovers

    settings = settings_of(options)
    state = running(settings.home)
    ended = sorted(state.services) if state else []
    if state:
        os.kill(state.supervisor.pid, signal.SIGTERM)
        end = time.monotonic() + WAIT_S
        while state.supervisor.is_alive() and time.monotonic() < end:
            time.sleep(0.05)
        if state.supervisor.is_alive():
            os.kill(state.supervisor.pid, signal.SIGKILL)
    stale = read_state(settings.home) is not None
    left = end_leftovers(settings.home)
    ended = sorted({*ended, *left})
    if ended:
        output.say(f"ended {', '.join(ended)}")
    elif stale:
        output.say(f"the stack of {settings.home} was killed; nothing of it runs any more")
    else:
        output.say(f"nothing runs for {settings.home}")
    output.document({"home": str(settings.home), "ended": ended})
