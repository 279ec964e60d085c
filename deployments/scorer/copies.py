"""Local copies of champions, so that a scorer can serve while MLflow is out of reach.

Beside a copy stands the manifest that was approved, and its digest in the copy's card. A copy that knows newer data has
a manifest of its own too: weights, aggregator and all members that were not refreshed are the approved ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from esci_tournament.deployments.scorer.champion import Card
from esci_tournament.registry.errors import IntegrityError, StoreError
from esci_tournament.registry.files import disk_in_words, publish, temporary_folder, write_atomically
from esci_tournament.registry.manifests import Manifest, check, check_plain, manifest_of, write
from esci_tournament.registry.models import Models
from esci_tournament.registry.versions import EnsembleVersion

_CARD, _ENSEMBLE, _LAST = "card.json", "ensemble", "last-good.json"
_APPROVED, _OWN = "approved_manifest.json", "own_manifest.json"
_WEIGHTS = ".safetensors"
KEPT = 5  # the champion and the one before it, each as registered and with newer data, and the next one


class Copies:
    """Copies of ensemble versions in one folder; a copy is complete or absent.

    Args:
        folder: where they are kept; made when something is written.
        approved: called with a card; returns the manifest that the ledger has for it, None when it has none.
    """

    def __init__(self, folder: Path, approved: Callable[[Card], Manifest | None] = lambda card: None) -> None:
        self.folder, self._approved = folder, approved

    def find(self, name: str, version: int, data: str = "") -> tuple[Path, Card] | None:
        """Find a copy; its files are not read, see :meth:`checked`.

        Args:
            name: name of the registered model.
            version: its version.
            data: version of the newer data that it knows, "" for the ensemble as it was registered.

        Returns:
            The ensemble's folder and card, or None when there is no copy.
        """
        return _read(self._place(name, version, data))

    def checked(self, card: Card) -> Path:
        """Return the ensemble's folder of a copy after all its files were compared; nothing in it is parsed before.

        Args:
            card: which copy.

        Returns:
            The folder.

        Raises:
            StoreError: if the copy is gone.
            IntegrityError: if its files are not those that were approved, or that it had when it was refreshed.
        """
        place = self._place_of(card)
        found = _read(place)
        if found is None or found[1] != card:
            raise StoreError(f"the copy of {card.title} is gone from {self.folder}")
        folder, what = found[0], f"the copy of {card.title} in {place}"
        if card.manifest:
            approved = _kept(place / _APPROVED, card.manifest, what).served
            if card.refreshed:
                own = _kept(place / _OWN, card.content, what)
                _check_refreshed(own, approved, what)
                approved = own
            check(folder, approved, what, "it is not used")
        else:
            check_plain(folder, what)
        return folder

    def fetch(self, models: Models, card: Card, version: EnsembleVersion | None = None) -> Path:
        """Copy a version from MLflow, in place of a copy that may be there, and compare it with its manifest.

        Args:
            models: MLflow's registry.
            card: which version.
            version: the version as it is on record, whose run has the files even when MLflow's version was deleted;
                default: MLflow is asked for it.

        Returns:
            The ensemble's folder.

        Raises:
            StoreError: if MLflow cannot be read or the disk is full.
            NotFoundError: if MLflow has no such version, or no files of it.
            IntegrityError: if MLflow holds other files than those that were approved; nothing of them is kept.
        """
        place, manifest = self._place_of(card), self._manifest(card)
        with disk_in_words("copy of the champion", self.folder), temporary_folder(self.folder, place.name) as made:
            data = models.download(version or models.ensemble(card.version), made / "download", manifest)
            if not data.is_relative_to(made):  # what is not our own copy is neither moved nor removed
                raise IntegrityError(f"{card.id} in MLflow leads to {data}; it is not used")
            (made / _ENSEMBLE).mkdir()
            publish(data, made / _ENSEMBLE / data.name)
            shutil.rmtree(made / "download", ignore_errors=True)
            if manifest is not None:
                write(manifest, made / _APPROVED)
            self._keep(made, card)
        return place / _ENSEMBLE / data.name

    def refresh(self, card: Card, data: str, refreshed: Callable[[Path, Path], dict[str, int]]) -> Card:
        """Make a copy that knows newer data from an existing one.

        Args:
            card: card of the existing copy.
            data: version of the newer data.
            refreshed: called with the folder of the existing ensemble and an empty folder, into which it writes the new
                one; returns candidate id -> number of products computed anew, for the members that use the new edges.

        Returns:
            The card of the new copy.

        Raises:
            StoreError: if the copy is gone or the disk is full.
            IntegrityError: if its files are not those that were approved, or the new copy has other weights.
        """
        folder, place = self.checked(card), self._place(card.name, card.version, data)
        with disk_in_words("refreshed champion", self.folder), temporary_folder(self.folder, place.name) as made:
            target = made / _ENSEMBLE / folder.name
            target.mkdir(parents=True)
            changed = refreshed(folder, target)
            fresh = replace(
                card, data_version=data, refreshed=True, edges=data if any(changed.values()) else card.edges
            )
            if card.manifest:
                fresh = replace(fresh, content=self._sealed(made, target, card).digest)
            self._keep(made, fresh)
        return fresh

    def discard(self, card: Card) -> None:
        """Remove a copy, such as one that does not load."""
        shutil.rmtree(self._place_of(card), ignore_errors=True)

    def last_good(self) -> tuple[Path, Card] | None:
        """Return the folder and the card of the copy that served last, or None when there is none."""
        try:
            card = Card.from_json((self.folder / _LAST).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return _read(self._place_of(card))

    def served(self, card: Card) -> None:
        """Record that a copy serves, and remove all but the newest :data:`KEPT` copies.

        Args:
            card: card of the copy.

        Raises:
            StoreError: if the note cannot be written.
        """
        try:
            write_atomically(self.folder / _LAST, card.to_json().encode())
            self._place_of(card).touch()
            others = [one for one in self.folder.iterdir() if (one / _CARD).is_file() and one != self._place_of(card)]
            for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written: {error}; the champion serves nevertheless") from error

    def _manifest(self, card: Card) -> Manifest | None:
        """Return the manifest that was approved of a card, None for one from before manifests were kept."""
        if not card.manifest:
            return None
        found = self._approved(card)
        if found is None or found.digest != card.manifest:
            raise IntegrityError(f"the ledger does not have manifest {card.manifest[:12]} of {card.id}; it is not used")
        return found

    def _sealed(self, made: Path, target: Path, card: Card) -> Manifest:
        """Write the manifests of a copy that has just been refreshed, and return its own."""
        what = f"the refreshed copy of {card.id}"
        approved, own = _kept(self._place_of(card) / _APPROVED, card.manifest, what), manifest_of(target)
        _check_refreshed(own, approved.served, what)
        write(approved, made / _APPROVED)
        write(own, made / _OWN)
        return own

    def _keep(self, made: Path, card: Card) -> None:
        """Move a finished copy to its final place."""
        (made / _CARD).write_text(card.to_json(), encoding="utf-8")
        shutil.rmtree(self._place_of(card), ignore_errors=True)
        publish(made, self._place_of(card))

    def _place_of(self, card: Card) -> Path:
        return self._place(card.name, card.version, card.data_version if card.refreshed else "")

    def _place(self, name: str, version: int, data: str) -> Path:
        return self.folder / (f"{name}-{version}-with-{data[:16]}" if data else f"{name}-{version}")


def _read(place: Path) -> tuple[Path, Card] | None:
    try:
        card = Card.from_json((place / _CARD).read_text(encoding="utf-8"))
        return next((place / _ENSEMBLE).iterdir()), card
    except (OSError, ValueError, TypeError, KeyError, StopIteration):
        return None


def _kept(path: Path, digest: str, what: str) -> Manifest:
    """Return a manifest that stands beside a copy, which must be the one that the copy's card names."""
    found = Manifest.read(path)
    if found.digest != digest:
        raise IntegrityError(f"{what}: {path.name} is not manifest {digest[:12]}; it is not used")
    return found


def _check_refreshed(own: Manifest, approved: Manifest, what: str) -> None:
    """Refuse a refreshed copy in which more differs from the approved files than what members compute ahead."""
    # What a member computes ahead stands in the member's folder. Weights, and all that is no member's, never change.
    for name in sorted(own.files.keys() | approved.files.keys()):
        fixed = name.endswith(_WEIGHTS) or not name.startswith("members/")
        if fixed and own.files.get(name) != approved.files.get(name):
            raise IntegrityError(f"{what}: {name} is not the approved one; only what members compute ahead may change")
