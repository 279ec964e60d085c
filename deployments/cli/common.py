"""What all commands share: common options, and output as text or as one JSON document."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from esci_tournament.registry.settings import Settings
    from esci_tournament.registry.specs import CandidateSpec
    from esci_tournament.registry.workspace import Workspace

HOME_ALONE = frozenset({"down", "keys", "ledger", "login", "policy", "report"})  # commands that ask MLflow nothing
VERSIONS = ("version", "ensemble_version", "champion_version")  # keys of documents that number a model's versions


def add_common_options(parser: argparse.ArgumentParser, *, home: bool = True) -> None:
    """Add the options `--home`, `--json` and `--debug`; `home=False` leaves the first one out."""
    common = parser.add_argument_group("common options")
    if home:
        common.add_argument("--home", type=Path, metavar="DIR", help="folder of all state (default: .tournament)")
    common.add_argument("--json", action="store_true", help="one JSON document on standard output, all else on stderr")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")


def command(
    commands: Any, name: str, work: Any, help: str, description: str = "", *, home: bool = True
) -> argparse.ArgumentParser:
    """Add one command with the common options.

    Args:
        commands: what `add_subparsers` returned.
        name: name of the command.
        work: called with the parsed options and an :class:`Output` when the command is run.
        help: one line for the list of commands, in lower case and without a full stop.
        description: text above the options in the command's own help; default: made from `help`.
        home: whether the command has the option `--home`.

    Returns:
        The command's parser, to which its own options are added.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=description or help[0].upper() + help[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common_options(parser, home=home)
    parser.set_defaults(work=work)
    return parser


def failure(text: str, kind: str, code: int, complaints: Sequence[object] = ()) -> dict[str, object]:
    """Return the document of a command that failed, or what such a document has beside its other keys.

    Args:
        text: the message, as on standard error.
        kind: name of the error's class.
        code: the exit code.
        complaints: each thing that is wrong with values that somebody wrote, for an error that has several.

    Returns:
        The keys error, kind and exit_code; complaints, where there are some.
    """
    from esci_tournament.registry.addresses import masked, without_password

    more = {"complaints": masked(complaints)} if complaints else {}
    return {"error": without_password(text), "kind": kind, "exit_code": code} | more


