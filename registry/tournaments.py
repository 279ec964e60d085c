"""Which tournament a run belongs to: a new one, one that was interrupted, or one that has been held already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from registry.files import digest_of
from registry.ledger import Ledger
from registry.records import Tournament

State = Literal["new", "interrupted", "finished"]

# Settings that say where things are or how fast they go, and nothing about the outcome.
_INDIFFERENT = {"home", "mlflow_uri", "ledger_url", "device", "workers", "candidate_timeout_s"}


@dataclass(frozen=True)
class Attempt:
    """One attempt at the title.

    Attributes:
        tournament: id, the same whenever the same tournament goes on.
        state: what the ledger knows of it.
        against: sequence of the champion it meets, 0 for none; promotion compares and sets on it.
        champion: ensemble version of that champion, None for none.
    """

    tournament: str
    state: State
    against: int
    champion: int | None


def question_of(data_version: str, newcomers: list[list[str]], settings: dict[str, Any]) -> str:
    """Return the digest of what a tournament asks: on this data, with these settings, are the newcomers any good?

    Args:
        data_version: version of the data.
        newcomers: candidate id, recipe digest of each.
        settings: JSON-able settings; those that cannot change the outcome are left out.
    """
    matters = {name: value for name, value in settings.items() if name not in _INDIFFERENT}
    return digest_of({"data": data_version, "newcomers": sorted(newcomers), "settings": matters})


def find_attempt(ledger: Ledger, ensemble: str, question: str) -> Attempt:
    """Return the attempt that a run with this question belongs to.

    An interrupted one goes on if it still meets the champion it set out to meet, or has itself moved the title since;
    a finished one stands if nobody has moved the title since it ended. Else a new one begins against today's champion.
    """
    standing = ledger.standing(ensemble)
    same = [one for one in ledger.tournaments() if one.payload.get("question") == question]
    if same:
        last = same[-1]
        if ledger.tournament_state(last.tournament) == "finished":
            ended = ledger.events(last.tournament, "finished")[0]
            if ended.payload.get("sequence") == standing.sequence:
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


def untried(ledger: Ledger) -> set[str]:
    """Return the ids of candidates that no finished tournament has tried, of those that the ledger knows."""
    finished = {one.tournament for one in ledger.events(kind="finished")}
    tried = {entry.candidate for entry in ledger.entries() if entry.tournament in finished}
    return {one.candidate for one in ledger.candidates()} - tried


def _attempt(row: Tournament, state: State) -> Attempt:
    return Attempt(row.tournament, state, row.payload["against"], row.payload["champion"])


def _holds_title(ledger: Ledger, ensemble: str, tournament: str) -> bool:
    chapters = ledger.history(ensemble)
    return bool(chapters) and chapters[-1].verdict is not None and chapters[-1].verdict.tournament == tournament
