"""Judge a challenger again, on the same data, because another champion was installed since its verdict.

Nothing is trained: the scores of both sides are in the score store, or the verdict says whose are not.
"""

from __future__ import annotations

from typing import Any

from esci_tournament.flows.competition import pairs_of
from esci_tournament.flows.held import Held, Roles, Source
from esci_tournament.flows.looks import looks_before
from esci_tournament.flows.roster import incumbent
from esci_tournament.registry.errors import BudgetError, CandidateError, LeakError, NotFoundError
from esci_tournament.registry.records import Standing, VerdictRecord
from esci_tournament.registry.reviews import Case
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tournaments import DECISIVE, Attempt
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.store import digest_of_test
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.ensemble.scores import MemberScores
from esci_tournament.tasks.ensemble.trial import Side, Trial, hold_trial, total_cost

Facts = dict[str, Any]


def what_judging_takes(workspace: Workspace, held: Held, costs: dict[str, Cost]) -> Facts:
    """Return what it takes to judge the challenger of a tournament again; it stands in the ledger with the ensemble."""
    return {
        "data": held.source.version,
        "load": held.source.folder.name,
        "roles": held.roles.key,
        "judged": held.judged_roles.key,
        "recipes": {one.id: one.bout.recipe() for one in held.entrants},
        "costs": {name: [cost.memory_mib, cost.milliseconds, cost.kind] for name, cost in costs.items()},
        "settings": workspace.settings.model_dump(mode="json", include=set(DECISIVE)),
    }


def judge_again(workspace: Workspace, case: Case) -> VerdictRecord:
    """Judge the challenger of `case` against today's champion; the look is on record before it is taken.

    Returns:
        The new verdict, recorded; its payload says under "judged_again" which verdict it follows. Not-evaluable when
        scores of one side are not there: it says what to do about that.

    Raises:
        NotFoundError: if there is no champion at all.
    """
    standing = workspace.ledger.standing(case.ensemble.name)
    if standing.champion is None:
        raise NotFoundError(f"{case.ensemble.name} has no champion to judge {case.ensemble.version} against")
    champion = workspace.models.ensemble(standing.champion.version)
    told = {"judged_again": {"verdict": case.id, "champion": champion.version}}
    try:
        verdict = _hold(workspace, case, standing, champion).verdict
    except (NotFoundError, LeakError, CandidateError) as missing:
        content: Facts = {"outcome": "not_evaluable", "missing": ["scores"], "checks": [], "metrics": []}
        content["reason"] = (
            f"the champion is version {champion.version} now, and the challenger cannot be judged against it: {missing}"
        )
        return workspace.ledger.record_verdict(case.tournament, "not-evaluable", content | told, standing.sequence)
    outcome = verdict.outcome.replace("_", "-")
    return workspace.ledger.record_verdict(case.tournament, outcome, verdict.to_dict() | told, standing.sequence)


def _hold(workspace: Workspace, case: Case, standing: Standing, champion: EnsembleVersion) -> Trial:
    facts = case.ensemble.payload
    if "recipes" not in facts:
        raise NotFoundError("its tournament was held before this was kept; hold a new one")
    settings = _settings(workspace, facts)
    held = _held(workspace, case, standing, facts)
    challenger = workspace.models.ensemble(case.ensemble.version)
    sides = [Aggregator.load(workspace.models.download(one) / "aggregator") for one in (challenger, champion)]
    recipes = _recipes(workspace, held, champion, settings) | facts["recipes"]
    wanted = dict.fromkeys([*sides[0].members, *sides[1].members])
    scores = [_scores(workspace, member, facts["data"], recipes[member]) for member in wanted]
    pairs = pairs_of(held, learns=False)
    costs = _costs(workspace, champion) | _as_costs(facts["costs"])
    looks = looks_before(workspace, held, pairs)
    workspace.ledger.record_look(digest_of_test(pairs), case.tournament, standing.sequence)
    ours, theirs = (Side(side, _total(side.members, costs, settings)) for side in sides)
    return hold_trial(pairs, scores, ours, theirs, looks, settings)


def _held(workspace: Workspace, case: Case, standing: Standing, facts: Facts) -> Held:
    folders = {name: workspace.stages.find(facts[name]) for name in ("load", "roles", "judged")}
    load, roles, judged = folders["load"], folders["roles"], folders["judged"]
    if load is None or roles is None or judged is None:
        raise NotFoundError("its data is not in the stage store of this home any more; hold a new tournament")
    attempt = Attempt(case.tournament, "finished", standing.sequence, None)
    source = Source(load, facts["data"], load)
    return Held(attempt, source, Roles(roles, facts["roles"]), judged=Roles(judged, facts["judged"]))


def _settings(workspace: Workspace, facts: Facts) -> Settings:
    """Return today's settings with those that decided the tournament put back."""
    known = {name: value for name, value in facts["settings"].items() if name in Settings.model_fields}
    return Settings(**{**workspace.settings.model_dump(mode="json"), **known})


def _recipes(workspace: Workspace, held: Held, champion: EnsembleVersion, settings: Settings) -> dict[str, str]:
    """Return under which recipe the scores of the champion's members on the tournament's data are kept."""
    theirs = _facts_of(workspace, champion)
    if (theirs.get("data"), theirs.get("roles")) == (held.source.version, held.roles.key):
        return {member: theirs["recipes"][member] for member in champion.members}
    there = Workspace(settings)
    members = [incumbent(there, held.source, held.roles, member, champion) for member in champion.members]
    return {one.id: one.bout.recipe() for one in members}


def _scores(workspace: Workspace, member: str, data: str, recipe: str) -> MemberScores:
    try:
        stored = workspace.scores.get(member, data, recipe)
    except NotFoundError:
        raise NotFoundError(
            f"{member} has no scores on data version {data[:12]}; hold a new tournament on that data, it scores both"
        ) from None
    return MemberScores(member, stored.example_id, stored.probabilities, stored.out_of_sample)


def _facts_of(workspace: Workspace, champion: EnsembleVersion) -> Facts:
    found = [one for one in workspace.ledger.ensembles(champion.tournament) if one.version == champion.version]
    return found[0].payload if champion.tournament and found else {}


def _costs(workspace: Workspace, champion: EnsembleVersion) -> dict[str, Cost]:
    return _as_costs(_facts_of(workspace, champion).get("costs", {}))


def _as_costs(stored: dict[str, list[Any]]) -> dict[str, Cost]:
    return {name: Cost(*values) for name, values in stored.items()}


def _total(members: tuple[str, ...], costs: dict[str, Cost], settings: Settings) -> Cost | None:
    """Return what a side costs, None where that is not known, or was measured on two kinds of device."""
    try:
        return total_cost(members, costs, Budget.of(settings))
    except BudgetError:
        return None
