"""Candidates and ensembles of record: what the ledger says of them, whatever became of their versions in MLflow.

A candidate's spec, digest, family and registrant are recorded when it arrives, the members of an ensemble when it is
registered. From then on the tags in MLflow are shown to people and decide nothing. Where they differ from the record,
or the version was deleted, that is told with what to do, and the record counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esci_tournament.registry import tables
from esci_tournament.registry.errors import NotFoundError, SpecError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.records import CandidateRecord, EnsembleRecord
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.registry.versions import (
    DIGEST_TAG,
    FAMILY_TAG,
    ID_TAG,
    MEMBERS_TAG,
    SPEC_TAG,
    CandidateVersion,
    EnsembleVersion,
)


@dataclass(frozen=True)
class Enrolled:
    """A candidate as the ledger has it, or as MLflow has it while it is not on record yet.

    Attributes:
        version: The candidate. Spec and moment of entry are those of record; tags and metrics are MLflow's, for people.
        recorded: Whether it is on record.
        gone: Whether MLflow does not have its version any more.
        altered: Whether the spec in MLflow is another one than the spec of record, or cannot be read any more.
        difference: In which way MLflow differs from the record, and what to do; "" when it does not.
    """

    version: CandidateVersion
    recorded: bool = False
    gone: bool = False
    altered: bool = False
    difference: str = ""

    @property
    def id(self) -> str:
        """The candidate id, `name/version`."""
        return self.version.id

    @property
    def refusal(self) -> str:
        """Why it may not enter as a newcomer, "" when nothing that MLflow says speaks against it."""
        if self.gone:
            return (
                f"candidate {self.id}: its version was deleted from MLflow before it was tried; register its spec "
                "again to have it tried"
            )
        if self.altered:
            return (
                f"candidate {self.id}: its spec is another one than when it entered; put it back, or register the new "
                "spec as a version of its own"
            )
        return ""


class Roll:
    """The candidates and ensembles of one home.

    Args:
        ledger: Where they are on record.
        models: Where their versions are, or were.

    Raises:
        StoreError: By every method, when the ledger or MLflow cannot be read.
    """

    def __init__(self, ledger: Ledger, models: Models) -> None:
        self._ledger, self._models = ledger, models

    # Candidates

    def candidate(self, id: str) -> Enrolled:
        """Return a candidate.

        Args:
            id: `name/version`.

        Returns:
            The candidate of record, also when its version was deleted; one that is not on record as MLflow has it.

        Raises:
            NotFoundError: If neither the ledger nor MLflow has it.
        """
        record, there = self._record(id), self._find(id)
        if record is not None:
            return enrolled(record, there)
        if there is None:
            raise NotFoundError(f"no candidate {id!r} in the ledger or in the registry; list the candidates")
        return Enrolled(there)

    def seen(self, there: CandidateVersion) -> Enrolled:
        """Return a candidate as it is on record, given its version as MLflow has it now."""
        record = self._record(there.id)
        return enrolled(record, there) if record else Enrolled(there)

    def candidates(self, with_metrics: bool = True) -> list[Enrolled]:
        """Return all candidates: those of record, and those in MLflow that are not on record yet.

        Args:
            with_metrics: Whether the metrics of their runs are read too.

        Returns:
            The candidates, the one that entered first at the beginning.
        """
        there = {one.id: one for one in self._models.candidates(with_metrics=with_metrics)}
        records = {one.candidate: one for one in self._ledger.candidates()}
        found = [
            enrolled(record, there.get(id) or self._find(id))  # without a spec tag it is not in MLflow's list
            for id, record in records.items()
        ]
        found += [Enrolled(version) for id, version in there.items() if id not in records]
        return sorted(found, key=lambda one: (one.version.entered, one.version.name, one.version.version))

    def register(self, spec: CandidateSpec, tags: Mapping[str, str] | None = None) -> Enrolled:
        """Return the version of a spec, registered when it is new under its name.

        Which spec a version has that is on record follows from the ledger, not from its tags.

        Args:
            spec: What the candidate is.
            tags: More tags of a new version.

        Returns:
            The candidate.
        """
        known = {}
        for record in self._ledger.candidates():
            name, _, number = record.candidate.rpartition("/")
            if name == spec.name:
                own, _ = spec_of_record(record, None)
                known[int(number)] = own.digest() if own else record.digest
        return self.candidate(self._models.register_candidate(spec, tags, known).id)

    def _record(self, id: str) -> CandidateRecord | None:
        with self._ledger.reading() as rows:
            row = rows.one(tables.candidates, {"candidate": id})
            return CandidateRecord.of(row) if row else None

    def _find(self, id: str) -> CandidateVersion | None:
        try:
            return self._models.candidate(id)
        except NotFoundError:
            return None

    # Ensembles

    def ensemble(self, version: int) -> EnsembleVersion:
        """Return an ensemble version with the members of record.

        Args:
            version: Its number.

        Returns:
            The version, also when it was deleted from MLflow; one that is not on record as MLflow has it.

        Raises:
            NotFoundError: If neither the ledger nor MLflow has it.
        """
        record = self._ensemble_record(version)
        if record is None or "members" not in record.payload:
            return self._models.ensemble(version)
        there = None
        if "run_id" not in record.payload:  # it was registered by an older release
            there = self._find_ensemble(version)
        return EnsembleVersion(
            name=record.name,
            version=record.version,
            run_id=record.payload.get("run_id") or (there.run_id if there else ""),
            tournament=record.tournament,
            members=tuple(map(str, record.payload["members"])),
        )

    def challenger(self, tournament: str) -> EnsembleVersion | None:
        """Return the ensemble version that a tournament has put on record, None when it has put none."""
        found = [one for one in self._ledger.ensembles(tournament) if one.name == self._models.ensemble_name]
        return self.ensemble(found[-1].version) if found else None

    def numbers(self) -> set[int]:
        """Return the numbers of the ensemble's versions that are on record, in MLflow or not."""
        return {one.version for one in self._ledger.ensembles() if one.name == self._models.ensemble_name}

    def ensemble_difference(self, version: int) -> str:
        """Return in which way MLflow differs from the record of an ensemble version, "" when it does not.

        Args:
            version: Its number.

        Returns:
            A sentence with what to do.
        """
        record = self._ensemble_record(version)
        if record is None or "members" not in record.payload:
            return ""
        id, there = f"{record.name}/{record.version}", self._find_ensemble(version)
        if there is None:
            return (
                f"{id}: its version is not in MLflow any more; the ledger and the copies in this home still count. "
                "It cannot be made champion, and the alias cannot name it: hold a tournament, or go back by "
                "tournament champion rollback --reason"
            )
        members = [str(member) for member in record.payload["members"]]
        wrong = []
        if list(there.members) != members:
            wrong.append(f"its tag {MEMBERS_TAG} names {', '.join(there.members) or 'nobody'}: {json.dumps(members)}")
        if there.tournament != record.tournament:
            wrong.append(f"its tag {ID_TAG} is {there.tournament!r}: {record.tournament}")
        if not wrong:
            return ""
        return f"{id} was edited in MLflow, and the ledger counts. Put back what is said last: {'; '.join(wrong)}"

    def champion_differences(self) -> dict[str, str]:
        """Return in which way MLflow differs from the record of the champion and its members.

        Returns:
            Id of the ensemble version or candidate -> a sentence with what to do, "" for those that agree; {} without a
            champion.
        """
        promoted = self._ledger.champion(self._models.ensemble_name)
        if promoted is None:
            return {}
        champion = self.ensemble(promoted.version)
        told = {champion.id: self.ensemble_difference(champion.version)}
        for member in champion.members:
            try:
                told[member] = self.candidate(member).difference
            except NotFoundError as unknown:
                told[member] = str(unknown)
        return told

    def _ensemble_record(self, version: int) -> EnsembleRecord | None:
        with self._ledger.reading() as rows:
            row = rows.one(tables.ensembles, {"name": self._models.ensemble_name, "version": int(version)})
            return EnsembleRecord.of(row) if row else None

    def _find_ensemble(self, version: int) -> EnsembleVersion | None:
        try:
            return self._models.ensemble(version)
        except NotFoundError:
            return None


