"""What all commands share: common options, and output that people and machines can both read."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from esci_tournament.registry.settings import Settings
    from esci_tournament.registry.workspace import Workspace


def add_common_options(parser: argparse.ArgumentParser, *, home: bool = True) -> None:
    """Add the options that every command has."""
    common = parser.add_argument_group("common options")
    if home:
        common.add_argument("--home", type=Path, metavar="DIR", help="folder of all state (default: .tournament)")
    common.add_argument("--json", action="store_true", help="one JSON document on standard output, all else on stderr")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")


def command(
    commands: Any, name: str, work: Any, help: str, description: str = "", *, home: bool = True
) -> argparse.ArgumentParser:
    """Add one command, with its common options and its work, and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description or help[0].upper() + help[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common_options(parser, home=home)
    parser.set_defaults(work=work)
    return parser


class Output:
    """Where a command writes: words for people, or one JSON document for machines.

    While a command runs, file descriptor 1 points to standard error, so that a library's print never stands
    between a machine and its document; the real standard output is kept for what the command itself says.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._spoken = False
        sys.stdout.flush()
        self._real = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def close(self) -> None:
        """Give standard output back."""
        sys.stdout.flush()
        self._real.flush()
        os.dup2(self._real.fileno(), 1)
        self._real.close()

    def document(self, content: Any) -> None:
        """Write the JSON document, once, if one is wanted."""
        if self.as_json and not self._spoken:
            self._spoken = True
            self._real.write(json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n")
            self._real.flush()

    def say(self, text: str = "") -> None:
        """Write a line for people: on standard output, or on standard error when that belongs to the document."""
        stream = sys.stderr if self.as_json else self._real
        stream.write(text + "\n")
        stream.flush()

    def error(self, text: str) -> None:
        """Write what went wrong, on standard error."""
        sys.stderr.write(f"error: {text}\n")
        sys.stderr.flush()

    def console(self) -> Console:
        """Return a rich console on the stream that people read."""
        from rich.console import Console

        stream = sys.stderr if self.as_json else self._real
        width = None if stream.isatty() else int(os.environ.get("COLUMNS", 132))
        return Console(file=stream, width=width, highlight=False)

    def progress(self) -> AbstractContextManager[Callable[[str, float, str], None]]:
        """Return what shows progress on standard error: the function that it yields takes name, share and a word."""
        from esci_tournament.deployments.cli.progress import bars

        return bars(self.error_console())

    def error_console(self) -> Console:
        """Return a rich console on standard error, for progress."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)


def settings_of(options: argparse.Namespace, **overrides: object) -> Settings:
    """Return the settings in force for a command, its options first."""
    from esci_tournament.registry.settings import read_settings

    return read_settings(home=options.home, **overrides)


def workspace_of(options: argparse.Namespace, **overrides: object) -> Workspace:
    """Return the workspace a command works in."""
    from esci_tournament.registry.workspace import Workspace

    return Workspace(settings_of(options, **overrides))


def served_workspace_of(options: argparse.Namespace) -> Workspace:
    """Return the workspace, with the addresses of what `tournament up` runs for it; call it before Prefect's import."""
    from esci_tournament.deployments.stack.access import name_server
    from esci_tournament.deployments.stack.state import running

    workspace = workspace_of(options)
    state = running(workspace.settings.home)
    if state is None:
        return workspace
    name_server(workspace.settings.home, state.api)
    return workspace_of(options, mlflow_ui=workspace.settings.mlflow_ui or state.addresses.get("mlflow"))


def add_tournament_options(parser: argparse.ArgumentParser) -> None:
    """Add the settings that are worth an option of their own; all others are in tournament.toml."""
    group = parser.add_argument_group("tournament settings")
    group.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: auto)")
    group.add_argument("--seed", type=int, help="seed of every random choice (default: 0)")
    group.add_argument("--out-of-sample", choices=("blend", "kfold"), help="source of the aggregator's scores")
    group.add_argument("--budget-memory-mib", type=float, metavar="MIB", help="memory of all members together")
    group.add_argument("--budget-latency-ms", type=float, metavar="MS", help="time a page of 40, all members together")
    group.add_argument(
        "--selection", metavar="RULE", help="shap, top_k, exhaustive, greedy or a plug-in's (default: shap)"
    )
    group.add_argument("--workers", type=int, metavar="N", help="candidates trained at once")


def tournament_settings(options: argparse.Namespace) -> dict[str, object]:
    """Return the settings given as options of :func:`add_tournament_options`."""
    names = ("device", "seed", "out_of_sample", "budget_memory_mib", "budget_latency_ms", "selection", "workers")
    return {name: getattr(options, name) for name in names}
