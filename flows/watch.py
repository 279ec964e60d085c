"""One sweep: new candidates enter, waiting ones are dispatched, what a crash left is finished, problems are announced.

A sweep may be made by any number of processes at any time, killed anywhere and made again: all that it does is
recorded under a natural key. Registering a candidate is enough for a sweep to find it; events only make it sooner.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from esci_tournament.flows.announce import announce
from esci_tournament.flows.differences import tell
from esci_tournament.flows.dispatch import Dispatcher
from esci_tournament.flows.intake import look_again, news, take_in
from esci_tournament.flows.links import has_api, run_link
from esci_tournament.flows.review import reconcile_reviews
from esci_tournament.registry import promotion
from esci_tournament.registry.attestation import DIFFERS
from esci_tournament.registry.chain import ADVICE, verify_home
from esci_tournament.registry.errors import BusyError, NotFoundError
from esci_tournament.registry.files import digest_of
from esci_tournament.registry.poll import Poll, Sighting
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.states import CandidateState, at_work, states, tags_of
from esci_tournament.registry.workspace import Workspace

DRIFTED, MENDED = "alias_drift", "alias_drift_over"  # kinds of events; subject: the ensemble
INVALID = "promotion_invalid"  # kind of event; subject: the promotion's id
ANNOUNCED = "difference_announced"  # kind of event; subject: id of the event that says what differs
TAMPERED = "ledger_tampered"  # kind of event; subject: a digest of what was found

MOST_AGAIN = 20  # refused versions that are looked at again at a time: a look may take seconds

_log = logging.getLogger("watch")


@dataclass
class Swept:
    """What a sweep did.

    Attributes:
        done: A sentence for each thing that was done.
        errors: What made steps of it fail.
    """

    done: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)


class Watch:
    """Sweeps one workspace again and again.

    Args:
        workspace: Settings and stores.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._queue = Queue(workspace.ledger)
        self._poll = Poll(workspace.models, workspace.settings.full_look_s)
        self._dispatcher = Dispatcher(workspace)
        self._unread: list[Sighting] = []  # seen, and not taken in because something was not there
        self._mark: object = None
        self._looked = time.monotonic()  # when those that were refused were looked at again
        self._verified: float | None = None  # when the ledger was verified, on the monotonic clock
        self._told: dict[str, CandidateState] = {}
        self._tags: dict[str, dict[str, str]] = {}  # as they were seen, of versions whose state was not told yet

    @property
    def full_look_at(self) -> float | None:
        """When every version in MLflow was last looked at, Unix time; None before the first such look."""
        return self._poll.full_look_at

    def sweep(self, named: Collection[str] = ()) -> Swept:
        """Do once all that waits to be done. Never raises: the other steps are made when one fails.

        Args:
            named: Ids of versions that an event has named; they are looked at first.

        Returns:
            What was done, and the errors.
        """
        swept = Swept()
        self._step(swept, lambda: self._take_in(named))
        try:
            # One at a time does what follows. It would be right without the lock as well, and four times the work.
            with self._workspace.ledger.exclusive("watch", 0.0):
                self._step(swept, self._finish_promotions)
                if has_api():
                    self._step(swept, self._dispatcher.advance)
                self._step(swept, lambda: reconcile_reviews(self._workspace))
                self._step(swept, self._tell_drift)
                self._step(swept, self._tell_invalid)
                self._step(swept, lambda: tell(self._workspace, self._workspace.roll.champion_differences()))
                self._step(swept, self._tell_differences)
                self._step(swept, self._tell_states)
                self._step(swept, self._verify_ledger)
                self._step(swept, self._look_again)  # last: it may take a minute
        except BusyError:
            pass
        except Exception as error:
            swept.errors.append(error)
        return swept

    def _step(self, swept: Swept, step: Callable[[], list[str]]) -> None:
        try:
            swept.done += step()
        except Exception as error:
            _log.debug("a step of the sweep failed", exc_info=True)
            swept.errors.append(error)

    def _take_in(self, named: Collection[str]) -> list[str]:
        done, left = [], []
        seen = {one.id: one for one in [*self._unread, *self._poll.look(named)]}
        self._unread = list(seen.values())  # should the ledger not be there
        self._tags |= {one.id: one.tags for one in self._unread if one.id not in self._told}
        trouble: Exception | None = None
        for sighting in news(self._queue, self._unread):
            try:
                arrival = take_in(self._workspace, self._queue, sighting)
            except NotFoundError as deleted:  # since it was seen
                done.append(str(deleted))
                continue
            except Exception as error:  # one that cannot be checked now does not hold up the others
                left.append(sighting)
                trouble = error
                continue
            if arrival is not None:
                words = arrival.payload.get("complaint", "")
                done.append(f"{arrival.candidate} is {arrival.outcome}" + (f": {words}" if words else ""))
        self._unread = left
        if trouble is not None:
            for words in done:
                _log.info("%s", words)
            raise trouble
        return done

    def _look_again(self) -> list[str]:
        """Check every `full_look_s` seconds whether the reasons of refusals are mended."""
        now = time.monotonic()
        if now - self._looked < self._workspace.settings.full_look_s:
            return []
        self._looked = now
        found = look_again(self._workspace, self._queue, most=MOST_AGAIN)
        return [
            f"{candidate} is queued: the reason of its refusal is gone" for candidate, why in found.items() if not why
        ]

    def _finish_promotions(self) -> list[str]:
        finished = promotion.reconcile(self._workspace.ledger, self._workspace.models)
        return [f"{one.kind} {one.sequence} to version {one.version} was finished" for one in finished]

    def _tell_drift(self) -> list[str]:
        """Report aliases that were moved by hand, once for each drift."""
        ledger, ensemble = self._workspace.ledger, self._workspace.settings.ensemble_name
        found = promotion.drift(ledger, self._workspace.models)
        now = {one.alias: {"ledger": one.ledger, "mlflow": one.mlflow} for one in found}
        told = [event for kind in (DRIFTED, MENDED) for event in ledger.events(kind=kind) if event.subject == ensemble]
        last = max(told, key=lambda event: event.id, default=None)
        before = last.payload.get("aliases", {}) if last is not None and last.kind == DRIFTED else {}
        if now == before:
            return []
        if not now:
            ledger.record_event(MENDED, ensemble)
            return [f"the aliases of {ensemble} say what the ledger says again"]
        text = "; ".join(map(str, found))
        ledger.record_event(DRIFTED, ensemble, payload={"aliases": now, "text": text})
        announce("failure", ensemble, {"title": f"An alias of {ensemble} was moved by hand", "text": text})
        return [text]

    def _tell_invalid(self) -> list[str]:
        """Report promotions in the ledger that do not count, once each."""
        ledger, ensemble = self._workspace.ledger, self._workspace.settings.ensemble_name
        invalid = {str(one.promotion.id): str(one) for one in ledger.standing(ensemble).invalid}
        told = {event.subject for event in ledger.events(kind=INVALID)} if invalid else set()
        for id, words in invalid.items():
            if id not in told:
                ledger.record_event(INVALID, id, payload={"text": words})
                title = f"Somebody wrote a promotion of {ensemble} into the ledger by hand"
                announce("failure", ensemble, {"title": title, "text": words})
        return [words for id, words in invalid.items() if id not in told]

    def _tell_differences(self) -> list[str]:
        """Announce, once each, that something found files of an ensemble other than those that were approved."""
        ledger = self._workspace.ledger
        found = ledger.events(kind=DIFFERS)
        told = {event.subject for event in ledger.events(kind=ANNOUNCED)} if found else set()
        new = [event for event in found if str(event.id) not in told]
        for event in new:
            ledger.record_event(ANNOUNCED, str(event.id))
            title = f"Files of {event.subject} are not those that were approved"
            announce("failure", event.subject, {"title": title, "text": event.payload["text"]})
        return [event.payload["text"] for event in new]

    def _verify_ledger(self) -> list[str]:
        """Verify the ledger's hash chain every `verify_ledger_s` seconds; report what is found, once."""
        ledger, settings = self._workspace.ledger, self._workspace.settings
        now = time.monotonic()
        if self._verified is not None and now - self._verified < settings.verify_ledger_s:
            return []
        report = verify_home(ledger, settings.home, settings.ledger_address)
        self._verified = now
        found = digest_of(report.findings)
        if not report.count or any(event.subject == found for event in ledger.events(kind=TAMPERED)):
            return []
        text = f"{report.complaint()}. {ADVICE}"
        ledger.record_event(TAMPERED, found, payload={"findings": report.findings, "count": report.count})
        announce("failure", settings.ensemble_name, {"title": "The ledger is not as it was written", "text": text})
        return [f"the ledger is not as it was written: {text}"]

    def _tell_states(self) -> list[str]:
        """Set the tags in the registry to what the ledger says."""
        mark = self._queue.mark(), at_work(self._workspace.ledger)  # a process that is killed appends no row
        if mark == self._mark:
            return []
        now = states(self._workspace.ledger, self._workspace.settings.ensemble_name)
        for candidate, state in now.items():
            if self._told.get(candidate) == state or state.state == "registered":
                continue
            try:
                self._set(candidate, state)
            except NotFoundError:
                _log.info("%s is not in the registry any more", candidate)
            self._told[candidate] = state
        self._mark = mark
        return []

    def _set(self, candidate: str, state: CandidateState) -> None:
        wanted = tags_of(state, run_link(state.flow_run))
        there = self._tags.pop(candidate, None) or self._workspace.models.tags(candidate)
        changed = {key: value for key, value in wanted.items() if there.get(key) != value}
        if changed:
            self._workspace.models.set_tags(candidate, changed)
