"""A home folder's settings and its stores, each opened when it is first used."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.files import make_folder, make_home
from esci_tournament.registry.settings import Settings

if TYPE_CHECKING:
    from esci_tournament.registry.ledger import Ledger
    from esci_tournament.registry.models import Models
    from esci_tournament.registry.roll import Roll
    from esci_tournament.registry.scores import ScoreStore
    from esci_tournament.registry.stages import StageStore


class Workspace:
    """Settings and stores of one home folder. Making it opens nothing; each store opens when first used.

    Args:
        settings: The settings; `home`, `mlflow_uri`, `ledger_url` and `ensemble_name` say where the stores are.
        remembers: Whether MLflow's answers are taken from the home while its database has not changed: for commands
            that only show what is there.
    """

    def __init__(self, settings: Settings, remembers: bool = False) -> None:
        self.settings, self._remembers = settings, remembers

    def folder(self, *parts: str) -> Path:
        """Return a folder below the home, made when it is missing.

        Args:
            parts: Names of folders, the outer one first; none for the home itself.

        Returns:
            The folder.

        Raises:
            StoreError: If it cannot be made.
        """
        place = self.settings.home.joinpath(*parts)
        try:
            make_folder(place)
        except OSError as error:
            raise StoreError(
                f"cannot make the folder {place}: {error.strerror or error}; choose another with --home"
            ) from error
        return place

    @cached_property
    def stages(self) -> StageStore:
        """The store of results of finished stages, under their inputs."""
        from esci_tournament.registry.stages import StageStore

        return StageStore(self.folder("stages"))

    @cached_property
    def scores(self) -> ScoreStore:
        """The store of class probabilities of every candidate version on every data version."""
        from esci_tournament.registry.scores import ScoreStore

        return ScoreStore(self.folder("scores"))

    @cached_property
    def ledger(self) -> Ledger:
        """The append-only record, its schema created when missing."""
        from esci_tournament.registry.ledger import Ledger

        if self.settings.ledger_url is None:
            make_home(self.settings.home)
        else:
            self.folder()
        return Ledger.open(self.settings.ledger_address)

    @cached_property
    def models(self) -> Models:
        """The model registry in MLflow."""
        from esci_tournament.registry.models import Models

        settings = self.settings
        make_home(settings.home)  # for locks, wherever MLflow is
        return Models(settings.tracking_uri, settings.home, settings.ensemble_name, settings.mlflow_ui, self._remembers)

    @cached_property
    def roll(self) -> Roll:
        """The candidates and ensembles of record, which the ledger has and MLflow shows."""
        from esci_tournament.registry.roll import Roll

        return Roll(self.ledger, self.models)
