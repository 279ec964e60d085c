"""A champion that is loaded and ready to serve: its members' replicas, its aggregators, and how many use it."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from esci_tournament.deployments.scorer.catalogue import ProductCatalogue
from esci_tournament.deployments.scorer.compute.dispatcher import BatchDispatcher, ServingContext
from esci_tournament.deployments.scorer.compute.fleet import Fleet
from esci_tournament.deployments.scorer.compute.pairs import NotAnswered, Pairs
from esci_tournament.deployments.scorer.compute.questions import Member
from esci_tournament.deployments.scorer.compute.replica import Replica
from esci_tournament.registry.errors import NotFoundError, TournamentError
from esci_tournament.registry.foreign import read_json
from esci_tournament.tasks.ensemble.aggregate import Aggregator
from esci_tournament.tasks.ensemble.attribution import Forest, attribute, tabulate
from esci_tournament.tasks.ensemble.early_exit import FILE as EXIT_FILE
from esci_tournament.tasks.ensemble.early_exit import EarlyExit
from esci_tournament.tasks.ensemble.ensemble import AGGREGATOR, member_folders
from esci_tournament.tasks.ensemble.equipment import SUBSETS
from esci_tournament.tasks.ensemble.subsets import Subsets

_log = logging.getLogger("scorer")
_MAKE_ANEW = "let a tournament make the ensemble anew"
_AGAIN_SECONDS = (
    0.0,
    1.0,
    2.0,
    5.0,
    15.0,
    30.0,
)  # pauses before a lost replica is replaced, the last for all that follow
_STEADY_SECONDS = 60.0  # after this time without a loss, the next lost replica is replaced at once


@dataclass(frozen=True)
class Card:
    """The identity of a champion: which ensemble, and which data it knows.

    Attributes:
        name: name of the registered model.
        version: its version.
        tournament: id of the tournament that built it.
        data_version: version of the data whose products it knows.
        members: candidate ids (`name/version`).
        refreshed: whether `data_version` is newer than the tournament's data.
        edges: version of newer data whose edges its graph networks use since they were fitted, "" for none.
        manifest: digest of the manifest that was approved, "" for a champion from before manifests were kept.
        content: digest of the manifest of this copy's own files when it is refreshed, else "".

    Example:
        >>> card = Card("esci-ensemble", 3, "t-1", "0123456789abcdef", ("minilm/1",))
        >>> card.id, Card.from_json(card.to_json()) == card
        ('esci-ensemble/3', True)
    """

    name: str
    version: int
    tournament: str
    data_version: str
    members: tuple[str, ...]
    refreshed: bool = False
    edges: str = ""
    manifest: str = ""
    content: str = ""

    @property
    def id(self) -> str:
        """Name and version, `name/version`."""
        return f"{self.name}/{self.version}"

    @property
    def title(self) -> str:
        """The id, followed by the data's version when it is refreshed."""
        return f"{self.id} with data {self.data_version[:12]}" if self.refreshed else self.id

    @cached_property
    def number(self) -> int:
        """The champion's part of the label cache's keys, 0 to 2**64 - 1: from name, version, tournament and edges.

        The tournament is part of it because another registry may have the same name and version.
        """
        facts = [self.name, str(self.version), self.tournament, *([self.edges] if self.edges else [])]
        content = "\x1f".join(facts).encode()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")

    def to_json(self) -> str:
        """Return the card as a JSON document."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the card in a document of :meth:`to_json`.

        Raises:
            ValueError: if it is not JSON; likewise KeyError and TypeError, if keys are missing or unknown.
        """
        content = read_json(text)
        return cls(**{**content, "members": tuple(content["members"])})


@dataclass(frozen=True)
class Combined:
    """The aggregator's answer for n pairs.

    Attributes:
        probabilities: float32 (n, 4), columns E, S, C, I.
        decision: float64 (n, 4), decision scores: the class with the largest is the label, which is not always the most
            probable one.
        members: candidate ids of the k members whose scores it used.
        contributions: float64 (n, 4, k), what each member added to each raw score; None unless asked for.
        base: float64 (4,), the expected raw scores; None unless asked for.
    """

    probabilities: np.ndarray
    decision: np.ndarray
    members: tuple[str, ...]
    contributions: np.ndarray | None = None
    base: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """Index into E, S, C, I of each pair's label, int64 (n,)."""
        return self.decision.argmax(axis=1)


