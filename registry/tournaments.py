"""Which tournament a run belongs to: a new one, one that was interrupted, or one that has been held already."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from esci_tournament.registry.files import digest_of
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.records import Tournament
from esci_tournament.registry.reviews import champion_at
from esci_tournament.registry.sealing import of_record
from esci_tournament.registry.withdrawals import tried_candidates

State = Literal["new", "interrupted", "finished"]

# Settings that the outcome of a tournament depends on. All others say where things are, how fast they go or what
# happens around a tournament; changing one of them does not make it another tournament.
DECISIVE = frozenset(
    {
        "ensemble_name",
        "behaviour_cutoff",
        "bot_events",
        "behaviour_actions",
        "seed",
        "out_of_sample",
        "blend_share",
        "validation_share",
        "folds",
        "test_share",
        "candidate_memory_gib",
        "allowed_pyfunc_sources",
        "pyfunc_memory_gib",
        "pyfunc_timeout_s",
        "keep_score_files",
        "budget_memory_mib",
        "budget_latency_ms",
        "selection",
        "execution",
        "must_keep",
        "must_drop",
        "primary_metric",
        "required_gain",
        "alpha",
        "gain_metrics",
        "resamples",
        "guardrail_margin",
        "not_worse_margin",
        "cheaper_by",
        "minimum_test_queries",
        "inaugurate",
        "refit",
    }
)


@dataclass(frozen=True)
class Attempt:
    """A tournament that a run begins, goes on with or finds finished.

    Attributes:
        tournament: Its id, the same whenever the same tournament goes on.
        state: What the ledger knows of it.
        against: Sequence of the champion it meets, 0 for none; promotion compares and sets on it.
        champion: Ensemble version of that champion, None for none.
    """

    tournament: str
    state: State
    against: int
    champion: int | None


def tournament_digest(data_version: str, newcomers: list[list[str]], settings: dict[str, Any]) -> str:
    """Return the digest of what a tournament asks: its data, its newcomers and its decisive settings.

    Args:
        data_version: Digest of the data.
        newcomers: [candidate id, recipe digest] of each; their order does not matter.
        settings: Setting -> value, as JSON holds it; those that are not `DECISIVE` are left out.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> first = tournament_digest("v1", [["a/1", "x"], ["b/1", "y"]], {"seed": 0, "device": "cpu"})
        >>> first == tournament_digest("v1", [["b/1", "y"], ["a/1", "x"]], {"seed": 0, "device": "cuda"})
        True
    """
    return digest_of({"data": data_version, "newcomers": sorted(newcomers), "settings": _decisive(settings)})


def tournament_facts(recipes: dict[str, str], models: dict[str, list[str]], settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is recorded at the start of a tournament, so that a later one finds what was tried, and how.

    Args:
        recipes: Candidate id -> recipe digest of its scores.
        models: Candidate id -> [data version, roles] that its model was fitted on.
        settings: Setting -> value, as JSON holds it.

    Returns:
        `recipes`, `models`, and `settings`: the digest of the decisive ones.
    """
    return {"recipes": recipes, "models": models, "settings": digest_of(_decisive(settings))}


def find_tournament(ledger: Ledger, tournament: str) -> Tournament | None:
    """Return a tournament by its id, None when there is none."""
    return next((one for one in ledger.tournaments() if one.tournament == tournament), None)


def finished(ledger: Ledger) -> list[Tournament]:
    """Return the tournaments that ended with a verdict, in the order in which they ended."""
    rows = {one.tournament: one for one in ledger.tournaments()}
    return [rows[event.tournament] for event in ledger.events(kind="finished") if event.tournament in rows]


def held_before(ledger: Ledger, data_version: str, recipes: dict[str, str], settings: dict[str, Any]) -> Attempt | None:
    """Return the last finished tournament that has already given the result asked for.

    It had this data, these decisive settings, and all of these candidates with the same models among its entrants:
    whatever came of it, by verdict or by review, would come of it again.

    Args:
        ledger: The ledger with the tournaments.
        data_version: Digest of the data.
        recipes: Candidate id -> recipe digest of its scores.
        settings: Setting -> value, as JSON holds it.

    Returns:
        The tournament, None when there is none.
    """
    asked = digest_of(_decisive(settings))
    for tournament in reversed(finished(ledger)):
        known = tournament.payload.get("recipes", {})
        same = tournament.data_version == data_version and tournament.payload.get("settings") == asked
        if same and recipes.items() <= known.items():
            return _attempt(tournament, "finished")
    return None


def last_other_data(ledger: Ledger, data_version: str) -> str | None:
    """Return the data version of the last finished tournament, None when there is none or it is `data_version`."""
    last = finished(ledger)[-1:]
    return last[0].data_version if last and last[0].data_version != data_version else None


def model_of(ledger: Ledger, tournament: str, candidate: str) -> tuple[str, str] | None:
    """Return what an entrant's model in a tournament was fitted on.

    Args:
        ledger: The ledger with the tournament.
        tournament: Id of the tournament.
        candidate: Id of the entrant.

    Returns:
        Data version and roles; None when they are not on record.
    """
    row = find_tournament(ledger, tournament)
    found = row.payload.get("models", {}).get(candidate) if row else None
    return (found[0], found[1]) if found else None


