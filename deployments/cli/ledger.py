"""`tournament ledger`: verify the ledger's hash chain, take checkpoints of it, migrate it, grant access to it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esci_tournament.deployments.cli.common import Output, add_common_options, settings_of, workspace_of
from esci_tournament.registry.spelling import counted

if TYPE_CHECKING:
    from esci_tournament.registry.chain import Checkpoint

DESCRIPTION = """\
Look after the ledger. Each of its rows has an entry in a hash chain, so a row that was changed, removed or inserted
past the ledger is noticed. Keep checkpoints where nobody who can write to the database can write: with one, a chain
that was made anew or cut at its end is noticed too.

examples:
  tournament ledger verify
  tournament ledger checkpoint --out /elsewhere/2026-11-26.json
  tournament ledger verify --checkpoint /elsewhere/2026-11-26.json
  tournament ledger repair --reason "triggers were dropped in an upgrade of the database"
  tournament ledger migrate
  tournament ledger grant worker ledger_worker
"""


def add_parser(commands: Any) -> None:
    """Add the command and its parts."""
    parser = commands.add_parser(
        "ledger",
        help="verify the ledger's hash chain, take checkpoints, migrate it",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    verifying = parts.add_parser("verify", help="compare every row and trigger with the chain; exit code 14: differs")
    verifying.add_argument(
        "--checkpoint", type=Path, action="append", default=[], metavar="FILE", help="an earlier one; may be repeated"
    )
    marking = parts.add_parser("checkpoint", help="verify, and write how far the chain has come")
    marking.add_argument("--out", type=Path, metavar="FILE", help="a new file (default: standard output)")
    repairing = parts.add_parser("repair", help="put triggers back that are missing or were changed, on record")
    repairing.add_argument("--reason", required=True, help="why; it stays in the ledger")
    migrating = parts.add_parser("migrate", help="bring the ledger's tables to this version, as their owner")
    granting = parts.add_parser("grant", help="give a role of PostgreSQL what a service needs and nothing more")
    granting.add_argument("service", choices=("worker", "reviewer", "scorer"), help="whose work the role does")
    granting.add_argument("role", metavar="ROLE", help="a role that exists and owns nothing of the ledger")
    works = (
        *((verifying, verify_chain), (marking, take_checkpoint), (repairing, repair_triggers)),
        *((migrating, migrate), (granting, grant_role)),
    )
    for part, work in works:
        add_common_options(part)
        part.set_defaults(work=work)


def verify_chain(options: argparse.Namespace, output: Output) -> None:
    """Verify the ledger, and say what differs.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        ChainError: if something differs.
    """
    from dataclasses import asdict

    from esci_tournament.registry.chain import ADVICE, verify_home
    from esci_tournament.registry.errors import ChainError

    workspace = workspace_of(options)
    checkpoints = [_read(path) for path in options.checkpoint]
    settings = workspace.settings
    report = verify_home(workspace.ledger, settings.home, settings.ledger_address, checkpoints)
    output.document(asdict(report))
    for words in report.findings:
        output.say(f"FAIL  {words}")
    if report.count > len(report.findings):
        output.say(f"FAIL  and {report.count - len(report.findings):,} more")
    for words in report.notes:
        output.say(f"note  {words}")
    if report.count:
        raise ChainError(f"{counted(report.count, 'finding')} in the ledger. {ADVICE}")
    entries = counted(report.entries, "entry", "entries")
    output.say(f"ok    {entries}, all rows and triggers as they were written; head {report.head}")
    if report.before:
        output.say(f"      rows that were there before the chain began: {report.before:,}")


def take_checkpoint(options: argparse.Namespace, output: Output) -> None:
    """Verify the ledger and write a checkpoint.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        ChainError: if the ledger does not verify; there is no checkpoint then.
        UsageError: if the file is there already.
    """
    from esci_tournament.registry.chain import verify_home
    from esci_tournament.registry.errors import UsageError
    from esci_tournament.registry.files import disk_in_words, write_atomically

    if options.out is not None and options.out.exists():
        raise UsageError(f"{options.out} is there already; a checkpoint never goes over another")
    workspace = workspace_of(options)
    settings = workspace.settings
    found = verify_home(workspace.ledger, settings.home, settings.ledger_address).checkpoint()
    output.document(json.loads(found.to_json()))
    if options.out is None:
        output.say(found.to_json().rstrip())
        return
    with disk_in_words("checkpoint", options.out.parent):
        write_atomically(options.out, found.to_json().encode())
    entries = counted(found.entries, "entry", "entries")
    output.say(
        f"wrote {options.out}: {entries}; keep it in a place that those who can write to the database cannot write to"
    )


def repair_triggers(options: argparse.Namespace, output: Output) -> None:
    """Put triggers back, and say which."""
    from esci_tournament.registry.chain import repair

    found = repair(workspace_of(options).ledger, options.reason)
    for words in found.values():
        output.say(f"put right: {words}")
    output.say("it stands in the ledger; rows: tournament ledger verify" if found else "all triggers are in force")
    output.document({"repaired": found})


def migrate(options: argparse.Namespace, output: Output) -> None:
    """Bring the ledger to the newest schema."""
    versions = workspace_of(options).ledger.schemas()
    output.say(f"the ledger has schema {versions[-1].version}, since {versions[-1].at:%Y-%m-%d %H:%M} UTC")
    output.document([{"version": one.version, "at": one.at.isoformat(), "who": one.who} for one in versions])


def grant_role(options: argparse.Namespace, output: Output) -> None:
    """Grant a role of PostgreSQL what a service needs; what it had on the ledger beyond that is taken away."""
    from esci_tournament.registry.grants import grant

    statements = grant(settings_of(options).ledger_address, options.service, options.role)
    output.say(f"{options.role} may do what the {options.service} does, and nothing else with the ledger's tables")
    output.document(statements)


def _read(path: Path) -> Checkpoint:
    from esci_tournament.registry.chain import Checkpoint
    from esci_tournament.registry.errors import UsageError

    try:
        return Checkpoint.from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the checkpoint {path} cannot be read: {error}") from error
