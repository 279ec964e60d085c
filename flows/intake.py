"""Candidates noticed in the model registry enter the queue, or are refused with the reason; once, by any process."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from esci_tournament.flows.announce import announce
from esci_tournament.flows.governed import governed
from esci_tournament.registry.errors import NotFoundError, SpecError
from esci_tournament.registry.poll import Sighting, tag_digest
from esci_tournament.registry.queue import Queue, content_of
from esci_tournament.registry.records import Arrival
from esci_tournament.registry.versions import CandidateVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.enter import readable


def news(queue: Queue, sightings: Sequence[Sighting]) -> list[Sighting]:
    """Return the sightings that the ledger does not know: neither entered, nor refused last with this very spec."""
    entered, refused = set(), {}
    for row in queue.arrivals({one.id for one in sightings}):
        if row.outcome == "refused":
            refused[row.candidate] = content_of(row.digest)  # the last one counts
        else:
            entered.add(row.candidate)
    return [one for one in sightings if one.id not in entered and refused.get(one.id) != one.digest]


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
        arrival = queue.arrive(candidate.id, sighting.digest, "refused", entered | {"complaint": complaint}, again=True)
        if arrival is not None:
            title = f"Candidate {candidate.id} is refused"
            announce("failure", candidate.id, {"title": title, "text": complaint, "outcome": "refused"})
        return arrival
    put_on_record(workspace, candidate)
    return queue.arrive(candidate.id, sighting.digest, "queued", entered, again=True)


def look_again(
    workspace: Workspace, queue: Queue, candidates: Collection[str] | None = None, most: int | None = None
) -> dict[str, str]:
    """Check candidates again that were refused, and queue those whose reason is mended.

    Args:
        workspace: Settings and stores.
        queue: The queue in the workspace's ledger.
        candidates: Ids of those that are looked at; default: all that were refused.
        most: How many are looked at, those that were refused last first; default: all.

    Returns:
        Candidate id -> why it is refused now, "" for one that is queued. Versions that were deleted are left out.

    Raises:
        NotFoundError: If one that was named is not among the refused.
        OSError: If a disk or a server does not answer now.
    """
    refused = queue.refused()
    if missing := sorted(set(candidates or ()) - set(refused)):
        raise NotFoundError(f"{', '.join(missing)}: not refused; tournament candidates lists the state of each")
    chosen = sorted((refused[one] for one in candidates or refused), key=lambda one: -one.id)[:most]
    settings, found = governed(workspace), {}
    for arrival in chosen:
        known = workspace.roll.candidate(arrival.candidate)
        if known.gone:
            continue
        candidate, entered = known.version, {"entered": known.version.entered}
        complaint = known.refusal or readable(candidate, settings)
        if complaint:
            queue.arrive(candidate.id, tag_digest(candidate), "refused", entered | {"complaint": complaint}, again=True)
        else:
            put_on_record(workspace, candidate)
            queue.arrive(candidate.id, tag_digest(candidate), "queued", entered, again=True)
        found[candidate.id] = complaint
    return found


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
