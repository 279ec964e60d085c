"""Newer data for the champion: makes a copy of it with newer products and edges, while the old one serves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from esci_tournament.deployments.scorer.champion import Card
from esci_tournament.deployments.scorer.compute.fleet import Fleets
from esci_tournament.deployments.scorer.copies import Copies
from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.live_data import live_data
from esci_tournament.registry.records import Tournament
from esci_tournament.registry.workspace import Workspace

_log = logging.getLogger("scorer")


class NewerData:
    """Follows which data the champion should know; used by the follower's thread.

    Args:
        workspace: has the ledger and the loaded data sets.
        fleets: refreshes the members, in a process of its own.
        failed: called with the reason when a copy cannot be made.
    """

    def __init__(self, workspace: Workspace, fleets: Fleets, failed: Callable[[str], None]) -> None:
        self._workspace, self._fleets, self._failed = workspace, fleets, failed
        self._making: threading.Thread | None = None
        self._given_up: set[tuple[str, str]] = set()  # ensemble and data version

    def card_of(self, base: Card, held: Tournament, serving: Card | None, copies: Copies) -> Card:
        """Return which copy of the champion should serve: as registered, or the one with the newest data.

        When there is no copy with the newest data, one is made in a thread, and what serves now goes on.

        Args:
            base: the champion as registered.
            held: the tournament that built it.
            serving: card of what serves now, None for nothing.
            copies: the copies on this machine.

        Returns:
            The card of the copy that should serve now.
        """
        current = serving if serving is not None and _same(serving, base) else None
        data = live_data(self._workspace.ledger, held)
        if data == base.data_version or (base.id, data) in self._given_up:
            return current or base
        if current is not None and current.data_version == data:
            return current
        found = copies.find(base.name, base.version, data)
        if found is not None and _same(found[1], base):
            return found[1]
        if current is not None:  # the champion serves as it is before its data is refreshed
            self._make(base, data, copies)
        return current or base

    def give_up(self, card: Card) -> None:
        """Make no further copy with this card's data, because it does not load."""
        self._given_up.add((card.id, card.data_version))

    def _make(self, base: Card, data: str, copies: Copies) -> None:
        if self._making is not None and self._making.is_alive():
            return
        stages = self._workspace.stages
        folder = stages.find(stages.key("load", version=data))
        if folder is None:
            self._give_up(base, data, f"data {data[:12]} is not in this home; refresh it here")
            return

        def work() -> None:
            begun = time.monotonic()
            try:
                if copies.find(base.name, base.version) is None:
                    copies.fetch(self._workspace.models, base, self._workspace.roll.ensemble(base.version))
                fresh = copies.refresh(base, data, lambda old, new: self._write(old, folder, new))
            except TournamentError as error:
                self._give_up(base, data, str(error))
            else:
                _log.info("%s is there after %.1f s", fresh.title, time.monotonic() - begun)

        self._making = threading.Thread(target=work, daemon=True, name="newer data")
        self._making.start()

    def _write(self, old: Path, data: Path, new: Path) -> dict[str, int]:
        changed = self._fleets.refresh(old, data, new)
        for name, number in changed.items():
            _log.info("%s: %d products have other neighbours now", name, number)
        return changed

    def _give_up(self, base: Card, data: str, why: str) -> None:
        self._given_up.add((base.id, data))
        _log.warning("%s goes on with the data it knows: %s", base.id, why)
        self._failed(why)


def _same(one: Card, other: Card) -> bool:
    return (one.id, one.tournament, one.manifest) == (other.id, other.tournament, other.manifest)
