"""Judge a challenger again, on the same data, because another champion was installed since its verdict.

Nothing is trained: the scores of both sides are in the score store, or the verdict says which are missing.
"""

from __future__ import annotations

from typing import Any

from esci_tournament.flows.context import Roles, Source, TournamentContext
from esci_tournament.flows.judging import Facts, champion_side, judge_and_record, recipes_of, scores_of
from esci_tournament.flows.roster import incumbent
from esci_tournament.registry.errors import BudgetError, CandidateError, LeakError, NotFoundError
from esci_tournament.registry.records import Standing, VerdictRecord
from esci_tournament.registry.reviews import Case
from esci_tournament.registry.roll import recorded_facts
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.ensemble.budget import Cost
from esci_tournament.tasks.ensemble.scores import MemberScores
from esci_tournament.tasks.ensemble.trial import Side


def judge_again(workspace: Workspace, case: Case) -> VerdictRecord:
    """Judge the challenger of `case` against today's champion; the look is recorded before it is taken.

    Args:
        workspace: Settings and stores.
        case: The case whose challenger was approved.

    Returns:
        The new verdict, recorded; its payload says under "judged_again" which verdict it follows. Not-evaluable when
        scores of one side are not there: it says what to do about that.

    Raises:
        NotFoundError: If there is no champion at all.
    """
    standing = workspace.ledger.standing(case.ensemble.name)
    if standing.champion is None:
        raise NotFoundError(f"{case.ensemble.name} has no champion to judge {case.ensemble.version} against")
    champion = workspace.roll.ensemble(standing.champion.version)
    told = {"judged_again": {"verdict": case.id, "champion": champion.version}}
    try:
        return _judge(workspace, case, standing, champion, told)
    except (NotFoundError, LeakError, CandidateError) as missing:
        content: Facts = {"outcome": "not_evaluable", "missing": ["scores"], "checks": [], "metrics": []}
        content["reason"] = (
            f"the champion is version {champion.version} now, and the challenger cannot be judged against it: {missing}"
        )
        return workspace.ledger.record_verdict(case.tournament, "not-evaluable", content | told, standing.sequence)


def _judge(
    workspace: Workspace, case: Case, standing: Standing, champion: EnsembleVersion, told: Facts
) -> VerdictRecord:
    facts = case.ensemble.payload
    if "recipes" not in facts:
        raise NotFoundError("its tournament was held before this was kept; hold a new one")
    settings = _settings(workspace, facts)
    context = _held(workspace, case, standing, facts)
    costs = _costs(workspace, champion) | _as_costs(facts["costs"])
    challenger = workspace.roll.ensemble(case.ensemble.version)
    ours, theirs = (_side(workspace, one, costs, settings) for one in (challenger, champion))
    recipes = _recipes(workspace, context, champion, settings) | facts["recipes"]
    single = facts.get("best_alone")
    wanted = dict.fromkeys([*ours.aggregator.members, *theirs.aggregator.members, *([single] if single else [])])
    scores = [_scores(workspace, member, facts["data"], recipes[member]) for member in wanted]
    return judge_and_record(workspace, context, scores, ours, theirs, settings, told, single, champion)[1]


def _side(workspace: Workspace, version: EnsembleVersion, costs: dict[str, Cost], settings: Settings) -> Side:
    try:
        return champion_side(workspace, version, costs, settings)
    except BudgetError:  # measured on two kinds of device: what it costs is not known
        return champion_side(workspace, version, {}, settings)


def _held(workspace: Workspace, case: Case, standing: Standing, facts: Facts) -> TournamentContext:
    folders = {name: workspace.stages.sound(facts[name]) for name in ("load", "roles", "judged")}
    load, roles, judged = folders["load"], folders["roles"], folders["judged"]
    if load is None or roles is None or judged is None:
        raise NotFoundError("its data is not in the stage store of this home any more; hold a new tournament")
    attempt = Attempt(case.tournament, "finished", standing.sequence, None)
    source = Source(load, facts["data"], load)
    return TournamentContext(attempt, source, Roles(roles, facts["roles"]), judged=Roles(judged, facts["judged"]))


def _settings(workspace: Workspace, facts: Facts) -> Settings:
    """Return today's settings with those that decided the tournament put back."""
    known = {name: value for name, value in facts["settings"].items() if name in Settings.model_fields}
    return Settings(**{**workspace.settings.model_dump(mode="json"), **known})


def _recipes(
    workspace: Workspace, context: TournamentContext, champion: EnsembleVersion, settings: Settings
) -> dict[str, str]:
    """Return under which recipe the scores of the champion's members on the tournament's data are kept."""
    theirs = recorded_facts(workspace.ledger, champion)
    if (theirs.get("data"), theirs.get("roles")) == (context.source.version, context.roles.key):
        return {member: theirs["recipes"][member] for member in champion.members}
    there = Workspace(settings)
    return recipes_of(incumbent(there, context.source, context.roles, one, champion) for one in champion.members)


def _scores(workspace: Workspace, member: str, data: str, recipe: str) -> MemberScores:
    try:
        (found,) = scores_of(workspace, data, {member: recipe})
    except NotFoundError:
        raise NotFoundError(
            f"{member} has no scores on data version {data[:12]}; hold a new tournament on that data, it scores both"
        ) from None
    return found


def _costs(workspace: Workspace, champion: EnsembleVersion) -> dict[str, Cost]:
    return _as_costs(recorded_facts(workspace.ledger, champion).get("costs", {}))


def _as_costs(stored: dict[str, list[Any]]) -> dict[str, Cost]:
    return {name: Cost(*values) for name, values in stored.items()}