def content_of(ledger: Ledger, tournament: str, candidate: str) -> str | None:
    """Return the digest of the files that an entrant's spec pointed to in a tournament; None when not on record."""
    row = find_tournament(ledger, tournament)
    found = row.payload.get("contents", {}).get(candidate) if row else None
    return None if found is None else str(found)


def metrics_of_champion(ledger: Ledger, ensemble: str, version: int) -> dict[str, Any]:
    """Return what the last finished tournament whose numbers are told measured of an ensemble version.

    The numbers of a test split are told where the challenger may serve; beside a sealed challenger's outcome, those of
    the champion would give it away.

    Args:
        ledger: The ledger with the verdicts.
        ensemble: Name of the ensemble.
        version: Its version.

    Returns:
        "tournament", "data_version", and "metrics" on its test split: scope ("all", a locale, "class E") -> metric ->
        value. {} when no tournament tells them.
    """
    return next(iter(published_metrics(ledger, ensemble, [version])[version]), {})


def published_metrics(ledger: Ledger, ensemble: str, versions: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """Return what finished tournaments whose numbers are told measured of ensemble versions.

    Args:
        ledger: The ledger with the verdicts.
        ensemble: Name of the ensemble.
        versions: Their numbers.

    Returns:
        Version -> one dict for each tournament, the newest first, as :func:`metrics_of_champion` returns it. In one
        tournament both sides were measured on the same test pairs.
    """
    built = {one.tournament: one.version for one in ledger.ensembles() if one.name == ensemble}
    found: dict[int, list[dict[str, Any]]] = {version: [] for version in versions}
    for tournament in reversed(finished(ledger)):
        name, facts = tournament.tournament, tournament.payload
        told: dict[int, dict[str, dict[str, float]]] = {}
        for verdict in ledger.verdicts(name):
            champion = facts.get("champion")
            if verdict.against != facts.get("against", verdict.against):  # judged again, against another champion
                champion = champion_at(ledger, ensemble, verdict.against)
            sides = {"challenger": built.get(name), "champion": champion}
            wanted = {side: version for side, version in sides.items() if version in found}
            for row in of_record(ledger, verdict)["metrics"] if wanted else ():
                for side, version in wanted.items():
                    if version is not None and row.get(side) is not None:
                        told.setdefault(version, {}).setdefault(row["scope"], {})[row["metric"]] = row[side]
        for version, metrics in told.items():
            found[version].append({"tournament": name, "data_version": tournament.data_version, "metrics": metrics})
    return found


def verdict_told(ledger: Ledger, tournament: str) -> dict[str, Any]:
    """Return the newest verdict on a tournament's challenger as it may be told: `id`, `outcome`, `reason`; {} for none.

    Args:
        ledger: The ledger with the verdicts.
        tournament: Id of the tournament.
    """
    newest = ledger.verdicts(tournament)[-1:]
    return {
        "id": newest[0].id, "outcome": newest[0].outcome,
        "reason": str(of_record(ledger, newest[0]).get("reason", "")),
    } if newest else {}  # fmt: skip


def _decisive(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in DECISIVE}


def find_attempt(ledger: Ledger, ensemble: str, question: str) -> Attempt:
    """Return the attempt that a run with this question belongs to.

    An interrupted one goes on if it still meets the champion it set out to meet, or has itself changed the champion
    since; a finished one stands if only itself, by review, has changed the champion since it ended. Else a new one
    begins against today's champion.

    Args:
        ledger: The ledger with the tournaments.
        ensemble: Name of the ensemble.
        question: Digest of what the run asks, as :func:`tournament_digest` returns it.

    Returns:
        The attempt; a new one is not recorded yet.
    """
    standing = ledger.standing(ensemble)
    same = [one for one in ledger.tournaments() if one.payload.get("question") == question]
    if same:
        last = same[-1]
        if ledger.tournament_state(last.tournament) == "finished":
            ended = ledger.events(last.tournament, "finished")[0]
            mine = _holds_title(ledger, ensemble, last.tournament)
            if ended.payload.get("sequence") == standing.sequence or mine:
                return _attempt(last, "finished")
        elif last.payload["against"] == standing.sequence or _holds_title(ledger, ensemble, last.tournament):
            return _attempt(last, "interrupted")
    champion = standing.champion
    return Attempt(
        tournament=f"t-{digest_of([question, standing.sequence])[:16]}",
        state="new",
        against=standing.sequence,
        champion=champion.version if champion else None,
    )


def tried(ledger: Ledger) -> set[str]:
    """Return the ids of the candidates that a finished tournament has tried, and that were not reinstated since."""
    with ledger.reading() as rows:
        return tried_candidates(rows)


def _attempt(row: Tournament, state: State) -> Attempt:
    return Attempt(row.tournament, state, row.payload["against"], row.payload["champion"])


def _holds_title(ledger: Ledger, ensemble: str, tournament: str) -> bool:
    chapters = ledger.history(ensemble)
    return bool(chapters) and chapters[-1].verdict is not None and chapters[-1].verdict.tournament == tournament
