"""The loader module that MLflow uses for `models:/<ensemble>@champion`; nothing is unpickled.

Importing it must be cheap: :mod:`esci_tournament.deployments.mlflow_plugin` imports it wherever MLflow is used.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from esci_tournament.tasks.ensemble.ensemble import Ensemble


class EnsembleModel:
    """The pyfunc flavour of an ensemble.

    Args:
        served: The ensemble, loaded.
        label_only: Whether :meth:`predict` returns the column of labels alone, as MLflow's evaluation of classifiers
            wants it.
    """

    def __init__(self, served: Ensemble, label_only: bool = False) -> None:
        self.served, self.label_only = served, label_only

    def predict(self, frame: Any, params: dict[str, Any] | None = None) -> pd.DataFrame | pd.Series:
        """Return the class probabilities and the label of each query-product pair.

        Args:
            frame: One row a pair, with the official ESCI column names; query and product_locale are required, product
                columns that are absent are taken as empty. A frame, columns by name, or a list of rows by name.
            params: Parameters of MLflow's interface; ignored.

        Returns:
            One row for each row of `frame`, on its index: float32 columns E, S, C and I that add up to 1, and label,
            a letter: that of the class the ensemble decides for, which is not always the most probable one.

        Raises:
            DataError: if a required column is absent, a query blank or a locale unknown.
        """
        from esci_tournament.tasks.ensemble.rows import frame_of

        answer = self.served.predict(frame_of(frame))
        return answer["label"] if self.label_only else answer


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> EnsembleModel:
    """Return the model stored at `path`, after its files were compared; MLflow calls this by name.

    They are compared with the manifest in the ledger, where the settings of this process name one that exists; else
    with the setting `manifest_digest`; else with the manifest beside the model, and a warning says that this proves
    nothing about who made the files.

    Args:
        path: Folder of the ensemble.
        model_config: `{"answer": "label"}` for labels alone; default: probabilities and labels.

    Raises:
        UsageError: if `answer` is anything else than "label" or "all".
        IntegrityError: if the files differ, or the ledger does not know them.
        StoreError: if the ledger cannot be read.
    """
    from esci_tournament.registry.errors import UsageError
    from esci_tournament.tasks.candidates.device import resolve_device
    from esci_tournament.tasks.ensemble.ensemble import Ensemble

    answer = (model_config or {}).get("answer", "all")
    if answer not in ("all", "label"):
        raise UsageError(f"model_config: answer is {answer!r}; it is all or label")
    for words in _compared(Path(path)):
        warnings.warn(words, UserWarning, stacklevel=2)
    return EnsembleModel(Ensemble.load(Path(path), str(resolve_device("auto"))), answer == "label")


def _compared(folder: Path) -> tuple[str, ...]:
    """Compare the files of a model with what this process knows of them, and return what is not sure."""
    from esci_tournament.registry.attestation import check_loaded, check_unknown
    from esci_tournament.registry.ledger import Ledger
    from esci_tournament.registry.settings import read_settings

    settings = read_settings()
    if settings.ledger_url or (settings.home / "ledger.db").is_file():
        with Ledger.open(settings.ledger_address) as ledger:
            if ledger.standing(settings.ensemble_name).sequence:
                return check_loaded(folder, ledger, settings.ensemble_name)
    return check_unknown(folder, f"the model in {folder}", settings.manifest_digest)
