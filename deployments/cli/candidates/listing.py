"""`tournament candidates list` and `show`: nothing is changed by them."""

from __future__ import annotations

import argparse

from esci_tournament.deployments.cli.common import Output, served_workspace_of, workspace_of


def show_list(options: argparse.Namespace, output: Output) -> None:
    """List all candidates in the order in which they were registered; the document has one object for each."""
    from esci_tournament.registry.states import CandidateState, states
    from esci_tournament.registry.versions import FLOW_RUN_TAG
    from esci_tournament.tasks.report.progress import running

    workspace = workspace_of(options, shows=True)
    known = states(workspace.ledger, workspace.settings.ensemble_name)
    told = running(workspace.folder("progress"))
    rows = []
    for candidate in workspace.roll.candidates():
        version = candidate.version
        one = known.get(version.id, CandidateState())
        state, why = one.state, "; ".join(filter(None, [one.reason, candidate.difference]))
        if state == "registered" and version.complaint:
            state, why = "refused", version.complaint
        link = version.tags.get(FLOW_RUN_TAG, "")
        share, whole, doing = None, None, ""
        if state == "training":
            run = next((run for run in told.values() if version.id in run.candidates), None)
            if run is not None:
                (share, doing), whole = run.candidates[version.id], run.share
                doing = doing if share < 1.0 else f"the tournament is at {whole:.0%}, {run.doing}"
        elif state == "queued" and one.flow_run in told:
            doing = f"its tournament begins: {told[one.flow_run].doing}"
        rows.append(
            {
                "candidate": version.id,
                "family": version.spec.family if version.spec else "?",
                "state": state,
                "progress": share,
                "tournament_progress": whole,
                "doing": doing,
                "tournament": one.tournament,
                "flow_run": one.flow_run,
                "link": link,
                "entered": version.entered,
                "metrics": version.metrics,
                "reason": why,
                "spec": version.spec.model_dump(mode="json") if version.spec else None,
                "differs": candidate.difference,
            }
        )
        shown = state if share is None else f"{state} {share:.0%}"
        words = "  ".join(word for word in (one.tournament, doing, why, link) if word)
        output.say(f"{version.id:<28} {rows[-1]['family']:<16} {shown:<13} {words}".rstrip())
    if not rows:
        output.say("no candidates yet; register some: tournament register --help")
    output.document(rows)


def show(options: argparse.Namespace, output: Output) -> None:
    """Show all that is known of a candidate.

    Args:
        options: the parsed command line.
        output: where the words or the document go.

    Raises:
        NotFoundError: if there is no such candidate; the message has those whose names are most alike.
    """
    from esci_tournament.registry.candidates import find_candidate
    from esci_tournament.tasks.report.story import story

    workspace = served_workspace_of(options, shows=True)
    found = story(workspace, find_candidate(workspace, options.candidate))
    spec = workspace.roll.candidate(found["candidate"]).version.spec
    keys = spec.model_dump(mode="json", exclude_defaults=True) if spec else {}
    since = f" since {found['member_since']}" if found["member_since"] else ""
    output.say(f"candidate:  {found['candidate']}  ({found['family'] or 'its spec cannot be read'})")
    output.say(f"state:      {found['state']}{since}" + (f": {found['reason']}" if found["reason"] else ""))
    by = ", ".join(found["registered"]["by"]) or "nobody that is known"
    output.say(f"registered: {found['registered']['at'][:19]} UTC by {by}")
    output.say(f"spec:       {', '.join(f'{key} = {value!r}' for key, value in keys.items() if key != 'name')}")
    if found["differs"]:
        output.say(f"warning:    {found['differs']}")
    output.say("events:")
    for one in found["events"]:
        words = "  ".join(filter(None, [one["tournament"], one["text"], f"(by {one['by']})" if one["by"] else ""]))
        output.say(f"  {one['at'][:19]}  {one['event']:<22} {words}".rstrip())
    for one in found["tournaments"]:
        if one["state"] in ("running", "interrupted"):
            output.say(f"now:        {one['tournament']} is {one['state']}")
    if found["log"]:
        empty = "" if found["log"]["lines"] else "  (empty)"
        output.say(f"log:        {found['log']['path']}{empty}")
        for line in found["log"]["lines"]:
            output.say(f"  | {line}")
    for title, address in found["links"].items():
        output.say(f"{title}: {address}")
    output.document(found)
