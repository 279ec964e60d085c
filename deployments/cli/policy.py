"""`tournament policy`: what governs promotions, who changed it and why, and the reviewers' authenticator apps."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from esci_tournament.deployments.cli.common import Output, add_common_options, workspace_of

if TYPE_CHECKING:
    from esci_tournament.registry.records import PolicyRecord
    from esci_tournament.registry.workspace import Workspace

DESCRIPTION = """\
Show or change what governs promotions: who reviews, how many must approve, and by which rule a challenger counts as
better. The policy is kept in the ledger. The settings of a process may ask for more than it does, never for less.

examples:
  tournament policy show
  tournament policy set review=required reviewers=ana,ben --reason "two people look after search"
  tournament policy set alpha=0.01 --reason "fewer promotions"
  tournament policy adopt --reason "tournament.toml says it now"
  tournament policy enrol ana
"""


def add_parser(commands: Any) -> None:
    """Add the command and its parts."""
    parser = commands.add_parser(
        "policy",
        help="show or change who decides on promotions, and by which rule",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    showing = parts.add_parser("show", help="the policy in force")
    past = parts.add_parser("history", help="every version: what changed, who changed it and why")
    setting = parts.add_parser("set", help="change values")
    setting.add_argument("changes", metavar="NAME=VALUE", nargs="+", help="names with commas between them make a list")
    adopting = parts.add_parser("adopt", help="take over the values of the settings in force")
    for part in (setting, adopting):
        part.add_argument("--reason", required=True, help="why; it stays in the history")
    enrolling = parts.add_parser("enrol", help="give a reviewer a secret for an authenticator app, shown once")
    enrolling.add_argument("name", metavar="NAME")
    withdrawing = parts.add_parser("withdraw", help="accept no more codes of a reviewer")
    withdrawing.add_argument("name", metavar="NAME")
    works = (
        *((showing, show), (past, show_history), (setting, change), (adopting, adopt)),
        *((enrolling, enrol_reviewer), (withdrawing, withdraw_reviewer)),
    )
    for part, work in works:
        add_common_options(part)
        part.set_defaults(work=work)


def show(options: argparse.Namespace, output: Output) -> None:
    """Show the policy in force, and which reviewers have enrolled."""
    from dataclasses import asdict

    from esci_tournament.registry.policies import current, in_force
    from esci_tournament.registry.proof import enrolled

    workspace = workspace_of(options)
    record, policy = current(workspace.ledger), in_force(workspace.ledger, workspace.settings)
    if record is None:
        output.say("the ledger has no policy yet; its first use takes it from the settings, which say:")
    else:
        output.say(f"version {record.version}, since {record.at:%Y-%m-%d %H:%M} UTC by {record.who}: {record.reason}")
    for name, value in asdict(policy).items():
        output.say(f"  {name} = {_shown(value)}")
    names = sorted(enrolled(workspace.ledger))
    output.say(f"  enrolled with an authenticator app: {', '.join(names) or 'nobody'}")
    version = record.version if record else None
    output.document({"version": version, "policy": asdict(policy), "enrolled": names})


def show_history(options: argparse.Namespace, output: Output) -> None:
    """Show every version, oldest first."""
    from esci_tournament.registry.policies import history

    found = history(workspace_of(options).ledger)
    for one in found:
        output.say(f"{one.version:>3}  {one.at:%Y-%m-%d %H:%M}  {one.who}: {one.reason}")
        if one.version > 1:
            for name in one.payload["changed"]:
                output.say(f"     {name} = {_shown(one.payload['policy'][name])}")
    if not found:
        output.say("the ledger has no policy yet")
    output.document([_row(one) for one in found])


def change(options: argparse.Namespace, output: Output) -> None:
    """Change values of the policy."""
    from esci_tournament.registry.errors import UsageError
    from esci_tournament.registry.policies import changed_policy, current, in_force, record_policy

    changes = {}
    for each in options.changes:
        name, equals, value = each.partition("=")
        if not equals:
            raise UsageError(f"{each!r} says no value; write NAME=VALUE, as in quorum=2")
        changes[name] = _parsed(name, value)
    workspace = workspace_of(options)
    before = current(workspace.ledger)
    policy = changed_policy(in_force(workspace.ledger, workspace.settings), changes)
    _tell(output, record_policy(workspace.ledger, policy, options.reason, before.version if before else 0), before)


def adopt(options: argparse.Namespace, output: Output) -> None:
    """Take over what the settings in force say, defaults included."""
    from esci_tournament.registry.policies import current, record_policy
    from esci_tournament.registry.policy import Policy

    workspace = workspace_of(options)
    before = current(workspace.ledger)
    policy = Policy.of(workspace.settings)
    _tell(output, record_policy(workspace.ledger, policy, options.reason, before.version if before else 0), before)


def enrol_reviewer(options: argparse.Namespace, output: Output) -> None:
    """Give a reviewer a secret."""
    from esci_tournament.registry.proof import enrol

    workspace = workspace_of(options)
    address = enrol(workspace.ledger, options.name)
    _warn(workspace, options.name, output)
    output.say(f"{options.name}: put this address into an authenticator app, now; it is shown once")
    output.say(f"  {address}")
    output.document({"reviewer": options.name, "address": address})


def withdraw_reviewer(options: argparse.Namespace, output: Output) -> None:
    """Accept no more codes of a reviewer."""
    from esci_tournament.registry.proof import withdraw

    withdraw(workspace_of(options).ledger, options.name)
    output.say(f"no code of {options.name} is accepted any more")
    output.document({"reviewer": options.name})


def _warn(workspace: Workspace, name: str, output: Output) -> None:
    from esci_tournament.registry.policies import in_force

    policy = in_force(workspace.ledger, workspace.settings)
    if not policy.reviewers:
        output.say("note: the policy names no reviewers, so that anyone may decide under any name")
    elif not policy.names_reviewer(name):
        output.say(f"note: {name} is not one of the policy's reviewers")


def _tell(output: Output, record: PolicyRecord, before: PolicyRecord | None) -> None:
    if before is not None and record.version == before.version:
        output.say(f"the policy says so already, since version {record.version}; nothing was changed")
    else:
        output.say(f"version {record.version} of the policy is in force")
        for name in record.payload["changed"]:
            output.say(f"  {name} = {_shown(record.payload['policy'][name])}")
    output.document(_row(record))


def _row(record: PolicyRecord) -> dict[str, Any]:
    return {
        "version": record.version,
        "at": record.at.isoformat(timespec="seconds"),
        "who": record.who,
        "reason": record.reason,
        "changed": record.payload["changed"],
        "policy": record.payload["policy"],
    }


def _parsed(name: str, value: str) -> Any:
    """Return a value as the setting takes it: JSON, or words with commas between them where it is a list."""
    from esci_tournament.registry.foreign import read_json
    from esci_tournament.registry.settings import Settings

    known = Settings.model_fields.get(name)
    if known is not None and isinstance(known.default, tuple) and not value.lstrip().startswith("["):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    try:
        return read_json(value)
    except ValueError:
        return value


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) or "-" if isinstance(value, list | tuple) else str(value)
