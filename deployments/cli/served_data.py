"""The parts of `tournament data` that say and decide which data scorers use."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from esci_tournament.deployments.cli.common import Output, add_common_options, served_workspace_of
from esci_tournament.registry.errors import NotFoundError

if TYPE_CHECKING:
    from esci_tournament.registry.records import Tournament
    from esci_tournament.registry.workspace import Workspace


def add_parts(parts: Any) -> None:
    """Add the parts `served`, `serve`, `refuse` and `undo`."""
    listing = parts.add_parser("served", help="the data that scorers use, what they used before, and what waits")
    serving = parts.add_parser("serve", help="approve data, so that scorers use it; nothing is judged")
    refusing = parts.add_parser("refuse", help="refuse data that waits for a reviewer; scorers keep theirs")
    for part in (serving, refusing):
        part.add_argument("version", metavar="VERSION", help="the first digits of a data version, as `served` shows it")
        part.add_argument("--reviewer", help="who decides (default: the user of this process)")
        part.add_argument("--code", default="", help="the reviewer's one-time code, where the process is not their own")
    undoing = parts.add_parser("undo", help="have scorers use the data from before again")
    for part in (serving, refusing, undoing):
        part.add_argument("--reason", required=True, help="why; it stays on record")
    serving.set_defaults(outcome="approve")
    refusing.set_defaults(outcome="refuse")
    works = ((listing, show_served), (serving, decide), (refusing, decide), (undoing, undo))
    for part, work in works:
        add_common_options(part)
        part.set_defaults(work=work)


def show_served(options: argparse.Namespace, output: Output) -> None:
    """Show which data scorers use, what they used before, newest first, and what waits for a reviewer."""
    from esci_tournament.registry.data_reviews import offered
    from esci_tournament.registry.live_data import served_history

    workspace = served_workspace_of(options, shows=True)
    ledger = workspace.ledger
    held = _held(workspace)
    known = {one.digest: one.payload or {} for one in ledger.data_versions()}

    def facts(version: str) -> dict[str, Any]:
        said = known.get(version, {})
        return {"data_version": version} | {name: said.get(name) for name in ("origin", "pairs", "products")}

    used = [
        facts(one.data_version) | {"since": one.at.isoformat(timespec="seconds"), "by": one.by, "reason": one.reason}
        for one in reversed(served_history(ledger, held) if held else [])
    ]
    waits = [facts(one.subject) | {"since": one.at.isoformat(timespec="seconds")} for one in offered(ledger)]
    for number, row in enumerate(used):
        by = f", by {row['by']}" if row["by"] else ""
        output.say(f"{'serves now' if number == 0 else 'before':<10}  {_sizes(row)}, since {row['since']}{by}")
        output.say(f"            {row['reason']}")
    for row in waits:
        output.say(f"{'waits':<10}  {_sizes(row)}, since {row['since']}")
        output.say(f"            tournament data serve|refuse {row['data_version'][:12]} --reason WHY")
    if not used:
        output.say("there is no champion yet, so scorers use no data")
    output.document({"serves": used[0] if used else None, "before": used[1:], "waits": waits})


def _sizes(row: dict[str, Any]) -> str:
    sizes = [f"{row[name]:,} {name}" for name in ("pairs", "products") if row[name] is not None]
    return " ".join([row["data_version"][:12], f"({', '.join(sizes)})" if sizes else ""]).strip()


def _held(workspace: Workspace) -> Tournament | None:
    """Return the tournament that built the champion, None when there is no champion or its tournament is not known."""
    from esci_tournament.registry.tournaments import find_tournament

    promotion = workspace.ledger.standing(workspace.settings.ensemble_name).champion
    if promotion is None:
        return None
    return find_tournament(workspace.ledger, workspace.roll.ensemble(promotion.version).tournament)


def decide(options: argparse.Namespace, output: Output) -> None:
    """Approve or refuse a data version for scorers, as the policy of promotions has it.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        NotFoundError: if no data version on record begins so, or this home has none that passed its checks.
        PolicyError: if the reviewer may not decide.
    """
    import uuid

    from esci_tournament.deployments.local import quiet_prefect
    from esci_tournament.registry.data_reviews import decide as record
    from esci_tournament.registry.data_reviews import find_version
    from esci_tournament.registry.policies import in_force
    from esci_tournament.registry.processes import process_user
    from esci_tournament.registry.reviewers import Answer

    workspace = served_workspace_of(options)
    quiet_prefect(workspace.settings)
    from esci_tournament.flows.governed import governed
    from esci_tournament.flows.preparation import is_validated

    settings = governed(workspace)  # settings that ask for less than the policy are refused
    version = find_version(workspace.ledger, options.version)
    if options.outcome == "approve" and not is_validated(workspace, version):
        raise NotFoundError(
            f"data {version[:12]} is not in this home, or has not passed its checks under the settings in force; load "
            "and check it: tournament champion refresh --data DIR"
        )
    reviewer = process_user() if options.reviewer is None else options.reviewer
    mark = f"command line {uuid.uuid4().hex}"
    given = Answer(options.outcome, reviewer, options.reason, "command line", mark, options.code)
    came_of = record(workspace.ledger, in_force(workspace.ledger, settings), version, given)
    output.say(came_of)
    output.document({"data_version": version, "outcome": options.outcome, "came_of": came_of})


def undo(options: argparse.Namespace, output: Output) -> None:
    """Have scorers use the data version from before again."""
    from esci_tournament.registry.live_data import take_back
    from esci_tournament.registry.processes import process_user

    workspace = served_workspace_of(options)
    held = _held(workspace)
    if held is None:
        raise NotFoundError("there is no champion, so scorers use no data")
    now = take_back(workspace.ledger, held, process_user(), options.reason)
    output.say(f"scorers change back to data {now.data_version[:12]}; the same command once more puts it back")
    output.document({"data_version": now.data_version, "reason": now.reason})