class Output:
    """Where a command writes: text for people, or one JSON document for programs.

    While it is open, file descriptor 1 points to standard error, so that what a library prints does not mix with the
    document. The real standard output is kept for what the command itself writes.

    Args:
        as_json: whether the document is wanted on standard output; text then goes to standard error.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._spoken = False
        self._where: dict[str, str] = {}
        sys.stdout.flush()
        self._real = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def close(self) -> None:
        """Point file descriptor 1 to standard output again."""
        sys.stdout.flush()
        self._real.flush()
        os.dup2(self._real.fileno(), 1)
        self._real.close()

    def document(self, content: Any) -> None:
        """Write the JSON document if one is wanted; calls after the first do nothing.

        An object has `home` and `tracking_uri`, those of :meth:`tell_where`, beside its own keys.

        Args:
            content: JSON-able value. Numbers are written as numbers, also those of numpy, and null when they are not
                finite; versions as whole numbers, null for none; moments as ISO text with their zone; what JSON does
                not know otherwise as text.
        """
        if self.as_json and not self._spoken:
            self._spoken = True
            if isinstance(content, dict):
                content = self._where | content
            text = json.dumps(typed(content), ensure_ascii=False, indent=2, default=str, allow_nan=False)
            self._real.write(text + "\n")
            self._real.flush()

    def say(self, text: str = "") -> None:
        """Write a line of text: to standard output, or to standard error when standard output has the document."""
        stream = sys.stderr if self.as_json else self._real
        stream.write(text + "\n")
        stream.flush()

    def tell_where(self, settings: Settings, registry: bool = True) -> None:
        """Say which home and which MLflow the command uses: one line on standard error, or keys of the document.

        Args:
            settings: those of the command; what was told of them is not told again.
            registry: whether it asks MLflow anything.
        """
        from esci_tournament.registry.addresses import without_password

        where = {"home": str(settings.home)}
        if registry:
            where["tracking_uri"] = without_password(settings.tracking_uri)
        if where == self._where:
            return
        self._where = where
        if not self.as_json:
            home = settings.home
            words = f"home {home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home}"
            if registry:
                words += f" · MLflow {_mlflow_in_words(settings)}"
            sys.stderr.write(f"\x1b[2m{words}\x1b[0m\n" if sys.stderr.isatty() else f"{words}\n")
            sys.stderr.flush()

    def error(self, text: str) -> None:
        """Write an error message to standard error, after "error: "."""
        from esci_tournament.registry.addresses import without_password

        sys.stderr.write(f"error: {without_password(text)}\n")
        sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Write what somebody should look into, on standard error."""
        sys.stderr.write(f"warning: {text}\n")
        sys.stderr.flush()

    def console(self) -> Console:
        """Return a rich console on the stream of :meth:`say`; without a terminal it is `$COLUMNS` or 132 wide."""
        from rich.console import Console

        stream = sys.stderr if self.as_json else self._real
        width = None if stream.isatty() else int(os.environ.get("COLUMNS", 132))
        return Console(file=stream, width=width, highlight=False)

    def progress(self) -> AbstractContextManager[Callable[[str, float, str], None]]:
        """Return a context manager that shows progress on standard error.

        Returns:
            It yields a function that is called with the name of a stage, the share done in [0, 1] and a word on what
            is being done.
        """
        from esci_tournament.deployments.cli.progress import bars

        return bars(self.error_console())

    def error_console(self) -> Console:
        """Return a rich console on standard error."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)


def typed(content: Any, key: str = "") -> Any:
    """Return a document's value with the types that programs read.

    Args:
        content: The value.
        key: What it stands under. Version numbers of models stand under `version`, `ensemble_version` and
            `champion_version`; reports keep them as text, "" for none.

    Returns:
        What :meth:`Output.document` writes.

    Example:
        >>> typed({"version": "3", "champion_version": "", "loss": float("nan"), "shap": {"version": "0.51.0"}})
        {'version': 3, 'champion_version': None, 'loss': None, 'shap': {'version': '0.51.0'}}
    """
    if isinstance(content, dict):
        return {name: typed(value, str(name)) for name, value in content.items()}
    if isinstance(content, list | tuple | set | frozenset):
        return [typed(value) for value in content]
    if hasattr(content, "tolist"):  # numpy
        return typed(content.tolist(), key)
    if isinstance(content, dt.datetime):
        return content.replace(tzinfo=content.tzinfo or dt.UTC).isoformat()
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, str) and key in VERSIONS:
        return int(content) if content.isdecimal() else content or None
    return content


def say_where(settings: Settings, output: Output) -> None:
    """Say which MLflow a command has written to, and warn when the home has one that was not used.

    Args:
        settings: those that the command was carried out with.
        output: where the words go.
    """
    from esci_tournament.registry.addresses import without_password

    output.say(f"MLflow: {without_password(settings.tracking_uri)} ({_how(settings)})")
    warn_of_another(settings, output)


def _how(settings: Settings) -> str:
    named_by = settings.mlflow_named_by
    return "in the home" if named_by == "home" else f"named by {named_by}"


def _mlflow_in_words(settings: Settings) -> str:
    from esci_tournament.registry.addresses import without_password

    if settings.mlflow_named_by == "home":
        return _how(settings)
    return f"{without_password(settings.tracking_uri)} ({_how(settings)})"


def warn_of_another(settings: Settings, output: Output) -> None:
    """Warn when MLFLOW_TRACKING_URI has led away from the database that a home has.

    Args:
        settings: those of the command.
        output: where the words go.
    """
    from esci_tournament.registry.addresses import sqlite_file
    from esci_tournament.registry.settings import MLFLOW_VARIABLE

    named_by, own = settings.mlflow_named_by, settings.home / "mlflow.db"
    if named_by == MLFLOW_VARIABLE and own.exists() and sqlite_file(settings.tracking_uri) != own:
        output.warn(
            f"{own} exists and was not used, because {MLFLOW_VARIABLE} is set; to use it again, unset the variable"
        )


def settings_of(options: argparse.Namespace, **overrides: object) -> Settings:
    """Return the settings in force for a command, and say which home and which MLflow it uses.

    Args:
        options: the parsed command line; `home` is used, and `output` where the command is run.
        **overrides: settings given as options, which come before variables and tournament.toml; None is not given.

    Returns:
        The settings.

    Raises:
        UsageError: if a value or a key is wrong.
    """
    from esci_tournament.registry.settings import read_settings

    settings = read_settings(home=options.home, **overrides)
    output: Output | None = getattr(options, "output", None)
    if output is not None and getattr(options, "uses_home", True):
        output.tell_where(settings, options.command not in HOME_ALONE)
    return settings


def workspace_of(options: argparse.Namespace, *, shows: bool = False, **overrides: object) -> Workspace:
    """Return the workspace of a command: the settings of :func:`settings_of` and their stores.

    Args:
        options: the parsed command line; `home` is used.
        shows: whether the command only shows what is there: MLflow is asked nothing that it has answered since its
            database changed last.
        **overrides: as for :func:`settings_of`.
    """
    from esci_tournament.registry.workspace import Workspace

    return Workspace(settings_of(options, **overrides), remembers=shows)


def served_workspace_of(options: argparse.Namespace, *, shows: bool = False) -> Workspace:
    """Return the workspace of a command, with the addresses of the servers that `tournament up` runs for its home.

    It sets `PREFECT_API_URL` when the stack runs, so it must be called before Prefect is imported.

    Args:
        options: the parsed command line; `home` is used.
        shows: as for :func:`workspace_of`.

    Returns:
        The workspace; the setting `mlflow_ui` is filled in when the stack's MLflow runs.
    """
    from esci_tournament.deployments.stack.access import name_server
    from esci_tournament.deployments.stack.state import running

    workspace = workspace_of(options, shows=shows)
    state = running(workspace.settings.home)
    if state is None:
        return workspace
    name_server(workspace.settings.home, state.api)
    return workspace_of(options, shows=shows, mlflow_ui=workspace.settings.mlflow_ui or state.addresses.get("mlflow"))


def checked_specs(path: Path, settings: Settings) -> list[CandidateSpec]:
    """Return the candidates of a file, all of which can be used here.

    Args:
        path: A TOML file of `[[candidate]]` tables.
        settings: The settings in force.

    Returns:
        The specs, in the order of the file.

    Raises:
        SpecError: If the file, or what one of its specs points to, is wrong; the message has everything that is.
    """
    from esci_tournament.registry.specs import read_specs

    def check(spec: CandidateSpec) -> None:
        from esci_tournament.tasks.candidates.enter import check_spec  # takes seconds, and no spec may be readable

        check_spec(spec, settings)

    return read_specs(path, check)


def add_tournament_options(parser: argparse.ArgumentParser) -> None:
    """Add the settings that have an option of their own; all others are set in tournament.toml."""
    group = parser.add_argument_group("tournament settings")
    group.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: auto)")
    group.add_argument("--seed", type=int, help="seed of every random choice (default: 0)")
    group.add_argument("--out-of-sample", choices=("blend", "kfold"), help="source of the aggregator's scores")
    group.add_argument("--budget-memory-mib", type=float, metavar="MIB", help="memory of all members together, MiB")
    group.add_argument(
        "--budget-latency-ms", type=float, metavar="MS", help="time of all members together for 40 pairs, ms"
    )
    group.add_argument(
        "--selection", metavar="RULE", help="shap, top_k, exhaustive, greedy or a plug-in's (default: shap)"
    )
    group.add_argument("--workers", type=int, metavar="N", help="candidates trained at once")


def tournament_settings(options: argparse.Namespace) -> dict[str, object]:
    """Return the settings given as options of :func:`add_tournament_options`, by name; None where not given."""
    names = ("device", "seed", "out_of_sample", "budget_memory_mib", "budget_latency_ms", "selection", "workers")
    return {name: getattr(options, name) for name in names}
