"""The command `tournament`: one module a command, a parser and its work in two functions each.

Nothing heavy is imported before a command's work begins, so that every `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version

from esci_tournament.deployments.cli.common import Output

COMMANDS = (
    "demo", "run", "reevaluate", "up", "down", "login", "deploy",
    "data", "register", "candidates", "review", "champion", "serve", "keys", "report", "score", "explain", "doctor",
)  # fmt: skip

DESCRIPTION = """\
Keep a product-search ensemble at the state of the art: candidates enter, SHAP says what each is worth,
as many stay as the budget carries, and a challenger becomes champion only when it is truly better.

first steps:
  tournament demo                              see all of it on a small generated world
  tournament data download --to DIR            fetch the Shopping Queries Dataset (ESCI)
  tournament run --data DIR --candidates FILE  hold a tournament
"""

EPILOG = """\
exit codes:
  0 done              3 data cannot be used     6 a candidate failed      9 somebody else is at it
  1 failed            4 a spec is wrong         7 nobody fits the budget  10 not found
  2 wrong usage       5 a leak was stopped      8 a store failed          11 a server does not come up
                                                                          130 interrupted

settings come from options, TOURNAMENT_* variables and tournament.toml, in this order; `tournament doctor` shows them.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="tournament",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tournament {version('esci-tournament')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"esci_tournament.deployments.cli.{name}").add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. No traceback is shown without `--debug`."""
    options = build_parser().parse_args(arguments)
    output = Output(as_json=options.json)
    try:
        return _run(options, output)
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    finally:
        with suppress(BrokenPipeError):
            output.close()


def _run(options: argparse.Namespace, output: Output) -> int:
    from esci_tournament.registry.errors import StoreError, TournamentError

    try:
        options.work(options, output)
    except TournamentError as error:
        return _fail(output, options.debug, error, error.exit_code)
    except KeyboardInterrupt:
        output.error("interrupted; the same command continues where it stopped")
        return 130
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(output, options.debug, error, StoreError.exit_code)
    except Exception as error:
        return _fail(output, options.debug, error, 1)
    return 0


def _fail(output: Output, debug: bool, error: Exception, code: int) -> int:
    from esci_tournament.registry.errors import TournamentError

    if debug:
        traceback.print_exc()
    ours = isinstance(error, TournamentError)
    text = str(error) if ours else f"{type(error).__name__}: {error} (--debug shows where)"
    output.error(text)
    output.document({"error": text, "kind": type(error).__name__, "exit_code": code})
    return code


def entry() -> None:
    """Run the command line as a program."""
    sys.exit(main())


__all__ = ["build_parser", "main"]
