"""From pairs to probabilities within a deadline: members are asked, and the answers that are there in time are used."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from esci_tournament.deployments.scorer.admission import Admission
from esci_tournament.deployments.scorer.champion import Combined, ServingChampion
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.deployments.scorer.compute.questions import Question
from esci_tournament.deployments.scorer.metrics import ScorerMetrics
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.ensemble.early_exit import EarlyExit

_CHECK_SECONDS = 60.0
# Of a page whose answer is still waited for after its deadline. The body of a request counts until it is answered, so
# these would not count any more, and whoever sends large pages with a short deadline could fill the memory.
_LATE_CHARACTERS = 2**20


@dataclass(frozen=True)
class Scored:
    """The outcome for n pairs.

    Attributes:
        combined: the probabilities; None when no member answered in time.
        members: candidate ids whose scores were used for at least one pair.
        missing: candidate ids whose scores were needed and are missing.
        early: bool (n,), pairs that were sure before every member was asked; None when early exit was not used.
        late: whether a member had neither answered nor failed when the time was up.
    """

    combined: Combined | None
    members: tuple[str, ...]
    missing: tuple[str, ...]
    early: np.ndarray | None = None
    late: bool = False


class Engine:
    """Asks the members of a champion, and combines their answers in threads; used in the event loop.

    Args:
        metrics: where it counts.
        admission: bounds the pairs that are under way.
        check_share: share of the pages with early exits, 0 to 1, whose early labels are compared with those of all
            members in the background.
    """

    def __init__(self, metrics: ScorerMetrics, admission: Admission, check_share: float = 0.0) -> None:
        self.metrics, self.admission, self._check_share = metrics, admission, check_share
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="aggregate")
        self._later: set[asyncio.Task[None]] = set()

    async def score(
        self,
        champion: ServingChampion,
        pairs: Pairs,
        until: float,
        *,
        contributions: bool = False,
        too_late: Callable[[Combined], None] = lambda combined: None,
    ) -> Scored:
        """Ask all members, and combine the answers that come before a deadline.

        Unless the queue is crowded, later answers are waited for in the background.

        Args:
            champion: the champion that is asked.
            pairs: the n pairs.
            until: the deadline, seconds of `time.monotonic`.
            contributions: whether the contributions of the members that answered are computed too.
            too_late: called with the whole ensemble's answer when it is complete only after the deadline.

        Returns:
            The outcome; its `early` is None.

        Raises:
            Overloaded: if too many pairs wait already.
        """
        self._enter(champion, pairs)
        questions: list[Question] = []
        try:
            questions = champion.dispatcher.ask(champion.names, pairs)
            late = await _wait(questions, until)
            scores = {one.member: one.scores for one in questions if one.scores is not None}
            combined = await self._combine(champion, scores, contributions)
        finally:
            self._end(champion, pairs, questions, too_late)
        heard = combined.members if combined is not None else ()
        return Scored(combined, heard, tuple(name for name in champion.names if name not in heard), late=late)

    async def label(self, champion: ServingChampion, pairs: Pairs, until: float) -> Scored:
        """Ask members in turn until each pair's label is sure; the probabilities are good enough for labels only.

        Without a rule of early exit all members are asked at once.

        Args:
            champion: the champion that is asked.
            pairs: the n pairs.
            until: the deadline, seconds of `time.monotonic`.

        Returns:
            The outcome; its `early` says which pairs were not given to every member.

        Raises:
            Overloaded: if too many pairs wait already.
        """
        rule = champion.early_exit
        if rule is None or not rule.on:
            return await self.score(champion, pairs, until)
        self._enter(champion, pairs)
        questions: list[Question] = []
        try:
            scored = await self._in_turn(champion, rule, pairs, until, questions)
        finally:
            self._end(champion, pairs, questions, lambda combined: None)
        early = scored.early
        if scored.combined is not None and early is not None and early.any() and self._wants_check():
            rows = np.flatnonzero(early)
            labels = scored.combined.labels[rows]
            self._background(self._check(champion, pairs.part(rows.tolist()), labels))
        return scored

    async def _in_turn(
        self, champion: ServingChampion, rule: EarlyExit, pairs: Pairs, until: float, questions: list[Question]
    ) -> Scored:
        found = np.zeros((len(pairs), len(LABELS)), dtype=np.float32)
        decision = np.zeros((len(pairs), len(LABELS)))
        early = np.zeros(len(pairs), dtype=bool)
        rows = np.arange(len(pairs))  # those that are not sure yet
        known: dict[str, np.ndarray] = {}
        heard_any = late = False
        for stage, names in champion.exit_stages:
            part = pairs if len(rows) == len(pairs) else pairs.part(rows.tolist())
            asked = champion.dispatcher.ask(names, part)
            questions += asked
            late |= await _wait(asked, until)
            known |= {one.member: one.scores for one in asked if one.scores is not None}
            combined = await self._combine(champion, known)
            if combined is not None:
                heard_any = True
                found[rows], decision[rows] = combined.probabilities, combined.decision
                if len(known) == stage:  # else a member is missing, and the thresholds do not apply to the others
                    sure = rule.sure(stage, combined.decision)
                    if stage < len(rule.order):
                        early[rows[sure]] = True
                        self.metrics.saved(rule.order[stage:], int(sure.sum()))
                    rows = rows[~sure]
                    known = {name: scores[~sure] for name, scores in known.items()}
            if not len(rows) or time.monotonic() >= until:
                break
        heard = tuple(one.member for one in questions if one.scores is not None)
        unheard = tuple(name for name in champion.names if name not in heard) if len(rows) else ()
        return Scored(Combined(found, decision, heard) if heard_any else None, heard, unheard, early, late)

    def close(self) -> None:
        """End the threads, and cancel what is under way in the background."""
        for task in self._later:
            if not task.get_loop().is_closed():  # with its loop it has ended already
                task.cancel()
        self._pool.shutdown(wait=False)

    def _enter(self, champion: ServingChampion, pairs: Pairs) -> None:
        self.admission.enter(len(pairs))
        self.metrics.queued_pairs.set(self.admission.pairs)
        champion.acquire()

    def _end(
        self,
        champion: ServingChampion,
        pairs: Pairs,
        questions: Sequence[Question],
        too_late: Callable[[Combined], None],
    ) -> None:
        if all(question.done for question in questions):
            self._leave(champion, pairs)
            return
        if self.admission.crowded or pairs.characters > _LATE_CHARACTERS:
            for question in questions:
                question.drop()
        else:
            champion.dispatcher.defer(questions)
        self._background(self._finish(champion, pairs, questions, too_late))

    async def _finish(
        self,
        champion: ServingChampion,
        pairs: Pairs,
        questions: Sequence[Question],
        too_late: Callable[[Combined], None],
    ) -> None:
        try:
            pending = [one.answer for one in questions if not one.done and not one.dropped]
            if pending:
                await asyncio.wait(pending)
            scores = {one.member: one.scores for one in questions if one.scores is not None}
            if len(scores) == len(champion.names) and all(len(each) == len(pairs) for each in scores.values()):
                combined = await self._combine(champion, scores)
                if combined is not None:
                    too_late(combined)
        finally:
            self._leave(champion, pairs)

    async def _check(self, champion: ServingChampion, pairs: Pairs, labels: np.ndarray) -> None:
        scored = await self.score(champion, pairs, time.monotonic() + _CHECK_SECONDS)
        if scored.combined is not None and not scored.missing:
            self.metrics.exit_checked.inc(len(labels))
            self.metrics.exit_differed.inc(int((scored.combined.labels != labels).sum()))

    def _wants_check(self) -> bool:
        return random.random() < self._check_share and not self.admission.crowded

    def _leave(self, champion: ServingChampion, pairs: Pairs) -> None:
        champion.release()
        self.admission.leave(len(pairs))
        self.metrics.queued_pairs.set(self.admission.pairs)

    def _background(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _combine(
        self, champion: ServingChampion, scores: Mapping[str, np.ndarray], contributions: bool = False
    ) -> Combined | None:
        if not scores:
            return None
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, champion.combine, scores, contributions)
        except NotAnswered:  # no aggregator is kept for so few
            return None


async def _wait(questions: Sequence[Question], until: float) -> bool:
    """Wait for answers; return whether any was late."""
    pending = [question.answer for question in questions if not question.done]
    if not pending:
        return False
    _, late = await asyncio.wait(pending, timeout=max(until - time.monotonic(), 0))
    return bool(late)
