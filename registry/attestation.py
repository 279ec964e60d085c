"""Which manifest an ensemble has, by whose word, and whether the files of the champion are those that were approved.

The ledger's word counts: the manifest of an ensemble was recorded with it, before it was decided on. For champions
from before manifests were kept, an operator may record one later. A process that knows no ledger may know the digest
(setting `manifest_digest`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from esci_tournament.registry import tables
from esci_tournament.registry.errors import IntegrityError, NotFoundError, UsageError
from esci_tournament.registry.manifests import (
    FILE,
    Manifest,
    as_payload,
    check,
    check_plain,
    manifest_of,
    recorded,
)
from esci_tournament.registry.spelling import counted
from esci_tournament.registry.tracking import pyfunc_data

if TYPE_CHECKING:
    from pathlib import Path

    from esci_tournament.registry.ledger import Ledger
    from esci_tournament.registry.records import Event
    from esci_tournament.registry.versions import EnsembleVersion
    from esci_tournament.registry.workspace import Workspace

ATTESTED, DIFFERS = "ensemble_attested", "ensemble_differs"  # kinds of events; subject: name/version
UNATTESTED = (
    "was promoted before manifests were kept: nothing says which files were approved, so they are compared with "
    "nothing. Record those that MLflow holds now: tournament champion attest --reason WHY"
)

_NOT_LOADED = "it is not loaded. Load the champion (models:/NAME@champion), or restore its files from a backup"

Source = Literal["approved", "attested later", ""]


@dataclass(frozen=True)
class Attested:
    """What the ledger says of the files of an ensemble.

    Attributes:
        manifest: Its manifest, None when there is none.
        source: "approved" when it was recorded before the decision, "attested later" by an operator, "" without one.
    """

    manifest: Manifest | None
    source: Source

    @property
    def digest(self) -> str:
        """The manifest's digest, "" when there is none."""
        return self.manifest.digest if self.manifest else ""


def attested(ledger: Ledger, name: str, version: int) -> Attested:
    """Return the manifest that the ledger has for an ensemble.

    Args:
        ledger: The ledger.
        name: Name of the ensemble.
        version: Its version.

    Returns:
        The manifest that was recorded with it, else the first one that an operator recorded later.

    Raises:
        IntegrityError: If a recorded manifest was changed.
    """
    with ledger.reading() as rows:
        row = rows.one(tables.ensembles, {"name": name, "version": version})
        if row is not None and (found := recorded(row["payload"])):
            return Attested(found, "approved")
        later = rows.all(tables.events, kind=ATTESTED, subject=f"{name}/{version}")
    if later and (found := recorded(later[0]["payload"])):
        return Attested(found, "attested later")
    return Attested(None, "")


def attest(workspace: Workspace, version: EnsembleVersion, reason: str) -> Manifest:
    """Record the manifest of what MLflow holds of an ensemble that has none, in an event of its own.

    Args:
        workspace: Ledger and model registry.
        version: The ensemble.
        reason: Why these files are held to be the right ones.

    Returns:
        The manifest.

    Raises:
        UsageError: If the reason is blank, or the ensemble has a manifest.
        IntegrityError: If what MLflow holds has links in it or a path that leaves its folder.
        NotFoundError: If MLflow has no files of it.
    """
    if not reason.strip():
        raise UsageError("recording a manifest needs a reason, which is kept in the ledger")
    ledger = workspace.ledger
    with ledger.exclusive(f"attest {version.id}"):
        if before := attested(ledger, version.name, version.version).manifest:
            raise UsageError(
                f"{version.id} has manifest {before.digest[:12]} already, and a manifest never changes; "
                "tournament doctor compares its files with it"
            )
        folder = workspace.models.files(version)
        data = pyfunc_data(folder).relative_to(folder).as_posix()
        manifest = manifest_of(folder, data, {"members": list(version.members), "attested": "from what MLflow held"})
        if not manifest.served.files:
            raise NotFoundError(f"MLflow has no files of {version.id} in {data}")
        ledger.record_event(ATTESTED, version.id, payload={"reason": reason.strip(), **as_payload(manifest)})
    return manifest


def tell_difference(ledger: Ledger, id: str, words: str, where: str) -> Event | None:
    """Record in the ledger that files of an ensemble differ from its manifest, once for each message.

    Args:
        ledger: The ledger.
        id: `name/version` of the ensemble.
        words: What differs.
        where: Who noticed, such as "score".

    Returns:
        The event; None when it was recorded before.
    """
    digest = hashlib.sha256(words.encode()).hexdigest()[:16]
    with ledger.reading() as rows:
        told = {row["payload"].get("of") for row in rows.all(tables.events, kind=DIFFERS, subject=id)}
    if digest in told:
        return None
    return ledger.record_event(DIFFERS, id, payload={"text": words[:2000], "noticed_by": where, "of": digest})


