"""Questions to a champion's members, and the queue of each member."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from esci_tournament.deployments.scorer.compute.breaker import Breaker
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.deployments.scorer.compute.replica import Answer
from esci_tournament.registry.labels import LABELS

_SMOOTHING = 0.2  # weight of the newest batch in a member's seconds a pair


@dataclass(eq=False)
class Question:
    """A question to one member: the scores of n pairs.

    Attributes:
        member: candidate id.
        pairs: the pairs, of one request.
        order: number of the request, growing; all members are asked in this order.
        answer: future of the probabilities, float32 (n, 4), or of a :class:`NotAnswered` as its result; it never has an
            exception.
        todo: rows that no replica has been given yet, each as start and end (exclusive).
        dropped: whether the answer is no longer needed.
        late: whether its request has ended without it; the answer is kept as a label for the next one.
        deaths: number of replicas that died while they computed it.
    """

    member: str
    pairs: Pairs
    order: int
    answer: asyncio.Future[Answer]
    todo: deque[tuple[int, int]]
    dropped: bool = False
    late: bool = False
    deaths: int = 0
    _scores: np.ndarray = field(init=False)
    _left: int = field(init=False)

    def __post_init__(self) -> None:
        self._scores, self._left = np.empty((len(self.pairs), len(LABELS)), dtype=np.float32), len(self.pairs)

    @property
    def done(self) -> bool:
        """Whether there is an answer, or it has failed."""
        return self.answer.done()

    @property
    def scores(self) -> np.ndarray | None:
        """The probabilities, float32 (n, 4); None while there is no answer, or when it has failed."""
        found = self.answer.result() if self.answer.done() else None
        return found if isinstance(found, np.ndarray) else None

    @property
    def waiting(self) -> int:
        """Number of pairs that wait for a replica, 0 when it is dropped."""
        return 0 if self.dropped else sum(stop - start for start, stop in self.todo)

    def drop(self) -> None:
        """Send no more of its pairs to a replica, because the answer is no longer needed."""
        self.dropped = True

    def fill(self, start: int, stop: int, scores: np.ndarray) -> None:
        """Add the scores of some rows; when all rows have theirs, the question is answered.

        Args:
            start: first row.
            stop: row after the last one.
            scores: float32 (stop - start, 4).
        """
        self._scores[start:stop] = scores
        self._left -= stop - start
        if not self._left:
            self._say(self._scores)

    def fail(self, reason: NotAnswered) -> None:
        """Answer the question with a failure.

        Args:
            reason: why there are no scores.
        """
        self.drop()
        self._say(reason)

    def _say(self, answer: Answer) -> None:
        # The request may have ended, and its event loop with it
        if not self.answer.done() and not self.answer.get_loop().is_closed():
            self.answer.set_result(answer)


@dataclass
class Member:
    """A member of the champion, as the dispatcher sees it.

    Attributes:
        name: candidate id.
        breaker: its circuit breaker.
        queue: questions that wait for it, oldest first.
        late: questions that wait and whose request has ended; they are computed when nothing else waits.
        suspects: questions that a replica has died or hung of, maybe because of another question; each is computed
            alone, and one at a time.
        seconds_a_pair: smoothed time that a replica takes for a pair, seconds; None before the first batch.
    """

    name: str
    breaker: Breaker
    queue: deque[Question] = field(default_factory=deque)
    late: deque[Question] = field(default_factory=deque)
    suspects: deque[Question] = field(default_factory=deque)
    seconds_a_pair: float | None = None

    @property
    def line(self) -> deque[Question]:
        """The questions that are computed next: those of requests that wait, else the late ones."""
        return self.queue or self.late

    @property
    def waiting(self) -> int:
        """Number of pairs in :attr:`line` that wait for a replica."""
        return sum(question.waiting for question in self.line)

    @property
    def lines(self) -> tuple[deque[Question], ...]:
        """All lines that questions wait in."""
        return self.queue, self.late, self.suspects

    def put(self, question: Question, first: bool = False) -> None:
        """Let a question wait, at the end of its line or as the first; it leaves the one that it stood in."""
        for other in self.lines:
            if question in other:
                other.remove(question)
        line = self.suspects if question.deaths else self.late if question.late else self.queue
        (line.appendleft if first else line.append)(question)

    @property
    def expected_seconds(self) -> float:
        """Expected time in which a replica computes all that waits, seconds."""
        return self.seconds_for(self.waiting)

    def seconds_for(self, pairs: int) -> float:
        """Return the expected time in which a replica computes `pairs` pairs, seconds; 0 before the first batch."""
        return (self.seconds_a_pair or 0.0) * pairs

    def learn(self, seconds: float, pairs: int) -> None:
        """Update :attr:`seconds_a_pair` by a batch: an exponential moving average with weight 0.2 for the new value.

        Args:
            seconds: time of the batch, seconds.
            pairs: pairs in it.

        Example:
            >>> member = Member("minilm/1", Breaker(failures=3, retry_s=15.0))
            >>> member.learn(1.0, 100)
            >>> member.learn(2.0, 100)
            >>> round(member.seconds_for(100), 3)
            1.2
        """
        newest = seconds / max(pairs, 1)
        known = self.seconds_a_pair
        self.seconds_a_pair = newest if known is None else known + _SMOOTHING * (newest - known)
