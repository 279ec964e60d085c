"""Which verdicts wait for a reviewer, and until when. All of it follows from the ledger's rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.records import Decision, EnsembleRecord, Judged, Promotion, Review, VerdictRecord
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.validity import replay

NO_PERSON = "the verdict (no review in this run)"  # who decided, where no person was asked
CLOSED, REMINDED, RETRIED = "review_closed", "review_reminded", "review_retried"  # kinds of events, subject: verdict

State = Literal["waits", "approve", "refuse", "expired", "judged again"]


@dataclass(frozen=True)
class Case:
    """A verdict that asks for a promotion, and what reviewers did with it.

    Attributes:
        verdict: The verdict.
        ensemble: The challenger it is about, a registered version.
        reviews: The rounds in which reviewers were asked, oldest first.
        decision: What was decided, None while it waits.
        promotion: The promotion that came of it, None without one.
        superseded: Whether the challenger was judged again since, which is another case.
    """

    verdict: VerdictRecord
    ensemble: EnsembleRecord
    reviews: tuple[Review, ...]
    decision: Decision | None
    promotion: Promotion | None
    superseded: bool

    @property
    def id(self) -> int:
        """Number of the verdict."""
        return self.verdict.id

    @property
    def tournament(self) -> str:
        """Id of the tournament that built the challenger."""
        return self.verdict.tournament

    @property
    def is_inaugural(self) -> bool:
        """Whether it is about a first champion, for which there was none to compare with."""
        return self.verdict.outcome != "promote"

    @property
    def state(self) -> State:
        """`waits` without a decision, else its outcome; `judged again` when a newer verdict takes its place."""
        if self.decision is not None:
            if self.decision.outcome == "approve" and self.promotion is None and self.superseded:
                return "judged again"
            return self.decision.outcome  # type: ignore[return-value]
        return "judged again" if self.superseded else "waits"

    @property
    def opened_at(self) -> dt.datetime | None:
        """When reviewers were first asked (UTC), None before that: the deadline counts from then."""
        return self.reviews[0].at if self.reviews else None

    @property
    def flow_run(self) -> str | None:
        """Id of the flow run that waits for the answer, or waited; None when it was left to the command line."""
        return self.reviews[-1].payload.get("flow_run") if self.reviews else None

    def deadline(self, settings: Settings) -> dt.datetime | None:
        """Return the moment from which no answer counts as a refusal.

        Args:
            settings: `review_deadline_h`.

        Returns:
            The moment (UTC), None while no reviewer has been asked.
        """
        return self.opened_at and self.opened_at + dt.timedelta(hours=settings.review_deadline_h)


def cases(ledger: Ledger, ensemble: str) -> list[Case]:
    """Return every verdict of finished tournaments that asks for a promotion of `ensemble`, oldest first."""
    challengers = {one.tournament: one for one in ledger.ensembles() if one.name == ensemble}
    finished = {event.tournament for event in ledger.events(kind="finished")}
    decisions = {one.verdict: one for one in ledger.decisions()}
    promotions = {one.promotion.decision: one.promotion for one in ledger.history(ensemble) if not one.complaint}
    rounds: dict[int, list[Review]] = {}
    for review in ledger.reviews():
        rounds.setdefault(review.verdict, []).append(review)
    verdicts = [one for one in ledger.verdicts() if one.tournament in challengers]
    newest = {one.tournament: one.id for one in verdicts}
    found = []
    for verdict in verdicts:
        if verdict.tournament in finished and asks_for_promotion(verdict):
            decision = decisions.get(verdict.id)
            found.append(
                Case(
                    verdict,
                    challengers[verdict.tournament],
                    tuple(rounds.get(verdict.id, ())),
                    decision,
                    promotions.get(decision.id) if decision else None,
                    newest[verdict.tournament] != verdict.id,
                )
            )
    return found


def waiting(ledger: Ledger, ensemble: str) -> list[Case]:
    """Return the cases that are not decided yet, oldest first."""
    return [case for case in cases(ledger, ensemble) if case.state == "waits"]


def unsettled(ledger: Ledger, ensemble: str) -> list[Case]:
    """Return the cases whose decision, given by a reviewer, has not been carried out to its end, oldest first."""
    closed = {event.subject for event in ledger.events(kind=CLOSED)}
    decided = [case for case in cases(ledger, ensemble) if case.decision is not None]
    return [case for case in decided if "via" in case.decision.payload and str(case.id) not in closed]  # type: ignore[union-attr]


def find_case(ledger: Ledger, ensemble: str, name: str | int) -> Case:
    """Return the case of a verdict's number, or the newest one of a tournament.

    Args:
        ledger: The ledger with the verdicts.
        ensemble: Name of the ensemble.
        name: Number of the verdict, or id of the tournament.

    Returns:
        The case, decided or not.

    Raises:
        NotFoundError: If there is no such verdict or tournament, or it never asked for a promotion.
    """
    wanted = str(name)
    found = [case for case in cases(ledger, ensemble) if wanted in (str(case.id), case.tournament)]
    if found:
        return found[-1]
    if wanted.isdigit():
        verdict = ledger.verdict(int(wanted))
        state = ledger.tournament_state(verdict.tournament)
        raise NotFoundError(
            f"verdict {wanted} ({verdict.outcome}, tournament {verdict.tournament}, which is {state}) is not one to be "
            "decided: only the verdict of a finished tournament whose challenger was registered is"
        )
    raise NotFoundError(f"no verdict {wanted!r} asks for a decision; `tournament review list` shows those that do")


def asks_for_promotion(verdict: VerdictRecord) -> bool:
    """Return whether a verdict on a registered challenger is promote, or lacks only a champion to compare with."""
    return verdict.outcome == "promote" or "champion" in verdict.payload.get("missing", ())


def champion_at(ledger: Ledger, ensemble: str, sequence: int) -> int | None:
    """Return the version that was champion after the change `sequence`, None when there was none."""
    chapters = [Judged(one.promotion, one.complaint) for one in ledger.history(ensemble)]
    champion = replay(ensemble, (one for one in chapters if one.promotion.sequence <= sequence)).champion
    return champion.version if champion else None


def verdicts_that_ask(ledger: Ledger, tournaments: Collection[str]) -> list[VerdictRecord]:
    """Return the verdicts of some tournaments that ask for a promotion, oldest first."""
    return [one for one in ledger.verdicts() if one.tournament in tournaments and asks_for_promotion(one)]


def check_outcome(outcome: str) -> None:
    """Check that a reviewer's outcome is one; `expired` is recorded by the product alone.

    Args:
        outcome: approve or refuse.

    Raises:
        UsageError: If it is neither.
    """
    if outcome not in ("approve", "refuse"):
        raise UsageError(f"decision {outcome!r}; a reviewer says approve or refuse")