def spec_of_record(record: CandidateRecord, there: CandidateVersion | None) -> tuple[CandidateSpec | None, str]:
    """Return the spec of a candidate on record.

    Args:
        record: Its row in the ledger. Rows of older releases have no spec: then the one in MLflow is taken if its
            digest is the one of record.
        there: Its version in MLflow, None when there is none.

    Returns:
        The spec and ""; or None and why there is none.
    """
    id = record.candidate
    content = record.payload.get("spec")
    if isinstance(content, dict):
        try:
            return parse_spec({**content, "name": id.rpartition("/")[0]}, f"candidate {id}, as it is on record"), ""
        except SpecError as error:
            return None, str(error)
    without = f"candidate {id}: it was put on record by a release that kept no specs"
    if there is None:
        return None, f"{without}, and its version is not in MLflow any more; register it again"
    if there.spec is None:
        return None, f"{without}, and the one in MLflow cannot be read: {there.complaint}"
    if there.spec.digest() != record.digest:
        return None, f"{without}, and the one in MLflow is another one than when it entered; put it back"
    return there.spec, ""


def enrolled(record: CandidateRecord, there: CandidateVersion | None) -> Enrolled:
    """Return a candidate of record, and in which way its version in MLflow differs.

    Args:
        record: Its row in the ledger.
        there: Its version in MLflow, None when there is none.

    Returns:
        The candidate; its `spec` is None when there is none on record that can be read, and `complaint` says why.
    """
    id = record.candidate
    name, _, number = id.rpartition("/")
    spec, complaint = spec_of_record(record, there)
    version = CandidateVersion(
        name=name,
        version=int(number),
        run_id=there.run_id if there else "",
        spec=spec,
        entered=record.payload.get("entered") or (there.entered if there else record.at.isoformat()),
        weights=there.weights if there else "",
        tags=there.tags if there else {},
        metrics=there.metrics if there else {},
        complaint=complaint,
    )
    if there is None:
        text = (
            f"candidate {id}: its version is not in MLflow any more; the ledger's record and the copies in this home "
            "still count. To have it tried again once it is no member, register its spec again"
        )
        return Enrolled(version, recorded=True, gone=True, difference=text)
    digests = {record.digest} | ({spec.digest()} if spec else set())
    altered = there.spec is None or there.spec.digest() not in digests
    wrong = _tags_that_differ(record, digests, there, altered)
    text = ""
    if wrong:
        text = (
            f"candidate {id} was edited in MLflow since it entered, and the ledger counts: {'; '.join(wrong)}. Put it "
            "back (`tournament candidates --json` has the spec of record), or register a new spec as a version of its "
            "own"
        )
    return Enrolled(version, recorded=True, altered=altered, difference=text)


def _tags_that_differ(record: CandidateRecord, digests: set[str], there: CandidateVersion, altered: bool) -> list[str]:
    wrong = []
    if altered:
        how = "cannot be read any more" if there.spec is None else "is another spec than when it entered"
        wrong.append(f"its tag {SPEC_TAG} {how}")
    if (tag := there.tags.get(DIGEST_TAG)) and tag not in digests:
        wrong.append(f"its tag {DIGEST_TAG} is not {record.digest}")
    if (tag := there.tags.get(FAMILY_TAG)) and tag != record.family:
        wrong.append(f"its tag {FAMILY_TAG} is not {record.family}")
    return wrong


def recorded_facts(ledger: Ledger, ensemble: EnsembleVersion) -> Mapping[str, Any]:
    """Return what the ledger keeps of how an ensemble was built; {} for one that no tournament of it has built.

    Args:
        ledger: The ledger.
        ensemble: A version of the ensemble.
    """
    if not ensemble.tournament:
        return {}
    built = ledger.ensembles(ensemble.tournament)
    return next((one.payload for one in built if one.version == ensemble.version), {})
