"""What MLflow loads for `models:/<ensemble>@champion`: a loader module, so nothing is ever unpickled.

Importing it is cheap, because :mod:`esci_tournament.deployments.mlflow_plugin` does so wherever MLflow is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from esci_tournament.tasks.ensemble.ensemble import Ensemble


class EnsembleModel:
    """The pyfunc flavour of an ensemble."""

    def __init__(self, served: Ensemble) -> None:
        self.served = served

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return columns E, S, C, I and label for rows with official ESCI column names."""
        return self.served.predict(frame)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> EnsembleModel:
    """Return the model stored at `path`; MLflow calls this by name."""
    from esci_tournament.tasks.candidates.device import resolve_device
    from esci_tournament.tasks.ensemble.ensemble import Ensemble

    return EnsembleModel(Ensemble.load(Path(path), str(resolve_device("auto"))))
