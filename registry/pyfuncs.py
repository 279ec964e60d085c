"""MLflow pyfuncs made elsewhere: copied and checked by this process, opened and so executed only by a separate one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from esci_tournament.registry.errors import IntegrityError, SpecError
from esci_tournament.registry.registered import SCHEME, fetch
from esci_tournament.registry.tracking import inside, mlmodel

# Not part of a model: importing its code creates it, and copies of artifacts may lack it.
_COMPILED = shutil.ignore_patterns("__pycache__")


def fetch_pyfunc(model: str, folder: Path, tracking_uri: str) -> None:
    """Copy a model into `folder`; nothing of it is executed.

    Args:
        model: A folder, or `models:/NAME/VERSION` in the registry at `tracking_uri`.
        folder: Where to; it must not exist.
        tracking_uri: MLflow's address.

    Raises:
        SpecError: If there is no such model, or it has no python_function flavour.
    """
    if model.startswith(SCHEME):
        fetch(model, folder, tracking_uri)
    elif Path(model).is_dir():
        shutil.copytree(Path(model), folder, ignore=_COMPILED)
    else:
        raise SpecError(f"model {model} is no folder; name the folder of an MLflow model, or models:/NAME/VERSION")
    check_pyfunc(folder)


def check_pyfunc(folder: Path) -> None:
    """Check from its `MLmodel` file that a folder is a pyfunc; nothing of it is executed.

    Args:
        folder: The folder with `MLmodel`.

    Raises:
        SpecError: If it is no MLflow model, has no python_function flavour, or names files that are not in the folder:
            the digest of the candidate would say nothing of them.
    """
    flavors = flavors_of(folder)
    if "python_function" not in flavors:
        names = ", ".join(map(str, flavors)) or "none"
        raise SpecError(f"{folder}: its flavours are {names}; python_function is not among them")
    try:
        for name in _paths(flavors["python_function"]):
            inside(folder, name, f"{folder.name}/MLmodel")
    except IntegrityError as error:
        raise SpecError(str(error)) from error


def flavors_of(folder: Path) -> dict[str, Any]:
    """Return the flavours that the `MLmodel` file of a folder names, and what it says of each.

    Args:
        folder: The folder with `MLmodel`.

    Returns:
        Name of the flavour -> what MLflow keeps of it, unchecked.

    Raises:
        SpecError: If it is no MLflow model.
    """
    try:
        return dict(mlmodel(folder)["flavors"])
    except (ValueError, TypeError, KeyError) as error:
        raise SpecError(f"{folder} is no MLflow model: {str(error).splitlines()[0]}") from error


def _paths(flavor: Any) -> Iterator[str]:
    """Yield the paths of files that a python_function flavour names; MLflow's loader takes them as they stand."""
    if not isinstance(flavor, dict):
        return
    artifacts = flavor.get("artifacts")
    listed = artifacts.values() if isinstance(artifacts, dict) else ()
    found = [one.get("path") for one in listed if isinstance(one, dict)]
    for path in (*(flavor.get(key) for key in ("data", "code", "python_model")), *found):
        if path is not None:
            yield str(path)


def open_pipeline(folder: Path) -> Any:
    """Load the transformers pipeline of a model, which may run its code: see :func:`open_pyfunc`.

    Args:
        folder: A folder that :func:`fetch_pyfunc` has filled.

    Returns:
        The pipeline; None for a model of another flavour.
    """
    if "transformers" not in flavors_of(folder):
        return None
    import mlflow.transformers

    return mlflow.transformers.load_model(str(folder))


def open_pyfunc(folder: Path) -> Any:
    """Load a model, which runs its code: only :mod:`esci_tournament.tasks.families.pyfunc.worker` may call it.

    Args:
        folder: A folder that :func:`fetch_pyfunc` has filled.

    Returns:
        MLflow's `PyFuncModel`.
    """
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder))
