"""Models that stand in MLflow's registry under `models:/` addresses, whoever has logged them: looked up and copied.

Addresses are looked up in the registry of the tournament. MLflow's own default would be whatever the process or the
current folder names. Nothing of a model is executed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from esci_tournament.registry.addresses import without_password
from esci_tournament.registry.errors import SpecError, StoreError, TournamentError
from esci_tournament.registry.tracking import name_is, quieten

SCHEME = "models:/"
# Not part of a model: importing its code creates it, and copies of artifacts may lack it.
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_COMPILED = shutil.ignore_patterns("__pycache__")


def fetch(address: str, folder: Path, tracking_uri: str) -> None:
    """Copy the files of a model.

    Args:
        address: `models:/NAME/VERSION` or `models:/m-ID`.
        folder: Where to; it must not exist.
        tracking_uri: MLflow's address.

    Raises:
        SpecError: If there is no such model, or its files are gone.
        StoreError: If MLflow or its artifact store does not answer.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        shutil.copytree(_download(address, "", Path(scratch), tracking_uri), folder, ignore=_COMPILED)


def fetch_file(address: str, name: str, folder: Path, tracking_uri: str) -> Path:
    """Copy one file of a model.

    Args:
        address: `models:/NAME/VERSION` or `models:/m-ID`.
        name: Path of the file among those of the model, with `/`.
        folder: Where to; it must exist.
        tracking_uri: MLflow's address.

    Returns:
        The copy.

    Raises:
        SpecError: If there is no such model or file.
        StoreError: If MLflow or its artifact store does not answer.
    """
    return _download(address, name, folder, tracking_uri)


def place_of(address: str, tracking_uri: str) -> str:
    """Return where the files of a model lie: another place for another model, also under an address used before.

    Args:
        address: `models:/NAME/VERSION` or `models:/m-ID`. MLflow gives numbers again when a registered model was
            deleted.
        tracking_uri: MLflow's address.

    Returns:
        The address of its artifacts.

    Raises:
        SpecError: If there is no such model.
        StoreError: If MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    quieten()
    client = MlflowClient(tracking_uri, tracking_uri)
    try:
        name, _, version = address.removeprefix(SCHEME).rpartition("/")
        place = str(client.get_model_version_download_uri(name, version)) if name else address
        if place.startswith(SCHEME):  # a version may point to a logged model
            place = str(client.get_logged_model(place.removeprefix(SCHEME)).artifact_location)
    except (MlflowException, OSError) as error:
        told = _in_words(f"model {address} cannot be read", tracking_uri, error)
        raise told from error
    return place.rstrip("/")


def _download(address: str, name: str, folder: Path, tracking_uri: str) -> Path:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    # download_artifacts itself would look the address up in the registry of the process, whatever it is told
    place = place_of(address, tracking_uri)
    try:
        return Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"{place}/{name}".rstrip("/"), dst_path=str(folder), tracking_uri=tracking_uri
            )
        )
    except (MlflowException, OSError) as error:
        raise _in_words(f"model {address} cannot be fetched", tracking_uri, error) from error


def _in_words(doing: str, tracking_uri: str, error: Exception) -> TournamentError:
    """Return the error of a model that is not there, or of a server that does not answer: another look may find it."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    missing = isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") in _MISSING
    kind = SpecError if missing else StoreError
    return kind(f"{doing} from MLflow at {without_password(tracking_uri)}: {said}")


def version_of(address: str, tracking_uri: str) -> tuple[str, int]:
    """Return the registered version that an address names now.

    Args:
        address: `models:/NAME/VERSION`, `models:/NAME@ALIAS` or `models:/NAME/latest`.
        tracking_uri: MLflow's address.

    Returns:
        Name and version.

    Raises:
        SpecError: If it is written otherwise, or there is no such version.
        StoreError: If MLflow does not answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    quieten()
    client = MlflowClient(tracking_uri, tracking_uri)
    found = re.fullmatch(r"models:/([^/@:]+)(?:/([0-9]+|latest)|@([^/@:]+))", address)
    if found is None:
        raise SpecError(f"{address}: a registered model is named models:/NAME/VERSION, or models:/NAME@ALIAS")
    name, version, alias = found.groups()
    try:
        if alias:
            return name, int(client.get_model_version_by_alias(name, alias).version)
        if version == "latest":
            client.get_registered_model(name)
            versions = [int(one.version) for one in client.search_model_versions(name_is(name))]
            if not versions:
                raise SpecError(f"{address}: the registered model {name} has no version")
            return name, max(versions)
        return name, int(client.get_model_version(name, version).version)
    except MlflowException as error:
        told = _in_words(f"model {address} cannot be read", tracking_uri, error)
        raise told from error
