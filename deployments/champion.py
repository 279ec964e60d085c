"""The champion as a model in this process: loaded from MLflow, asked with pandas frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esci_tournament.registry.errors import NotFoundError

if TYPE_CHECKING:
    import pandas as pd

    from esci_tournament.registry.workspace import Workspace
    from esci_tournament.tasks.ensemble.ensemble import Ensemble


@dataclass(frozen=True)
class ChampionModel:
    """An ensemble version that is champion, loaded.

    Attributes:
        version: Its version in MLflow.
        members: Candidate ids (`name/version`), in the order of the aggregator's columns.
        ensemble: Its members and aggregator.
    """

    version: int
    members: tuple[str, ...]
    ensemble: Ensemble

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the class probabilities and the label of each row, on the index of `frame`.

        Args:
            frame: Official column names of the Shopping Queries Dataset. query and product_locale are required;
                product_id and the five text columns are taken as empty when they are absent.

        Returns:
            float32 columns E, S, C and I that add up to 1, and label, the letter of the most probable class.

        Raises:
            DataError: if a required column is absent, a query blank or a locale unknown.
        """
        return self.ensemble.predict(frame)


def load_champion(workspace: Workspace, device: str = "auto") -> ChampionModel:
    """Return the champion of a workspace.

    Args:
        workspace: Where it is registered.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        NotFoundError: if there is none.
    """
    from esci_tournament.tasks.candidates.device import resolve_device
    from esci_tournament.tasks.ensemble.ensemble import Ensemble

    version = workspace.models.champion()
    if version is None:
        raise NotFoundError("there is no champion yet; hold a tournament first: tournament run --help")
    ensemble = Ensemble.load(workspace.models.download(version), str(resolve_device(device)))
    return ChampionModel(version.version, tuple(ensemble.members), ensemble)
