"""The command `tournament`: one module for each command, with one function for its parser and one for its work.

Heavy packages are imported inside the work functions, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, suppress
from importlib import import_module
from importlib.metadata import version
from io import StringIO
from typing import Any, NoReturn

from esci_tournament.deployments.cli.common import Output, failure
from esci_tournament.deployments.cli.ending import Ended, ending
from esci_tournament.deployments.cli.examples import add_examples
from esci_tournament.registry.complaints import as_documents
from esci_tournament.registry.errors import StoreError, TournamentError, UsageError
from esci_tournament.registry.settings import unknown_variables
from esci_tournament.registry.spelling import did_you_mean

_CHOICE = re.compile(r"invalid choice: '(?P<given>[^']*)' \(choose from (?P<choices>.*)\)")
_UNRECOGNIZED = "unrecognized arguments: "
# Objects made until garbage is looked for: what imports make stays, and looking every 700 takes a fifth of their time
COLLECT_EVERY = 50_000
_HEARD_S = 1.0  # the thread that hears signals may be this much behind

COMMANDS = (
    "demo", "run", "reevaluate", "up", "down", "login", "deploy", "policy", "ledger",
    "data", "register", "candidates", "review", "champion", "serve", "keys", "report", "score", "explain", "doctor",
    "completion",
)  # fmt: skip

DESCRIPTION = """\
Keep a product-search ensemble at the state of the art: candidates are trained and ranked by SHAP, as many are kept
as fit the budget, and the new ensemble (challenger) replaces the champion only when a statistical test says that it
is better.

first steps:
  tournament demo                              see a tournament on a small generated data set
  tournament data download --to DIR            fetch the Shopping Queries Dataset (ESCI)
  tournament run --data DIR --candidates FILE  hold a tournament
"""

EPILOG = """\
exit codes:
  0 done              4 a spec is wrong         8 a store failed                  12 the policy forbids it
  1 failed            5 a leak was stopped      9 busy: another process works     13 files differ from their record
  2 wrong usage       6 a candidate failed     10 not found                       14 the ledger was tampered with
  3 data not usable   7 budget too small       11 a server did not come up
  15 cancelled by `tournament candidates cancel`
  129, 130, 143 ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM; the same command continues where it stopped

settings come from options, TOURNAMENT_* variables and tournament.toml, in this order; all of them:
tournament doctor --all
"""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints say what may have been meant; its subparsers are of this class, too."""

    _words: Sequence[str] = ()

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the options, as every parser does; the words are kept for what is said of one that is unknown."""
        self._words = sys.argv[1:] if args is None else args
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Write usage and message to standard error, and end the process with 2, as every parser does."""
        if match := _CHOICE.search(message):
            message += did_you_mean(match["given"], re.findall(r"'([^']+)'", match["choices"]))
        elif message.startswith(_UNRECOGNIZED):
            given = message.removeprefix(_UNRECOGNIZED).split()[0].partition("=")[0]
            message += did_you_mean(given, _options_of(self, self._words))
        super().error(message)


def _options_of(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Return the options of a parser and of the subparsers that the words lead to."""
    found = list(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for number, word in enumerate(words):
                if word in action.choices:
                    return found + _options_of(action.choices[word], words[number + 1 :])
    return found


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; the options that it reads have `work`, the command's function."""
    parser = Parser(
        prog="tournament",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tournament {version('esci-tournament')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"esci_tournament.deployments.cli.{name}").add_parser(commands)
    add_examples(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Errors are written to standard error, without a traceback unless `--debug` is given.

    Args:
        arguments: the words after `tournament`; None for those of this process.

    Returns:
        The exit code, see :data:`EPILOG`; 141 when the reader of standard output has gone.

    Raises:
        SystemExit: by argparse, for `--help`, `--version` and wrong options.
    """
    options = _parsed(arguments)
    output = Output(as_json=options.json)
    try:
        return _run(options, output)
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    finally:
        with suppress(BrokenPipeError):
            output.close()


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line; wrong usage is told on standard error, and as the document where one is asked."""
    heard = StringIO()
    try:
        with redirect_stderr(heard):
            return build_parser().parse_args(arguments)
    except SystemExit as end:
        sys.stderr.write(heard.getvalue())
        if end.code == UsageError.exit_code and "--json" in (sys.argv[1:] if arguments is None else arguments):
            *_, said = heard.getvalue().strip().rpartition("error: ")
            with closing(Output(as_json=True)) as output:
                output.document(failure(said, "UsageError", UsageError.exit_code))
        raise


def _run(options: argparse.Namespace, output: Output) -> int:
    try:
        for words in unknown_variables(os.environ):
            output.warn(words)
        options.output = output
        options.work(options, output)
    except TournamentError as error:
        return _fail(output, options.debug, error, error.exit_code)
    except (KeyboardInterrupt, Ended) as end:
        interrupted = isinstance(end, KeyboardInterrupt)
        code = 130 if interrupted else ending.exit_code or 1
        how = "interrupted" if interrupted else f"ended by {ending.name}"
        text = f"{how}; the same command continues where it stopped"
        output.error(text)
        output.document(failure(text, type(end).__name__, code))
        return code
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(output, options.debug, error, StoreError.exit_code)
    except Exception as error:
        return _fail(output, options.debug, error, 1)
    return 0


def _fail(output: Output, debug: bool, error: Exception, code: int) -> int:
    if debug:
        traceback.print_exc()
    ours = isinstance(error, TournamentError)
    text = str(error) if ours else f"{type(error).__name__}: {error} (--debug shows where)"
    output.error(text)
    output.document(failure(text, type(error).__name__, code, as_documents(error)))
    return code


def entry() -> None:
    """Run the command line and end the process with its exit code; the entry point of the program `tournament`."""
    from esci_tournament.registry.processes import patient_threads
    from esci_tournament.registry.secrecy import hide_environment

    os.environ |= patient_threads()
    gc.set_threshold(COLLECT_EVERY)
    ending.watch()
    hide_environment()
    try:
        code = main()
    except SystemExit:
        raise
    except BaseException:  # Prefect's own for a signal, or ours before the command began
        if not ending.was_told(_HEARD_S) or ending.exit_code is None:
            raise
        code = ending.exit_code
    if ending.exit_code is not None:  # threads of libraries may hold up the interpreter's own end, and stop our clock
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


__all__ = ["build_parser", "main"]
