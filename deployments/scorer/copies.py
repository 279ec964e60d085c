"""Local copies of champions: what serves now is on this machine, whatever happens to MLflow."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from esci_tournament.deployments.scorer.champion import Card
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.files import disk_in_words, temporary_folder, write_atomically
from esci_tournament.registry.models import Models

_CARD, _ENSEMBLE, _LAST = "card.json", "ensemble", "last-good.json"
KEPT = 5  # the champion and the one before it, as they came and with newer data, and the one that comes


class Copies:
    """Copies of ensemble versions in one folder, each whole or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str, version: int, data: str = "") -> tuple[Path, Card] | None:
        """Return the ensemble's folder and card if there is a copy; `data`: of one that knows newer data."""
        return _read(self._place(name, version, data))

    def fetch(self, models: Models, card: Card) -> Path:
        """Copy a version from MLflow and return the ensemble's folder.

        Raises:
            StoreError: if MLflow cannot be read or the disk is full. NotFoundError: if it has no such version.
        """
        place = self._place_of(card)
        with disk_in_words("copy of the champion", self.folder), temporary_folder(self.folder, place.name) as made:
            data = models.download(models.ensemble(card.version), made / "download")
            if not data.is_dir():
                raise StoreError(f"MLflow has no files of {card.id} in {data.name}; is its artifact store reachable?")
            (made / _ENSEMBLE).mkdir()
            data.rename(made / _ENSEMBLE / data.name)
            shutil.rmtree(made / "download", ignore_errors=True)
            self._keep(made, card)
        return place / _ENSEMBLE / data.name

    def refresh(self, card: Card, data: str, write: Callable[[Path, Path], dict[str, int]]) -> Card:
        """Make a copy that knows newer data from the one there is, and return its card.

        Args:
            card: of the copy there is. data: the data's version.
            write: writes the ensemble of the first folder into the second, an empty one; returns the members that have
                taken up its edges.

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
        """Return the copy that served last, or None."""
        try:
            card = Card.from_json((self.folder / _LAST).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return _read(self._place_of(card))

    def served(self, card: Card) -> None:
        """Note that a copy serves, and remove all but the newest few.

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
        """Let a copy that was made under another name be found."""
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
