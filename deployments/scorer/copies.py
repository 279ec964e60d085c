"""Local copies of champions, so that a scorer can serve while MLflow is out of reach."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from esci_tournament.deployments.scorer.champion import Card
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.files import disk_in_words, temporary_folder, write_atomically
from esci_tournament.registry.models import Models
from esci_tournament.registry.versions import EnsembleVersion

_CARD, _ENSEMBLE, _LAST = "card.json", "ensemble", "last-good.json"
KEPT = 5  # the champion and the one before it, each as registered and with newer data, and the next one


class Copies:
    """Copies of ensemble versions in one folder; a copy is complete or absent.

    Args:
        folder: where they are kept; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str, version: int, data: str = "") -> tuple[Path, Card] | None:
        """Find a copy.

        Args:
            name: name of the registered model.
            version: its version.
            data: version of the newer data that it knows, "" for the ensemble as it was registered.

        Returns:
            The ensemble's folder and card, or None when there is no copy.
        """
        return _read(self._place(name, version, data))

    def fetch(self, models: Models, card: Card, version: EnsembleVersion | None = None) -> Path:
        """Copy a version from MLflow, in place of a copy that may be there.

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
        """
        place = self._place_of(card)
        with disk_in_words("copy of the champion", self.folder), temporary_folder(self.folder, place.name) as made:
            data = models.download(version or models.ensemble(card.version), made / "download")
            if not data.is_dir():
                raise StoreError(f"MLflow has no files of {card.id} in {data.name}; is its artifact store reachable?")
            (made / _ENSEMBLE).mkdir()
            data.rename(made / _ENSEMBLE / data.name)
            shutil.rmtree(made / "download", ignore_errors=True)
            self._keep(made, card)
        return place / _ENSEMBLE / data.name

    def refresh(self, card: Card, data: str, write: Callable[[Path, Path], dict[str, int]]) -> Card:
        """Make a copy that knows newer data from an existing one.

        Args:
            card: card of the existing copy.
            data: version of the newer data.
            write: called with the folder of the existing ensemble and an empty folder, into which it writes the new
                one; returns candidate id -> number of products computed anew, for the members that use the new edges.

        Returns:
            The card of the new copy.

        Raises:
            StoreError: if the copy is gone or the disk is full.
        """
        found = _read(self._place_of(card))
        if found is None:
            raise StoreError(f"the copy of {card.title} is gone from {self.folder}")
        place = self._place(card.name, card.version, data)
        with disk_in_words("refreshed champion", self.folder), temporary_folder(self.folder, place.name) as made:
            target = made / _ENSEMBLE / found[0].name
            target.mkdir(parents=True)
            changed = write(found[0], target)
            fresh = replace(
                card, data_version=data, refreshed=True, edges=data if any(changed.values()) else card.edges
            )
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
            copies = [path for path in self.folder.iterdir() if (path / _CARD).is_file()]
            for old in sorted(copies, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written: {error}; the champion serves all the same") from error

    def _keep(self, made: Path, card: Card) -> None:
        """Move a finished copy to its final place."""
        (made / _CARD).write_text(card.to_json(), encoding="utf-8")
        shutil.rmtree(self._place_of(card), ignore_errors=True)
        made.rename(self._place_of(card))

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
