"""`tournament login`: a link that logs a browser in to the Prefect server of `tournament up`."""

from __future__ import annotations

import argparse
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, settings_of

DESCRIPTION = """\
Print a link that logs one browser in to the Prefect server of `tournament up`: it works once, for ten minutes. The
browser stays logged in. With the address of a page of Prefect, such as a review's, the link leads there.

examples:
  tournament login
  tournament login http://127.0.0.1:4200/v2/runs/flow-run/2b1c...
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "login", work, "print a link that logs a browser in to Prefect", DESCRIPTION)
    parser.add_argument("page", nargs="?", default="", metavar="PAGE", help="where the link leads (default: the start)")


def work(options: argparse.Namespace, output: Output) -> None:
    """Make a one-time login and print its link."""
    import datetime as dt

    from esci_tournament.deployments.stack.logins import LOGIN_S, login_link
    from esci_tournament.deployments.stack.state import running
    from esci_tournament.registry.errors import NotFoundError

    settings = settings_of(options)
    state = running(settings.home)
    if state is None:
        raise NotFoundError(f"no Prefect server runs for {settings.home}; start one with: tournament up")
    link = login_link(settings.home, state.api, options.page)
    output.say(link)
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=LOGIN_S)
    output.document({"link": link, "until": until.isoformat(timespec="seconds")})
