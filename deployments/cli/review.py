"""`tournament review`: list and show the verdicts that wait for a reviewer, and decide on them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from esci_tournament.deployments.cli.common import Output, add_common_options, say_where, served_workspace_of

if TYPE_CHECKING:
    from esci_tournament.registry.reviews import Case
    from esci_tournament.registry.workspace import Workspace

DESCRIPTION = """\
Decide whether a challenger becomes champion. The same decision can be made on the page of the review; the first one
counts, and a second one is refused with the first in its message. VERDICT is the number that `list` shows, or the id
of a tournament.

examples:
  tournament review list
  tournament review show 7
  tournament review approve 7 --reviewer ana --reason "better in every locale"
"""


def add_parser(commands: Any) -> None:
    """Add the command and its parts."""
    parser = commands.add_parser(
        "review",
        help="decide whether a challenger becomes champion",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    listing = parts.add_parser("list", help="the verdicts that wait for a decision")
    listing.add_argument("--all", action="store_true", help="also those that are decided")
    showing = parts.add_parser("show", help="what would change, what it gains and costs, and until when it waits")
    showing.add_argument("verdict", metavar="VERDICT")
    for part, work in ((listing, show_list), (showing, show)):
        add_common_options(part)
        part.set_defaults(work=work)
    for outcome, help in (("approve", "make the challenger champion"), ("refuse", "let the champion stay")):
        part = parts.add_parser(outcome, help=help)
        part.add_argument("verdict", metavar="VERDICT")
        part.add_argument("--reviewer", help="who decides (default: the user of this process)")
        part.add_argument("--code", default="", help="the reviewer's one-time code, where the process is not their own")
        part.add_argument("--reason", required=True, help="why; it stays in the champion's history")
        add_common_options(part)
        part.set_defaults(work=decide, outcome=outcome)


def show_list(options: argparse.Namespace, output: Output) -> None:
    """List the verdicts that wait for a decision; with `--all` every verdict that asked for a promotion."""
    from esci_tournament.registry.data_reviews import offered
    from esci_tournament.registry.reviews import cases

    workspace = _workspace(options)
    found = cases(workspace.ledger, workspace.settings.ensemble_name)
    rows = [_row(workspace, case) for case in found if options.all or case.state == "waits"]
    for row in rows:
        until = f"until {row['deadline']}" if row["state"] == "waits" and row["deadline"] else ""
        by = f"by {row['reviewer']}: {row['reason']}" if row["reviewer"] else until
        output.say(f"{row['verdict']:>4}  {row['state']:<12}  version {row['version']}  {row['tournament']}  {by}")
        if row["state"] == "waits" and row["flow_run"]:
            output.say(f"      {row['flow_run']}")
    for one in offered(workspace.ledger):
        short = one.subject[:12]
        output.say(f"newer data {short} waits, too: tournament data serve|refuse {short} --reason WHY")
    if not rows:
        output.say("no verdict waits for a decision" if not options.all else "no verdict has asked for a decision")
    output.document(rows)


def show(options: argparse.Namespace, output: Output) -> None:
    """Show one verdict: what would change, what it gains and costs, and until when it waits."""
    from esci_tournament.flows.review_runs import describe
    from esci_tournament.registry.reviews import find_case

    workspace = _workspace(options)
    case = find_case(workspace.ledger, workspace.settings.ensemble_name, options.verdict)
    text = describe(workspace, case)
    row = _row(workspace, case)
    output.say(text)
    if row["state"] == "waits":
        if row["flow_run"]:
            output.say(f"Decide in a browser: {row['flow_run']}")
            if link := _login(workspace, row["flow_run"]):
                output.say(f"or, with a login that works once: {link}")
        how = "or" if row["flow_run"] else "Decide"
        output.say(f"{how}: tournament review approve|refuse {case.id} --reviewer NAME --reason WHY")
    else:
        output.say(f"{row['state']} by {row['reviewer']} at {row['decided']}: {row['reason']}")
    output.document(row | {"markdown": text})


def decide(options: argparse.Namespace, output: Output) -> None:
    """Record the reviewer's decision, and promote the challenger when it was approved."""
    import uuid

    from esci_tournament.flows.decision import answer
    from esci_tournament.flows.review import end_waiting_runs
    from esci_tournament.registry.processes import process_user
    from esci_tournament.registry.reviewers import Answer
    from esci_tournament.registry.reviews import find_case

    workspace = _workspace(options)
    case = find_case(workspace.ledger, workspace.settings.ensemble_name, options.verdict)
    reviewer = process_user() if options.reviewer is None else options.reviewer
    mark = f"command line {uuid.uuid4().hex}"
    given = Answer(options.outcome, reviewer, options.reason, "command line", mark, options.code)
    came_of = answer(workspace, case, given)
    case = find_case(workspace.ledger, workspace.settings.ensemble_name, case.id)
    end_waiting_runs(workspace, case)
    output.say(came_of)
    say_where(workspace.settings, output)
    output.document(_row(workspace, case) | {"came_of": came_of})


def _workspace(options: argparse.Namespace) -> Workspace:
    """Return the workspace of a command, and make Prefect silent."""
    from esci_tournament.deployments.local import quiet_prefect

    workspace = served_workspace_of(options)
    quiet_prefect(workspace.settings)
    from esci_tournament.flows.governed import governed

    governed(workspace)  # settings that ask for less than the policy are refused
    return workspace


def _login(workspace: Workspace, address: str) -> str:
    """Return a link that logs a browser in and leads to a page, "" for a page of a server that is not the home's."""
    from esci_tournament.deployments.stack.logins import login_link
    from esci_tournament.deployments.stack.state import prefect_api_url

    api = prefect_api_url(workspace.settings.home)
    return (
        login_link(workspace.settings.home, api, address) if api and address.startswith(api.removesuffix("api")) else ""
    )


def _row(workspace: Workspace, case: Case) -> dict[str, Any]:
    decision, deadline = case.decision, case.deadline(workspace.settings)
    return {
        "verdict": case.id,
        "state": case.state,
        "tournament": case.tournament,
        "version": case.ensemble.version,
        "outcome": case.verdict.outcome,
        "opened": case.opened_at.isoformat(timespec="seconds") if case.opened_at else None,
        "deadline": deadline.isoformat(timespec="seconds") if deadline else None,
        "rounds": len(case.reviews),
        "flow_run": _flow_run(case),
        "reviewer": decision.reviewer if decision else "",
        "reason": decision.reason if decision else "",
        "decided": decision.at.isoformat(timespec="seconds") if decision else None,
        "promoted": case.promotion is not None,
    }


def _flow_run(case: Case) -> str:
    """Return where a browser shows the question of a case and takes the answer, "" where no run waits for it."""
    if not case.flow_run:
        return ""
    from esci_tournament.flows.links import review_link

    return review_link(case.flow_run)
