"""The MLflow plug-in of this distribution: champions that version 0.1.0 registered go on loading.

Their MLmodel files name the loader module `deployments.pyfunc_model`. That name is too common for a distribution to
claim, and the user's current folder may hold a `deployments.py`. MLflow imports every installed plug-in before it loads
a model, so importing this module is the place to register the loader under that name.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from esci_tournament.deployments import pyfunc_model

FORMER_LOADER = "deployments.pyfunc_model"

sys.modules.setdefault(FORMER_LOADER, pyfunc_model)


def no_repository(uri: str, *arguments: object, **options: object) -> NoReturn:
    """Raise an error: no artifact store exists for the scheme; the entry point is there so that MLflow imports this.

    Args:
        uri: Address of the artifacts, with the scheme `esci-tournament`.
        *arguments: Further arguments of MLflow's factories, ignored.
        **options: Further options of MLflow's factories, ignored.

    Raises:
        MlflowException: always.
    """
    from mlflow.exceptions import MlflowException

    raise MlflowException(f"{uri}: the scheme esci-tournament names no store of artifacts; use a path or a web address")
