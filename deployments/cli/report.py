"""`tournament report`: show the outcome of a finished tournament."""

from __future__ import annotations

import argparse
import json
from typing import Any

from esci_tournament.deployments.cli.common import Output, command, workspace_of


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(commands, "report", work, "show the outcome of a finished tournament")
    parser.add_argument("tournament", nargs="?", help="its id (default: the last one that was finished)")
    parser.add_argument("--markdown", action="store_true", help="as Markdown, for a wiki or a pull request")


def work(options: argparse.Namespace, output: Output) -> None:
    """Show a tournament's table, its Markdown or its document.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        NotFoundError: if no tournament has this id, or none has been finished yet.
    """
    from esci_tournament.flows.report_files import stored_summary
    from esci_tournament.registry.errors import NotFoundError
    from esci_tournament.tasks.report.table import as_markdown, render_table

    workspace = workspace_of(options, shows=True)
    finished = [event.tournament for event in workspace.ledger.events(kind="finished")]
    wanted = options.tournament or (finished[-1] if finished else None)
    if wanted not in finished:
        raise NotFoundError(
            f"no finished tournament {wanted!r}; there are: {', '.join(map(str, finished))}"
            if wanted
            else "no tournament has been finished yet; hold one: tournament run --help"
        )
    folder = workspace.folder("tournaments", str(wanted))
    summary = stored_summary(workspace, str(wanted))
    if options.markdown:
        output.say(as_markdown(summary))
    else:
        render_table(summary, output.console())
        output.say(f"report: {folder / 'report.html'}")
    output.document(json.loads(summary.to_json()) | {"report": str(folder / "report.html")})
