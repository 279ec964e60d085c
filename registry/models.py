"""The model registry: candidates and ensembles as versions of MLflow's registered models.

Each is a version whose source is a folder of its run's artifacts. It is found again by a tag (the digest of a
candidate's spec, the tournament of an ensemble), so that registering twice gives one version, also after a kill
between the calls it takes. Which modules know MLflow at all is tested in tests/test_architecture.py.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from esci_tournament.registry.errors import NotFoundError, StoreError, TournamentError
from esci_tournament.registry.files import disk_in_words, folder_digest
from esci_tournament.registry.manifests import FILE as MANIFEST_FILE
from esci_tournament.registry.manifests import Manifest, check, check_plain
from esci_tournament.registry.processes import user_and_host
from esci_tournament.registry.specs import CandidateSpec
from esci_tournament.registry.tracking import Tracking, inside, is_web, name_is, pyfunc_data, run_addresses
from esci_tournament.registry.versions import (
    DIGEST_TAG,
    ENTERED_TAG,
    FAMILY_TAG,
    ID_TAG,
    MANIFEST_TAG,
    MEMBERS_TAG,
    REGISTERED_BY_TAG,
    RUN_TAG,
    SPEC_TAG,
    WEIGHTS_TAG,
    CandidateVersion,
    EnsembleVersion,
    RegisteredVersion,
    as_candidate,
    as_ensemble,
    run_of,
)

if TYPE_CHECKING:
    from esci_tournament.registry.packaging import Interface

CHAMPION, PREVIOUS = "champion", "previous"
MAKE_ANEW = "delete that folder and hold the tournament again"
SEE_FILES = (
    "it is not used. Restore its files from a backup, go back with: tournament champion rollback --reason, or hold a "
    "tournament"
)
_HAS_SPEC = f"tags.`{SPEC_TAG}` LIKE '%'"  # in MLflow's filter language
CANDIDATE_EXPERIMENT, ENSEMBLE_EXPERIMENT = "tournament-candidates", "tournament-ensembles"


class Models:
    """The model registry at one MLflow address.

    Args:
        tracking_uri: MLflow's tracking and registry URI; a database URL or an http(s) server.
        home: Folder of the locks, and of the artifacts (`mlartifacts`) when MLflow is a database, not a server.
        ensemble_name: Registered model that holds the ensembles.
        ui: Where people see MLflow; default: `tracking_uri` when it is a web address.
        remembers: Whether answers of MLflow are taken from the home while its database has not changed, see
            :class:`esci_tournament.registry.tracking.Tracking`.

    Raises:
        StoreError: By every method, when MLflow cannot be reached, read or written.
        BusyError: By the methods that register or log, when another process writes for longer than two minutes.
    """

    def __init__(
        self,
        tracking_uri: str,
        home: Path,
        ensemble_name: str = "esci-ensemble",
        ui: str | None = None,
        remembers: bool = False,
    ) -> None:
        self.tracking_uri, self.home, self.ensemble_name = tracking_uri, Path(home).resolve(), ensemble_name
        self._ui = ui or tracking_uri
        self._tracking = Tracking(tracking_uri, home, remembers)
        self._tracking.when_opened = self._look_around

    @property
    def tracking(self) -> Tracking:
        """The connection to MLflow, for the modules of registry/ that need more of it."""
        return self._tracking

    # Candidates

    def register_candidate(
        self, spec: CandidateSpec, tags: Mapping[str, str] | None = None, known: Mapping[int, str] | None = None
    ) -> CandidateVersion:
        """Return the version of `spec`, registered when its digest is new under its name.

        The version's source holds `spec.json`; its tags name family, digest, when it entered and who registered it.

        Args:
            spec: What the candidate is.
            tags: More tags of a new version.
            known: Version -> digest of its spec, of the versions under this name that are on record, in the registry or
                not. Of others the digest is computed from the spec in their tag. No new version gets their numbers,
                which MLflow gives again when a registered model was deleted.

        Returns:
            The version; the oldest one when several have the digest.
        """
        digest, known = spec.digest(), known or {}
        with self._tracking.guard(f"register candidate {spec.name}"), self._tracking.lock("register"):
            found = [
                version
                for version in self._tracking.search(name_is(spec.name))
                if (known.get(int(version.version)) or as_candidate(version, {}).digest) == digest
            ]
            if not found:
                run = self._tracking.run_with(
                    CANDIDATE_EXPERIMENT, spec.name, {DIGEST_TAG: digest, "tournament.name": spec.name}
                )
                content = spec.model_dump_json()
                self._tracking.client.log_text(run.info.run_id, content, "candidate/spec.json")
                words = {
                    SPEC_TAG: content,
                    DIGEST_TAG: digest,
                    ENTERED_TAG: dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
                    FAMILY_TAG: spec.family,
                    REGISTERED_BY_TAG: user_and_host(),
                }
                taken = {number for number, other in known.items() if other != digest}
                found = [
                    self._tracking.create_version(
                        spec.name, run, "candidate", {**words, **(tags or {})}, spec.description, taken
                    )
                ]
            return as_candidate(min(found, key=lambda version: int(version.version)), {})

    def enter_version(self, version: int, spec: CandidateSpec) -> CandidateVersion:
        """Make a version that plain MLflow has registered a candidate, by the tag that says what it is.

        Args:
            version: Number of the version.
            spec: What it is; its name is that of the registered model.

        Returns:
            The candidate.

        Raises:
            NotFoundError: If there is no such version.
        """
        id = f"{spec.name}/{version}"
        words = {DIGEST_TAG: spec.digest(), FAMILY_TAG: spec.family, REGISTERED_BY_TAG: user_and_host()}
        self.set_tags(id, {**words, SPEC_TAG: spec.model_dump_json()})  # the last one makes it a candidate
        return self.candidate(id)

    def attach_weights(
        self,
        version: CandidateVersion,
        folder: Path,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> CandidateVersion:
        """Copy the weights in `folder` beside the spec, log metrics to the candidate's run, and tag the version.

        Weights stand under the digest of their content: the same ones again change nothing, others never overwrite.

        Args:
            version: The candidate.
            folder: Weights, as the family's `save` writes them.
            metrics: Metric -> value, logged when the weights are new.
            tags: More tags, set whether the weights are new or not.

        Returns:
            The version with its new tags and metrics.

        Raises:
            NotFoundError: If the version or its run does not exist any more, or the folder is missing or empty.
        """
        if not folder.is_dir() or not any(folder.iterdir()):
            raise NotFoundError(f"weights of {version.id}: folder {folder} is missing or empty; save the model first")
        missing = f"{version.id}: its version or its run is not in MLflow any more, so its weights are not put there"
        with self._tracking.guard(f"attach weights to {version.id}", missing):
            place = f"candidate/weights/{folder_digest(folder)[:16]}"
            known = self._tracking.client.get_model_version(version.name, str(version.version))
            if known.tags.get(WEIGHTS_TAG) != place:
                run_id = self._run_for(known)
                self._tracking.client.log_artifacts(run_id, str(folder), place)
                self._tracking.sync_artifacts(run_id, place)
                self._tracking.log_metrics(run_id, metrics or {})
                self._tracking.client.set_model_version_tag(known.name, str(known.version), WEIGHTS_TAG, place)
            for key, value in (tags or {}).items():
                self._tracking.client.set_model_version_tag(known.name, str(known.version), key, str(value))
        return self.candidate(version.id)

    def candidate(self, id: str) -> CandidateVersion:
        """Return a candidate, with the metrics of its run.

        Args:
            id: `name/version`.

        Returns:
            The version; its `spec` is None when it cannot be read, and `complaint` says why.

        Raises:
            NotFoundError: If there is none.
        """
        name, _, number = id.rpartition("/")
        with self._tracking.guard(
            f"candidate {id}", missing=f"no candidate {id!r} in the registry; list the candidates"
        ):
            if known := self._listed(name, number):
                return known
            version = self._tracking.version(name, number)
            return as_candidate(version, self._tracking.metrics_of(run_of(version)))

    def candidates(self, name: str | None = None, with_metrics: bool = True) -> list[CandidateVersion]:
        """Return all candidates in the order they were registered, those registered through plain MLflow as well.

        A candidate is a version with a tag `tournament.spec` (JSON); when that cannot be read, `spec` is None and
        `complaint` says why.

        Args:
            name: Only those under this name.
            with_metrics: Whether the metrics of their runs are read too, which takes longer than all the rest.

        Returns:
            The versions, the one that entered first at the beginning.
        """
        with self._tracking.guard("list candidates"):
            found = self._tracking.versions(f"{_HAS_SPEC} and {name_is(name)}" if name else _HAS_SPEC)
            metrics = self._tracking.metrics(CANDIDATE_EXPERIMENT) if with_metrics else {}
            candidates = []
            for version in found:
                run_id = run_of(version)
                if with_metrics and run_id and run_id not in metrics:
                    metrics[run_id] = self._tracking.metrics_of(run_id)
                candidates.append(as_candidate(version, metrics.get(run_id, {})))
        return sorted(candidates, key=lambda candidate: (candidate.entered, candidate.name, candidate.version))

    def registrants(self, version: CandidateVersion) -> list[str]:
        """Return who registered a candidate, by every source there is: its tag, its run's user, the server's own word.

        They should agree. Where they do not, each is kept from approving it; empty when nobody knows.

        Raises:
            NotFoundError: If the version was deleted.
        """
        with self._tracking.guard(f"who registered {version.id}", f"{version.id} was deleted from the registry"):
            users = self._tracking.users(version.name, version.version, version.run_id)
        names = [version.tags.get(REGISTERED_BY_TAG, ""), *users]
        return list(dict.fromkeys(name for name in names if name not in ("", "unknown", "anonymous")))

    def tag(self, version: CandidateVersion | EnsembleVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version, such as its state in a tournament or why it was refused.

        Raises:
            NotFoundError: If the version was deleted.
        """
        with self._tracking.guard(f"tag {version.id}", missing=f"no version {version.id!r} in the registry"):
            for key, value in tags.items():
                self._tracking.client.set_model_version_tag(version.name, str(version.version), key, str(value))

    def tags(self, id: str) -> dict[str, str]:
        """Return the tags of a version.

        Args:
            id: `name/version`.

        Returns:
            Tag -> value.

        Raises:
            NotFoundError: If there is no such version.
        """
        name, _, number = id.rpartition("/")
        with self._tracking.guard(f"tags of {id}", missing=f"no version {id!r} in the registry"):
            return self._tracking.version(name, number).tags

    def set_tags(self, id: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a version, and remove those that are None.

        Args:
            id: `name/version`.
            tags: Tag -> value, or None to remove it.

        Raises:
            NotFoundError: If there is no such version.
        """
        name, _, number = id.rpartition("/")
        with self._tracking.guard(f"tag {id}", missing=f"no version {id!r} in the registry"):
            for key, value in tags.items():
                if value is None:
                    self._tracking.client.delete_model_version_tag(name, number, key)
                else:
                    self._tracking.client.set_model_version_tag(name, number, key, value)

    # Ensembles

    def register_ensemble(
        self,
        folder: Path,
        members: Sequence[str],
        tournament: str,
        *,
        loader_module: str | None = None,
        metrics: Mapping[str, float] | None = None,
        files: Sequence[Path] = (),
        interface: Interface | None = None,
        tags: Mapping[str, str] | None = None,
        package: Path | None = None,
        taken: Collection[int] = (),
    ) -> EnsembleVersion:
        """Return the ensemble version of `tournament`, registered when there is none yet.

        The version is a pyfunc without a pickle: MLflow imports `loader_module` and calls `_load_pyfunc(folder)`.
        Its manifest stands beside it, and the manifest's digest in a tag, for information: neither proves anything.

        Args:
            folder: All that the loader needs; copied.
            members: Candidate ids, in the order of the aggregator's columns.
            tournament: Id of the tournament that built it.
            loader_module: Importable module with `_load_pyfunc(path)`; default: that of the product.
            metrics: Metrics of the ensemble, logged to its run.
            files: Report, figures and other files or folders for its run, below `report/`.
            interface: What `predict` reads and returns, for signature and example; None for neither.
            tags: More tags of the version.
            package: What :func:`package_ensemble` wrote for `folder`; default: it is made here. With it, a version that
                was registered before is compared with its manifest.
            taken: Numbers of versions that are on record, of other tournaments: none is returned, and a new version
                gets none of them, which MLflow gives again when the registered model was deleted.

        Returns:
            The version; one that was registered before stays as it is.

        Raises:
            IntegrityError: If `folder`, or what MLflow holds of a version from before, differs from the manifest of
                `package`.
        """
        with self._tracking.guard(f"register the ensemble of tournament {tournament}"), self._tracking.lock("register"):
            same = f"{name_is(self.ensemble_name)} and tags.`{ID_TAG}` = '{tournament}'"
            manifest = None if package is None else Manifest.read(package / MANIFEST_FILE)
            found = [version for version in self._tracking.search(same) if int(version.version) not in taken]
            if manifest is not None:  # one of other files was registered by a process that was killed: it serves nobody
                found = [one for one in found if one.tags.get(MANIFEST_TAG) == manifest.digest]
            if found:
                oldest = as_ensemble(min(found, key=lambda version: int(version.version)))
                if manifest is not None:
                    self.download(oldest, manifest=manifest)
                return oldest
            run = self._tracking.run_with(
                ENSEMBLE_EXPERIMENT, f"{self.ensemble_name} {tournament[:12]}", {ID_TAG: tournament}
            )
            with disk_in_words("ensemble", Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as temporary:
                if package is None or manifest is None:
                    from esci_tournament.registry.packaging import LOADER, package_ensemble

                    package = Path(temporary) / "package"
                    manifest = package_ensemble(folder, package, {}, loader_module or LOADER, interface)
                check(folder, manifest.served, f"the ensemble of tournament {tournament} in {folder}", MAKE_ANEW)
                self._tracking.upload(run.info.run_id, folder, f"ensemble/{manifest.data}")
                for path in sorted(path for path in package.rglob("*") if path.is_file()):
                    name = path.relative_to(package)
                    if name.as_posix() in manifest.files or path.name == MANIFEST_FILE:
                        place = Path("ensemble", name).parent.as_posix()
                        self._tracking.client.log_artifact(run.info.run_id, str(path), place)
                self._tracking.sync_artifacts(run.info.run_id, "ensemble")
            self._log_report(run.info.run_id, files, metrics or {})
            words = {ID_TAG: tournament, MEMBERS_TAG: json.dumps(list(members)), MANIFEST_TAG: manifest.digest}
            made = words | dict(tags or {})
            return as_ensemble(self._tracking.create_version(self.ensemble_name, run, "ensemble", made, taken=taken))

    def log_report(self, tournament: str, files: Sequence[Path], metrics: Mapping[str, float] | None = None) -> None:
        """Log the report of a tournament whose challenger is not registered, to a run of its own.

        Args:
            tournament: Id of the tournament; logging it again replaces the files.
            files: Report, figures and other files or folders, below `report/`.
            metrics: Metrics of the challenger.
        """
        with self._tracking.guard(f"log the report of tournament {tournament}"), self._tracking.lock("register"):
            name = f"{self.ensemble_name} {tournament[:12]}"
            run = self._tracking.run_with(ENSEMBLE_EXPERIMENT, name, {ID_TAG: tournament})
            self._log_report(run.info.run_id, files, metrics or {})
            self._tracking.client.set_terminated(run.info.run_id)

    def _log_report(self, run_id: str, files: Sequence[Path], metrics: Mapping[str, float]) -> None:
        for path in files:
            log = self._tracking.client.log_artifacts if path.is_dir() else self._tracking.client.log_artifact
            log(run_id, str(path), f"report/{path.name}" if path.is_dir() else "report")
        self._tracking.log_metrics(run_id, metrics)

    def ensemble(self, version: int) -> EnsembleVersion:
        """Return an ensemble version.

        Args:
            version: Its number.

        Returns:
            The version with its members.

        Raises:
            NotFoundError: If there is none.
        """
        missing = f"no version {version} of {self.ensemble_name} in the registry"
        with self._tracking.guard(f"ensemble {self.ensemble_name}/{version}", missing=missing):
            if self._tracking.remembers and (known := [one for one in self.ensembles() if one.version == version]):
                return known[0]
            return as_ensemble(self._tracking.version(self.ensemble_name, str(version)))

    def ensembles(self) -> list[EnsembleVersion]:
        """Return all ensemble versions, oldest first."""
        with self._tracking.guard(f"list versions of {self.ensemble_name}"):
            found = self._tracking.versions(name_is(self.ensemble_name))
        return sorted(map(as_ensemble, found), key=lambda ensemble: ensemble.version)

    def champion(self) -> EnsembleVersion | None:
        """Return the version under the alias `champion`, or None."""
        return self._aliased(CHAMPION)

    def previous(self) -> EnsembleVersion | None:
        """Return the version under the alias `previous`, or None."""
        return self._aliased(PREVIOUS)

    def alias(self, alias: str) -> int | None:
        """Return the ensemble version that an alias names, or None; it is read from MLflow each time."""
        with self._tracking.guard(f"read alias {alias} of {self.ensemble_name}"):
            version = self._tracking.aliased(self.ensemble_name, alias)
            return None if version is None else int(version.version)

    def set_alias(self, alias: str, version: int | None) -> None:
        """Let an alias name a version, or remove it when `version` is None.

        Only promotions may do this: an alias that is moved otherwise is reported as drift from the ledger.

        Raises:
            NotFoundError: If the version was deleted.
        """
        missing = f"no version {version} of {self.ensemble_name} in the registry"
        with self._tracking.guard(f"set alias {alias} of {self.ensemble_name} to {version}", missing):
            if version is not None:
                self._tracking.client.set_registered_model_alias(self.ensemble_name, alias, str(version))
            elif self._tracking.aliased(self.ensemble_name, alias) is not None:
                self._tracking.client.delete_registered_model_alias(self.ensemble_name, alias)

    # Files

    def addresses(self, version: CandidateVersion | EnsembleVersion) -> dict[str, str]:
        """Return where a browser shows a candidate or an ensemble version, its run and its report.

        Args:
            version: The version.

        Returns:
            Title -> web address; without a web address of MLflow, `MLflow version` alone, as `models:/NAME/VERSION`.
        """
        with self._tracking.guard(f"addresses of {version.id}"):
            return self._tracking.addresses(self._ui, version.name, version.version, version.run_id)

    def report_addresses(self, tournament: str) -> dict[str, str]:
        """Return where a browser shows the run with the report of a tournament, whether its challenger won or not.

        Args:
            tournament: Id of a tournament whose report was logged.

        Returns:
            Title -> web address of the run and of the report; {} without a web address of MLflow.
        """
        if not is_web(self._ui):
            return {}
        with self._tracking.guard(f"addresses of the report of tournament {tournament}"):
            run = self._tracking.run_with(
                ENSEMBLE_EXPERIMENT, f"{self.ensemble_name} {tournament[:12]}", {ID_TAG: tournament}
            )
            return run_addresses(self._ui, str(run.info.experiment_id), run.info.run_id)

    def report(self, version: EnsembleVersion) -> Path:
        """Return a local folder with the report of an ensemble version.

        Args:
            version: The ensemble version.

        Returns:
            The folder with `report.html` and the other files that were logged.

        Raises:
            NotFoundError: If it has no report.
        """
        missing = f"{version.id} has no report in MLflow"
        with self._tracking.guard(f"report of {version.id}", missing):
            found = self._tracking.fetch(version.run_id, "report", None) if version.run_id else None
            if found is None:
                raise NotFoundError(missing)
            return found

    def download(
        self,
        version: CandidateVersion | EnsembleVersion,
        destination: Path | None = None,
        manifest: Manifest | None = None,
        part: str | None = None,
    ) -> Path:
        """Return a folder with a candidate's weights, or with what an ensemble's loader is given.

        An ensemble is compared with its manifest, where there is one, before any of its files is parsed. Nothing is
        moved or removed, and no link is followed.

        Args:
            version: The version.
            destination: Folder to copy to; without one, files that lie on this machine are not copied.
            manifest: That of the ensemble; None when there is none.
            part: Folder of the ensemble whose files alone are compared, for a caller that reads no others.

        Returns:
            The local folder, which must not be changed when nothing was copied.

        Raises:
            NotFoundError: If the version has no such files.
            StoreError: If MLflow fails or the disk is full.
            IntegrityError: If the files of an ensemble differ from the manifest; without one, if there are links among
                them, or its `MLmodel` names a folder outside.
        """
        is_ensemble = isinstance(version, EnsembleVersion)
        place = "ensemble" if isinstance(version, EnsembleVersion) else version.weights
        what = "model" if is_ensemble else "weights"
        missing = f"{version.id} has no {what} in the registry; run its tournament again"
        with self._tracking.guard(f"download {version.id}", missing), disk_in_words("download", self._tracking.home):
            found = self._tracking.fetch(version.run_id, place, destination) if place and version.run_id else None
            if found is None:
                raise NotFoundError(missing)
            return _compared(found, version, manifest, part) if isinstance(version, EnsembleVersion) else found

    def files(self, version: EnsembleVersion) -> Path:
        """Return a local folder with all files of an ensemble as MLflow holds them, compared with nothing.

        Args:
            version: The ensemble version.

        Returns:
            The folder with its `MLmodel`; its files must not be changed.

        Raises:
            NotFoundError: If the version has no files.
        """
        missing = f"{version.id} has no model in the registry"
        with self._tracking.guard(f"files of {version.id}", missing):
            found = self._tracking.fetch(version.run_id, "ensemble", None) if version.run_id else None
            if found is None:
                raise NotFoundError(missing)
            return found

    # How it is done

    def _listed(self, name: str, number: str) -> CandidateVersion | None:
        """Return a candidate from the list of all, where that is remembered: one question in place of many."""
        if not self._tracking.remembers:
            return None
        found = [one for one in self._tracking.versions(_HAS_SPEC) if (one.name, one.version) == (name, number)]
        known = self._tracking.metrics(CANDIDATE_EXPERIMENT) if found else {}
        for one in found:
            run_id = run_of(one)
            return as_candidate(one, known[run_id] if run_id in known else self._tracking.metrics_of(run_id))
        return None

    def _look_around(self) -> None:
        """Have what commands show remembered, now that MLflow was imported for one of them; it takes milliseconds."""
        with suppress(TournamentError), self._tracking.guard("look around"):  # whoever needs it is told
            self.candidates()
            self.ensembles()
            self.previous()
            if (champion := self.champion()) and champion.run_id:
                self._tracking.artifacts_of(champion.run_id)

    def _aliased(self, alias: str) -> EnsembleVersion | None:
        with self._tracking.guard(f"read alias {alias} of {self.ensemble_name}"):
            version = self._tracking.aliased(self.ensemble_name, alias)
            return None if version is None else as_ensemble(version)

    def _run_for(self, version: RegisteredVersion) -> str:
        """Return the run that a version's weights go to; one of our own when plain MLflow gave it none."""
        if run_id := run_of(version):
            return run_id
        id = f"{version.name}/{version.version}"
        run = self._tracking.run_with(CANDIDATE_EXPERIMENT, version.name, {"tournament.candidate": id})
        self._tracking.client.set_model_version_tag(version.name, str(version.version), RUN_TAG, run.info.run_id)
        return str(run.info.run_id)


def _compared(found: Path, version: EnsembleVersion, manifest: Manifest | None, part: str | None) -> Path:
    """Return the folder that an ensemble's loader is given, after it was compared with the manifest."""
    what = f"{version.id} in MLflow"
    data = pyfunc_data(found) if manifest is None else inside(found, manifest.data, what)
    if not data.is_dir():
        raise StoreError(f"MLflow has no files of {version.id} in {data.name}; is its artifact store reachable?")
    if manifest is None:
        check_plain(data, what)
        return data
    if part is None:
        check(found, manifest, what, SEE_FILES)
    else:
        place = f"{manifest.data}/{part}"
        check(inside(found, place, what), manifest.part(place), f"{part} of {what}", SEE_FILES)
    return data
