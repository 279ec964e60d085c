"""An ensemble as an MLflow model: `MLmodel` with signature and example, what its environment needs, its manifest."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import AnyType, ColSpec, DataType, Schema, TensorSpec

from esci_tournament.registry.manifests import FILE as MANIFEST_FILE
from esci_tournament.registry.manifests import Manifest, manifest_of, write
from esci_tournament.registry.tracking import pyfunc_data
from esci_tournament.registry.wheel import FOLDER, requirements, write_wheel

LOADER = "esci_tournament.deployments.pyfunc_model"


@dataclass(frozen=True)
class Interface:
    """What the `predict` of an ensemble reads and returns.

    Attributes:
        example: Rows as it reads them, all text.
        answer: What it returns for such rows; only the types of its columns are used.
        required: Columns that must be there; text. The others may be absent, and hold values of any type: a column
            without a value is no text in pandas, and MLflow would refuse it.
        options: Option of `mlflow.pyfunc.load_model(..., model_config=...)` -> its default.
    """

    example: pd.DataFrame
    answer: pd.DataFrame
    required: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    def signature(self) -> ModelSignature:
        """Return the model's signature."""
        columns: list[ColSpec | TensorSpec] = [
            ColSpec(DataType.string, name) if name in self.required else ColSpec(AnyType(), name, required=False)  # type: ignore[no-untyped-call]
            for name in map(str, self.example.columns)
        ]
        return ModelSignature(Schema(columns), infer_signature(self.answer).inputs)


def package_ensemble(
    folder: Path,
    package: Path,
    facts: Mapping[str, Any],
    loader_module: str = LOADER,
    interface: Interface | None = None,
    families: Collection[str] = (),
) -> Manifest:
    """Write what MLflow needs beside the files of an ensemble, and the manifest of all of them.

    The environment that MLflow makes for it installs this package from a wheel among the files, and the packages that
    it needs in the versions that are installed here.

    Args:
        folder: The ensemble.
        package: Where to; made, or an empty folder.
        facts: What the ensemble was made from; it goes into the manifest.
        loader_module: Importable module with `_load_pyfunc(path)`.
        interface: What `predict` reads and returns, for signature and example; None for neither.
        families: Families of the members.

    Returns:
        The manifest.

    Raises:
        IntegrityError: If there is a symbolic link or the like in `folder`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        data = _save(model, folder, loader_module, interface, families)
        shutil.copytree(model, package, dirs_exist_ok=True)
    files = dict(manifest_of(package).files)
    files |= {f"{data}/{name}": one for name, one in manifest_of(folder).files.items()}
    manifest = Manifest(files, data, facts)
    write(manifest, package / MANIFEST_FILE)
    return manifest


def _save(path: Path, folder: Path, loader_module: str, interface: Interface | None, families: Collection[str]) -> str:
    """Write all files of a model but the copy of the ensemble, and return where that belongs; there is no pickle."""
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an example would be welcome
        wheel = write_wheel(Path(temporary))
        mlflow.pyfunc.save_model(
            path=str(path),
            loader_module=loader_module,
            data_path=str(folder),
            model_config=dict(interface.options) if interface else None,
            signature=interface.signature() if interface else None,
            input_example=interface.example if interface else None,
            pip_requirements=[f"{FOLDER}/{wheel}", *requirements(families)],
        )
        (path / FOLDER).mkdir()
        shutil.copy(Path(temporary) / wheel, path / FOLDER / wheel)
    data = pyfunc_data(path).relative_to(path)
    shutil.rmtree(path / data)
    return data.as_posix()
