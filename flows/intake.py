"""Candidates noticed in the model registry enter the queue, or are refused with the reason; once, by any process."""

from __future__ import annotations

from collections.abc import Sequence

from esci_tournament.flows.announce import announce
from esci_tournament.flows.governed import governed
from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.poll import Sighting
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.records import Arrival
from esci_tournament.registry.versions import CandidateVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.enter import readable


def news(queue: Queue, sightings: Sequence[Sighting]) -> list[Sighting]:
    """Return the sightings that the ledger does not know: neither entered, nor refused with this very spec."""
    entered, refused = set(), set()
    for row in queue.arrivals({one.id for one in sightings}):
        if row.outcome == "refused":
            refused.add((row.candidate, row.digest))
        else:
            entered.add(row.candidate)
    return [one for one in sightings if one.id not in entered and (one.id, one.digest) not in refused]


def take_in(workspace: Workspace, queue: Queue, sighting: Sighting) -> Arrival | None:
    """Queue a version, or refuse it.

    The spec is checked here, before anything is spent on it. A refused one is checked again when its tag changes.

    Args:
        workspace: Settings and stores.
        queue: The queue in the workspace's ledger.
        sighting: The version as it was seen.

    Returns:
        The arrival, queued, refused or tried; None when another process recorded it before.
    """
    known = workspace.roll.seen(sighting.candidate())
    candidate, entered = known.version, {"entered": known.version.entered}
    if candidate.id in queue.tried([candidate.id]):
        return queue.arrive(candidate.id, sighting.digest, "tried", entered)
    complaint = known.refusal or readable(candidate, governed(workspace))
    if complaint:
        arrival = queue.arrive(candidate.id, sighting.digest, "refused", entered | {"complaint": complaint})
        if arrival is not None:
            title = f"Candidate {candidate.id} is refused"
            announce("failure", candidate.id, {"title": title, "text": complaint})
        return arrival
    put_on_record(workspace, candidate)
    return queue.arrive(candidate.id, sighting.digest, "queued", entered)


def put_on_record(workspace: Workspace, candidate: CandidateVersion) -> None:
    """Record a candidate with its spec, when it was registered and by whom; one that is on record stays as it is.

    The registry is asked now and not again: what its tags say later changes nothing.

    Args:
        workspace: Settings and stores.
        candidate: A version whose spec can be read.

    Raises:
        SpecError: If its spec cannot be read.
    """
    if workspace.roll.seen(candidate).recorded:
        return
    spec = candidate.spec
    if spec is None:
        raise SpecError(candidate.complaint)
    content = {
        "registered_by": workspace.models.registrants(candidate),
        "spec": spec.model_dump(mode="json"),
        "entered": candidate.entered,
    }
    workspace.ledger.record_candidate(candidate.id, spec.digest(), spec.family, content)
