"""What MLflow imports from this distribution by itself, so that champions of version 0.1.0 go on loading.

Their MLmodel files name the loader module `deployments.pyfunc_model`. No distribution may claim so common a name, and
the user's current folder may well hold a `deployments.py`; MLflow, however, imports every plug-in that is installed
before it loads a model, and the module stands under its former name from then on.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from esci_tournament.deployments import pyfunc_model

FORMER_LOADER = "deployments.pyfunc_model"

sys.modules.setdefault(FORMER_LOADER, pyfunc_model)


def no_repository(uri: str, *arguments: object, **options: object) -> NoReturn:
    """Refuse to make a store of artifacts: the entry point of this kind is here only because MLflow imports it.

    Args:
        uri: Address of the artifacts.
        *arguments: Further arguments of MLflow's factories.
        **options: Further options of MLflow's factories.

    Raises:
        MlflowException: always.
    """
    from mlflow.exceptions import MlflowException

    raise MlflowException(f"{uri}: the scheme esci-tournament names no store of artifacts; use a path or a web address")