def check_unknown(folder: Path, what: str, digest: str | None) -> tuple[str, ...]:
    """Compare an ensemble with the manifest beside it, in a process to which no ledger says which one is right.

    Args:
        folder: The folder that the ensemble's loader is given.
        what: What the ensemble is, as messages begin.
        digest: Digest that the manifest must have (setting `manifest_digest`); None when that is not known either.

    Returns:
        Warnings: that nothing says who made the manifest, or that there is none.

    Raises:
        IntegrityError: If the files differ from the manifest, or the manifest from `digest`.
    """
    root = _model_of(folder)
    if root is None:
        if digest is not None:
            raise IntegrityError(f"{what}: no {FILE} beside the model, so its files cannot be those of {digest[:12]}")
        check_plain(folder, what)
        return (f"{what}: there is no manifest beside the model, so its files were compared with nothing",)
    manifest = Manifest.read(root / FILE)
    if digest is not None and manifest.digest != digest:
        raise IntegrityError(
            f"{what} has manifest {manifest.digest[:12]}, and the setting manifest_digest says {digest[:12]}; it is "
            "not loaded"
        )
    check(root, manifest, what, "it is not loaded")
    if digest is not None:
        return ()
    return (
        f"{what}: its files are whole by the manifest beside them. Who made that manifest is not known here: let the "
        "process know the ledger (TOURNAMENT_HOME or TOURNAMENT_LEDGER_URL) or TOURNAMENT_MANIFEST_DIGEST",
    )


def check_loaded(folder: Path, ledger: Ledger, ensemble: str) -> tuple[str, ...]:
    """Compare an ensemble that MLflow loads with the ledger, which has the manifest of every ensemble.

    Which version it is MLflow does not say. The ledger must have the manifest that stands beside the model; without
    one, the files must be those of the champion.

    Args:
        folder: The folder that the ensemble's loader is given.
        ledger: The ledger.
        ensemble: Name of the ensemble.

    Returns:
        Warnings: that it is not the champion, or that there was nothing to compare with.

    Raises:
        IntegrityError: If the ledger knows no such files.
    """
    standing = ledger.standing(ensemble)
    champion = standing.champion
    known = attested(ledger, ensemble, champion.version) if champion else Attested(None, "")
    root = _model_of(folder)
    if root is None:
        if known.manifest is not None:
            _check_model(folder, known.manifest)
            return ()
        if champion is not None and not _any_manifest(ledger, ensemble):
            check_plain(folder, f"the model in {folder}")
            return (f"{ensemble}/{champion.version} {UNATTESTED}",)
        raise IntegrityError(f"the model in {folder} has no manifest, and the ledger has none for it; {_NOT_LOADED}")
    beside = Manifest.read(root / FILE).digest
    version = _version_of(ledger, ensemble, beside)
    if version is None:
        raise IntegrityError(f"the ledger has no ensemble with manifest {beside[:12]}, that of {root}; {_NOT_LOADED}")
    manifest = attested(ledger, ensemble, version).manifest
    if manifest is None or manifest.digest != beside:
        raise IntegrityError(f"the ledger's manifest of {ensemble}/{version} is not {beside[:12]}; {_NOT_LOADED}")
    check(root, manifest, f"{ensemble}/{version} in {root}", _NOT_LOADED)
    if champion is None or champion.version != version:
        now = f"version {champion.version}" if champion else "none"
        return (f"version {version} of {ensemble} is loaded; the champion by the ledger is {now}",)
    return ()


def _model_of(folder: Path) -> Path | None:
    """Return the folder of the model, whose loader is given `folder`, when a manifest stands in it; else None."""
    root = folder.absolute().parent.parent  # its data stands in data/NAME
    return root if (root / FILE).exists() else None


def _check_model(folder: Path, manifest: Manifest) -> None:
    """Compare a model, or what its loader is given when that stands alone; IntegrityError if it differs."""
    model, what = folder.absolute().parent.parent, f"the model in {folder}"
    if (model / "MLmodel").exists():
        check(model, manifest, what, _NOT_LOADED)
    else:
        check(folder, manifest.served, what, _NOT_LOADED)


def _any_manifest(ledger: Ledger, ensemble: str) -> bool:
    return any(one.name == ensemble and one.manifest_digest for one in ledger.ensembles())


def _version_of(ledger: Ledger, ensemble: str, digest: str) -> int | None:
    """Return the version of the ensemble whose manifest has a digest, None when there is none."""
    found = [one.version for one in ledger.ensembles() if (one.name, one.manifest_digest) == (ensemble, digest)]
    return found[0] if found else None


def champion_in_words(workspace: Workspace) -> str:
    """Compare the champion's files in MLflow with its manifest, and return in words that they are the same.

    Args:
        workspace: Ledger and model registry.

    Returns:
        A sentence; that there is nothing to compare, when there is no champion or no manifest.

    Raises:
        IntegrityError: If they differ.
        NotFoundError: If MLflow has no such version or no files of it.
    """
    ledger, models = workspace.ledger, workspace.models
    champion = ledger.standing(models.ensemble_name).champion
    if champion is None:
        return "no champion by the ledger, so no files to compare"
    known = attested(ledger, champion.ensemble, champion.version)
    if known.manifest is None:
        return f"version {champion.version} {UNATTESTED}"
    try:
        models.download(models.ensemble(champion.version), manifest=known.manifest)
    except IntegrityError as error:
        tell_difference(ledger, f"{champion.ensemble}/{champion.version}", str(error), "doctor")
        raise
    size = sum(one.size for one in known.manifest.files.values()) / 2**20
    return (
        f"{counted(len(known.manifest.files), 'file')} of version {champion.version} ({size:,.1f} MiB) as in manifest "
        f"{known.digest[:12]}, {'which was approved' if known.source == 'approved' else 'attested by an operator'}"
    )
