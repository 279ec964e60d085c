"""The loader module that MLflow uses for `models:/<ensemble>@champion`; nothing is unpickled.

Importing it must be cheap: :mod:`esci_tournament.deployments.mlflow_plugin` imports it wherever MLflow is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from esci_tournament.tasks.ensemble.ensemble import Ensemble


class EnsembleModel:
    """The pyfunc flavour of an ensemble.

    Args:
        served: The ensemble, loaded.
    """

    def __init__(self, served: Ensemble) -> None:
        self.served = served

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the class probabilities and the label of each query-product pair.

        Args:
            frame: One row a pair, with the official ESCI column names; query and product_locale are required, product
                columns that are absent are taken as empty.
            params: Parameters of MLflow's interface; ignored.

        Returns:
            One row for each row of `frame`, on its index: float32 columns E, S, C and I that add up to 1, and label,
            the letter of the most probable class.

        Raises:
            DataError: if a required column is absent, a query blank or a locale unknown.
        """
        return self.served.predict(frame)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> EnsembleModel:
    """Return the model stored at `path`; MLflow calls this by name."""
    from esci_tournament.tasks.candidates.device import resolve_device
    from esci_tournament.tasks.ensemble.ensemble import Ensemble

    return EnsembleModel(Ensemble.load(Path(path), str(resolve_device("auto"))))
