"""Checkpoints that a team has logged with MLflow: the files of a registered version, laid out as Hugging Face does.

`mlflow.transformers` puts weights into `model/` and the tokenizer into `components/tokenizer/`,
`mlflow.sentence_transformers` all of it into `model.sentence_transformer/`; a folder that was logged as plain artifacts
is one already. Nothing of the version is executed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.files import publish, temporary_folder
from esci_tournament.registry.pyfuncs import flavors_of
from esci_tournament.registry.registered import fetch, fetch_file, place_of
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.tracking import mlmodel
from esci_tournament.tasks.families.checkpoint_files import PICKLES, TOKENIZER_FILES

_FOLDER = "checkpoints"  # of the home; files of a version never change, so what was fetched is not fetched again
_WEIGHTS = (".safetensors", ".safetensors.index.json", *PICKLES)


def has_checkpoint(address: str, settings: Settings) -> bool:
    """Return whether a registered version holds the weights of an encoder, by what it says of itself.

    Args:
        address: models:/NAME/VERSION.
        settings: MLflow's address.

    Returns:
        True for the flavours that save such weights, and for a version with a config.json at its top.

    Raises:
        StoreError: if MLflow does not answer.
    """
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("MLmodel", "config.json"):
            try:
                fetch_file(address, name, Path(temporary), settings.tracking_uri)
            except SpecError:
                continue
            if name == "config.json":
                return True
            return bool({"transformers", "sentence_transformers"} & set(flavors_of(Path(temporary))))
    return False


def fetch_registered(checkpoint: str, settings: Settings) -> Path:
    """Return a folder of the home with the checkpoint of a registered version, fetched when it is not there yet.

    Args:
        checkpoint: models:/NAME/VERSION or models:/m-ID.
        settings: MLflow's address and the home.

    Returns:
        A folder laid out as Hugging Face does; what is in it has not been looked at.

    Raises:
        SpecError: if there is no such version, or it holds no checkpoint.
        OSError: if the home cannot be written.
    """
    where = place_of(checkpoint, settings.tracking_uri)
    key = hashlib.sha256(f"{settings.tracking_uri}\n{where}".encode()).hexdigest()[:32]
    place = settings.home / _FOLDER / key
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(place.parent, "fetching") as scratch:
        fetch(checkpoint, scratch / "version", settings.tracking_uri)
        lay_out(scratch / "version", scratch / "made", checkpoint)
        try:
            publish(scratch / "made", place)
        except OSError:
            if not place.is_dir():  # else another process has fetched it meanwhile
                raise
    return place


def lay_out(version: Path, made: Path, checkpoint: str) -> None:
    """Put the files of a checkpoint that stand in several folders of a version into one.

    Args:
        version: The files of the version.
        made: Where to; it must not exist. Files are linked where the file system can.
        checkpoint: As messages name it.

    Raises:
        SpecError: if there is no config.json with weights beside it, or more than one.
    """
    configs = sorted({file.parent for file in version.rglob("config.json") if _has_weights(file.parent)})
    if not configs:
        raise SpecError(f"checkpoint {checkpoint}: {_why_none(version)}")
    # Of several, as of a sentence transformer with modules of its own, the outermost one is the encoder
    nearest = [one for one in configs if len(one.parts) == len(configs[0].parts)]
    weights = min(configs, key=lambda one: len(one.parts))
    if len(nearest) > 1:
        names = ", ".join(one.relative_to(version).as_posix() for one in nearest)
        raise SpecError(f"checkpoint {checkpoint}: it holds several models ({names}); log one of them alone")
    tokenizers = [weights, version / "components" / "tokenizer", version]
    tokenizer = next((one for one in tokenizers if _has_tokenizer(one)), weights)
    made.mkdir()
    for folder in dict.fromkeys((tokenizer, weights)):  # of two files with one name, that beside the weights counts
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.is_symlink():
                (made / file.name).unlink(missing_ok=True)
                _link(file, made / file.name)


def _has_weights(folder: Path) -> bool:
    return any(file.name.endswith(_WEIGHTS) for file in folder.iterdir())


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _why_none(version: Path) -> str:
    """Return why a version holds no checkpoint, in words that say what to do."""
    try:
        flavors = dict(mlmodel(version)["flavors"])
    except (ValueError, TypeError, KeyError):
        flavors = {}
    source = dict(flavors.get("transformers") or {}).get("source_model_name")
    if source:
        return f"it was logged as a reference to {source}, without weights; name {source} itself as the checkpoint"
    logged = f"it is a model of the flavours {', '.join(map(str, flavors))}" if flavors else "it is no MLflow model"
    return (
        f"{logged} and has no config.json with model.safetensors beside it; log it with mlflow.transformers, or enter "
        'it as it is, by family = "pyfunc"'
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
