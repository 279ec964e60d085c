"""A replica: all members of a champion in one process, computing one or a few batches at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

import numpy as np

from esci_tournament.deployments.scorer.compute.pairs import (
    HARMLESS,
    MemberBroken,
    NotAnswered,
    PageFailed,
    Pairs,
    frames_of,
)
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.families.protocol import Candidate

_SHORT = 10_000  # characters of a pair that is kept

Slice = tuple[Pairs, int, int]  # pairs of a request, from a row to before another
Answer = np.ndarray | NotAnswered  # float32 (n, 4) for the n pairs of a slice, or why there is none
Done = Callable[[list[Answer], float], None]  # called with an answer for each slice, and the seconds that they took


class Replica(Protocol):
    """The interface that the dispatcher gives batches to; used in the event loop's thread.

    Attributes:
        slots: batches that it computes at once.
        killable: whether :meth:`give_up` stops what it computes.
    """

    slots: int
    killable: bool

    @property
    def alive(self) -> bool:
        """Whether it can compute."""

    def send(self, member: str, slices: Sequence[Slice], done: Done) -> None:
        """Compute a batch, without waiting for it.

        Args:
            member: candidate id.
            slices: the pairs of the batch, by request.
            done: called in the event loop with an answer for each slice, in their order, and the seconds that it took.
        """

    def give_up(self) -> bool:
        """Stop what it computes because it takes too long.

        Returns:
            Whether that was possible; if not, answers may come later.
        """

    def end(self) -> None:
        """Compute nothing more, and release the members."""


Ended = Callable[[Replica, str], None]  # called with a replica that is gone, and why


class LocalReplica:
    """The members in this process, computing in threads.

    Args:
        candidates: candidate id -> fitted model.
        slots: batches that it computes at once.
        threads: torch threads for each of them.
        most_pairs: largest number of pairs that a model is given at once.
    """

    alive = True
    killable = False

    def __init__(self, candidates: Mapping[str, Candidate], slots: int, threads: int, most_pairs: int) -> None:
        self.candidates, self.slots, self._most_pairs = dict(candidates), slots, most_pairs
        self._judge = Judge()
        # A call that hangs keeps its thread, and its slot is given to another
        self._pool = ThreadPoolExecutor(slots + len(self.candidates), "member", _set_threads, (threads,))

    def send(self, member: str, slices: Sequence[Slice], done: Done) -> None:
        """Compute a batch in a thread. See :meth:`Replica.send`."""
        loop = asyncio.get_running_loop()
        candidate = self.candidates[member]

        def work() -> None:
            begun = time.monotonic()
            parts = [pairs.between(*rows) for pairs, *rows in slices]
            answers = self._judge.answers(member, candidate, parts, self._most_pairs)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done, answers, time.monotonic() - begun)

        self._pool.submit(work)

    def give_up(self) -> bool:
        """Return False: a thread cannot be stopped."""
        return False

    def end(self) -> None:
        """Cancel batches that have not begun, and let go of the models."""
        self.candidates = {}
        self._pool.shutdown(wait=False, cancel_futures=True)


def answers_of(candidate: Candidate, parts: Sequence[Pairs], most_pairs: int) -> list[Answer]:
    """Return a model's answers, computed together; when that fails, each part is computed by itself.

    Args:
        candidate: the model.
        parts: pairs of one or more requests.
        most_pairs: largest number of pairs that the model is given at once.

    Returns:
        For each part probabilities, float32 (pairs of the part, 4), or why there are none.
    """
    try:
        scores = scores_of(candidate, parts, most_pairs)
    except NotAnswered as error:
        if len(parts) > 1:
            return [answer for part in parts for answer in answers_of(candidate, [part], most_pairs)]
        return [error]
    bounds = np.cumsum([len(part) for part in parts])[:-1]
    return list(np.split(scores, bounds))


class Judge:
    """Tells pages that a model fails on from a model that fails.

    After a failure the model is asked about a harmless page, and, when it fails on that too, about a pair that it has
    had an answer for: some models cannot bear a page that is nearly empty.
    """

    def __init__(self) -> None:
        self._answered: dict[str, Pairs] = {}  # the newest short pair of each member that had an answer

    def answers(self, member: str, candidate: Candidate, parts: Sequence[Pairs], most_pairs: int) -> list[Answer]:
        """Return a model's answers. See :func:`answers_of`.

        Args:
            member: its candidate id.
            candidate: the model.
            parts: pairs of one or more requests.
            most_pairs: largest number of pairs that the model is given at once.

        Returns:
            The answers; those that failed as :class:`PageFailed` when another page has an answer, and as
            :class:`MemberBroken` when none has.
        """
        answers = answers_of(candidate, parts, most_pairs)
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, np.ndarray) and (pair := part.between(0, 1)).characters <= _SHORT:
                self._answered[member] = pair
        if not any(isinstance(answer, NotAnswered) for answer in answers):
            return answers
        known = [HARMLESS, *([self._answered[member]] if member in self._answered else [])]
        kind = PageFailed if any(_bears(candidate, page) for page in known) else MemberBroken
        return [kind(str(one)) if isinstance(one, NotAnswered) else one for one in answers]


def _bears(candidate: Candidate, page: Pairs) -> bool:
    try:
        scores_of(candidate, [page], len(page))
    except NotAnswered:
        return False
    return True


def scores_of(candidate: Candidate, parts: Sequence[Pairs], most_pairs: int) -> np.ndarray:
    """Return a model's probabilities, computed in this thread.

    Args:
        candidate: the model.
        parts: pairs of one or more requests, n in all.
        most_pairs: largest number of pairs that the model is given at once.

    Returns:
        float32 (n, 4), columns E, S, C, I, in the order of the parts.

    Raises:
        NotAnswered: if the model fails, or its answer is not finite or has another shape.
    """
    pairs, products = parts[0].frames if len(parts) == 1 else frames_of(parts)
    try:
        answers = [
            candidate.predict_proba(pairs.iloc[start : start + most_pairs], products)
            if len(pairs) > most_pairs
            else candidate.predict_proba(pairs, products)
            for start in range(0, len(pairs), most_pairs)
        ]
        answer = answers[0] if len(answers) == 1 else np.concatenate(answers)
    except BaseException as error:  # a model may raise anything; a panic of an extension is no Exception
        raise NotAnswered(f"{type(error).__name__}: {error}"[:500]) from error
    if answer.shape != (len(pairs), len(LABELS)) or not np.isfinite(answer).all():
        raise NotAnswered(f"its answer for {len(pairs)} pairs has shape {answer.shape} or is not finite")
    return np.asarray(answer, dtype=np.float32)


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