class ServingChampion:
    """A loaded ensemble that answers requests; used in the event loop's thread unless a method says otherwise.

    Use it between :meth:`acquire` and :meth:`release`: once it is retired, it closes when the last request that uses it
    has its answer.

    Args:
        card: which ensemble it is.
        names: candidate ids of the members, in the aggregator's order.
        fleet: makes the replicas in which the members compute.
        subsets: the aggregators, of all members and of those subsets that may answer without the others.
        early_exit: the rule by which members need not be asked, None when the ensemble has none.
        catalogue: products that requests name by id.
        shared: settings, metrics and the count of arriving requests.

    Attributes:
        exit_stages: the stages of early exit, see :func:`stages_of`; empty without a rule.
        since: when it was made, UTC.
        closed: set when it has closed.
    """

    def __init__(
        self,
        card: Card,
        names: Sequence[str],
        fleet: Fleet,
        subsets: Subsets,
        early_exit: EarlyExit | None,
        catalogue: ProductCatalogue,
        shared: ServingContext,
    ) -> None:
        self.card, self.catalogue, self.subsets, self.early_exit = card, catalogue, subsets, early_exit
        self.exit_stages = stages_of(early_exit) if early_exit else []
        self.since = dt.datetime.now(dt.UTC)
        self.fleet = fleet
        self.dispatcher = BatchDispatcher(names, shared, self._lost)
        self._metrics = shared.metrics
        self._forests: dict[tuple[str, ...], Forest] = {}
        self._tabulating = threading.Lock()
        self._uses, self._retired = 0, False
        self._losses, self._lost_at = 0, 0.0
        self._replacing: set[asyncio.Task[None]] = set()
        self.closed = threading.Event()

    @classmethod
    def load(
        cls, folder: Path, card: Card, catalogue: ProductCatalogue, fleet: Fleet, shared: ServingContext
    ) -> ServingChampion:
        """Load the aggregators of the ensemble in a folder; no replica computes yet. Called outside the event loop.

        Args:
            folder: the ensemble, as `write_ensemble` wrote it.
            card: which ensemble it is.
            catalogue: products that requests name by id.
            fleet: makes the replicas in which the members compute.
            shared: settings, metrics and the count of arriving requests.

        Returns:
            The champion; :meth:`recruit` gives it its first replica.

        Raises:
            TournamentError: if a file is missing or damaged, or the members are not those that the aggregator knows.
        """
        names, aggregator = tuple(member_folders(folder)), Aggregator.load(folder / AGGREGATOR)
        if names != aggregator.members:
            raise TournamentError(
                f"{folder} holds the members {', '.join(names)} and an aggregator of "
                f"{', '.join(aggregator.members)}; {_MAKE_ANEW}"
            )
        subsets, early_exit = Subsets.load(folder / SUBSETS, aggregator), None
        if (folder / EXIT_FILE).is_file():
            early_exit = EarlyExit.load(folder, shared.settings.early_exit_risk)
            if sorted(early_exit.order) != sorted(names):
                raise TournamentError(f"{folder}: early exit is about {', '.join(early_exit.order)}; {_MAKE_ANEW}")
        return cls(card, names, fleet, subsets, early_exit, catalogue, shared)

    @property
    def names(self) -> tuple[str, ...]:
        """Candidate ids of the members, in the aggregator's order."""
        return tuple(self.dispatcher.members)

    @property
    def members(self) -> dict[str, Member]:
        """Candidate id -> the member's queue and circuit breaker."""
        return self.dispatcher.members

    @property
    def usable(self) -> bool:
        """Whether there is a replica, and a member that is not fenced off."""
        fenced = all(member.breaker.fenced for member in self.members.values())
        return bool(self.dispatcher.replicas) and not fenced

    def combine(self, scores: Mapping[str, np.ndarray], contributions: bool = False) -> Combined:
        """Combine members' scores by the aggregator of those members. May be called from any thread.

        Args:
            scores: candidate id -> probabilities, float32 (n, 4), of the members that answered.
            contributions: whether the members' contributions are computed too.

        Returns:
            The answer of the largest subset of these members that has an aggregator.

        Raises:
            NotAnswered: if there is no aggregator for so few members.
        """
        try:
            aggregator, members = self.subsets.best(scores)
        except NotFoundError as error:
            raise NotAnswered(str(error)) from error
        columns = np.stack([scores[name] for name in members], axis=1)
        probabilities = aggregator.predict_proba(columns)
        decision = aggregator.decision_scores(probabilities)
        if not contributions:
            return Combined(probabilities, decision, members)
        values, base = attribute(aggregator, columns, threads=1, forest=self._forest(aggregator))
        return Combined(probabilities, decision, members, values, base)

    async def recruit(self, patient: bool = False) -> Replica:
        """Start one more replica and let it compute.

        Args:
            patient: whether it has a low priority, so that it gives way to everything else on the machine.

        Returns:
            The replica.

        Raises:
            TournamentError: if it does not start.
        """
        replica = await self.fleet.replica(self.dispatcher.ended, patient)
        self.dispatcher.attach(replica)
        self._show()
        return replica

    async def start_replicas(self, replicas: Sequence[Replica], page: Pairs, seconds: float) -> None:
        """Replace replicas by as many new ones as the fleet should have, each of them warm.

        Args:
            replicas: those that end first.
            page: pairs that each new replica scores before the next one is started.
            seconds: time limit for that page.

        Raises:
            TournamentError: if a replica does not start, or a member fails or is late.
        """
        for replica in replicas:
            self.dispatcher.detach(replica)
        fresh = []
        for _ in range(self.fleet.size):
            fresh.append(await self.recruit())
            await self.scores(page, seconds)
            self.dispatcher.withdraw(fresh[-1])
        for replica in fresh:
            self.dispatcher.attach(replica)
        self._show()

    def try_out(self, scores: Mapping[str, np.ndarray]) -> None:
        """Run every aggregator once, and check the results. May be called from any thread.

        Args:
            scores: candidate id -> probabilities, float32 (n, 4), of every member.

        Raises:
            TournamentError: if the answer of a member is not probabilities, or that of the aggregator is not finite.
        """
        for name, answer in scores.items():
            if np.abs(answer.sum(axis=1) - 1).max() > 1e-3 or answer.min() < -1e-6:
                raise TournamentError(f"{self.card.id}: the answers of member {name} are not probabilities")
        probabilities = self.combine(scores, contributions=True).probabilities
        if not np.isfinite(probabilities).all():
            raise TournamentError(f"{self.card.id}: the aggregator answers with numbers that are not finite")
        for subset in self.subsets.kept:
            self.combine({name: scores[name] for name in subset.members})

    def acquire(self) -> ServingChampion:
        """Count one more user, and return the champion itself."""
        self._uses += 1
        return self

    def release(self) -> None:
        """Count one user less."""
        self._uses -= 1
        self._close_if_unused()

    def retire(self) -> None:
        """Close as soon as no request uses it."""
        self._retired = True
        self._close_if_unused()

    def close(self) -> None:
        """End the replicas and the fleet; requests under way are answered with an error."""
        for task in self._replacing:
            task.cancel()
        self.dispatcher.close()
        self.fleet.close()
        self.closed.set()

    def _close_if_unused(self) -> None:
        if self._retired and self._uses == 0:
            self.close()

    def _forest(self, aggregator: Aggregator) -> Forest:
        with self._tabulating:
            if aggregator.members not in self._forests:
                self._forests[aggregator.members] = tabulate(aggregator)
            return self._forests[aggregator.members]

    async def scores(self, page: Pairs, seconds: float) -> dict[str, np.ndarray]:
        """Return every member's scores of a page.

        Args:
            page: the n pairs.
            seconds: time limit for all members together.

        Returns:
            Candidate id -> probabilities, float32 (n, 4).

        Raises:
            TournamentError: if a member fails, or takes longer than `seconds`.
        """
        questions = self.dispatcher.ask(self.names, page)
        await asyncio.wait([question.answer for question in questions], timeout=seconds)
        late = [question for question in questions if not question.done]
        for question in late:
            question.drop()
        if late:
            names = ", ".join(question.member for question in late)
            raise TournamentError(f"{self.card.id}: no answer from {names} within {seconds:g} s")
        scores: dict[str, np.ndarray] = {}
        for question in questions:
            answer = question.answer.result()
            if isinstance(answer, NotAnswered):
                raise TournamentError(f"{self.card.id}: member {question.member} failed: {answer}")
            scores[question.member] = answer
        return scores

    def _lost(self, why: str) -> None:
        """Replace a lost replica, after a pause that grows while replacements do not last."""
        self._show()
        if self.closed.is_set():
            return
        now = time.monotonic()
        if not self.dispatcher.lasted:  # else it worked, and died of a page
            self._losses = self._losses + 1 if now - self._lost_at < _STEADY_SECONDS else 0
        self._lost_at = now
        wait = _AGAIN_SECONDS[min(self._losses, len(_AGAIN_SECONDS) - 1)]
        _log.warning("%s: %s; another takes its place in %g s", self.card.id, why, wait)
        self._metrics.replicas_lost.inc()
        task = asyncio.get_running_loop().create_task(self._replace(wait))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self, wait: float) -> None:
        await asyncio.sleep(wait)
        try:
            await self.recruit()
        except TournamentError as error:
            self.dispatcher.lasted = False
            self._lost(str(error))

    def _show(self) -> None:
        self._metrics.replicas.labels(self.card.name).set(len(self.dispatcher.replicas))


def stages_of(rule: EarlyExit) -> list[tuple[int, tuple[str, ...]]]:
    """Return the stages in which members are asked for an early exit.

    After a member without a threshold no pair can be done, so it is asked together with those that follow.

    Args:
        rule: the rule of early exit, with k members.

    Returns:
        For each stage the number of members that have answered at its end, and the candidate ids that are asked in it.
        The last stage ends with k.
    """
    stages, begun = [], 0
    for stage in range(1, len(rule.order) + 1):
        if stage == len(rule.order) or rule.level.thresholds[stage - 1] is not None:
            stages.append((stage, rule.order[begun:stage]))
            begun = stage
    return stages
