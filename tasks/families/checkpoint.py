"""Open a language model safely: a Hugging Face folder or hub id, safetensors only, no code of the publisher."""

from __future__ import annotations

import inspect
import logging
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import LocalEntryNotFoundError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers import __version__ as transformers_version
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from esci_tournament.registry.border import in_child, other_user
from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.foreign import shown
from esci_tournament.registry.settings import Settings, settings_in_force
from esci_tournament.tasks.families.checkpoint_files import MARKS, check_names, plain_words, vetted
from esci_tournament.tasks.families.checkpoint_model import (
    check_missing,
    embeddings,
    headers_of,
    left_to_right,
    looks_ahead,
    model_class,
    notes_on,
    renamed_weights,
)
from esci_tournament.tasks.families.checkpoint_tokenizer import quiet, tokenizer_in

# All that is ever fetched from the hub: weights as safetensors, JSON, and the texts of a tokenizer. No code, no pickle.
WANTED_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]
_CHECK_SECONDS, _CHECK_MIB = 120.0, 4096  # for a look at a checkpoint
_REGISTERED = "models:/"
_Facts = list[tuple[str, int, int]]  # name, size and time of each file
_looked: dict[
    tuple[Path, bool], tuple[_Facts, int | None]
] = {}  # folder -> its files when they fitted together, and positions
_log = logging.getLogger("esci_tournament.checkpoint")
_HUB_ERRORS = (HfHubHTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError, OSError)


def permit_checkpoint(checkpoint: str, settings: Settings) -> None:
    """Refuse a local checkpoint outside the operator's folders, or one that is too large; nothing of it is opened.

    Args:
        checkpoint: a local folder, or a hub id, which is not looked up.
        settings: `allowed_checkpoint_roots` and `candidate_parameters` are used.

    Raises:
        SpecError: if it may not be used. A folder outside is not told from one that is not there.
    """
    folder = _folder(checkpoint)
    roots = settings.allowed_checkpoint_roots
    if roots and not checkpoint.startswith(_REGISTERED) and (folder is not None or _is_path(checkpoint)):
        found = Path(checkpoint).expanduser().resolve()
        if not any(found.is_relative_to(root) for root in roots):
            _log.warning("checkpoint %s is outside allowed_checkpoint_roots", shown(checkpoint, 1000))
            raise SpecError(_nowhere(checkpoint))
    if folder is None:
        return
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors") if file.is_file())
    if size > 4 * settings.candidate_parameters:
        raise SpecError(
            f"checkpoint {folder}: its weights have {size:,} bytes; the setting candidate_parameters allows "
            f"{settings.candidate_parameters:,} parameters of 4 bytes"
        )


def check_checkpoint(checkpoint: str, decoders: bool = False, deep: bool = True) -> int | None:
    """Refuse a checkpoint that cannot be trained; its files are looked at in a child process.

    A hub id is looked up on the hub; a hub that cannot be reached is no error when the local cache holds the model.

    Args:
        checkpoint: a local folder, or a hub id, `name` or `name@revision`.
        decoders: whether it may read from left to right only.
        deep: whether what its parts hold is compared too, which takes seconds; opening it shows the same.

    Returns:
        Tokens that it has positions for; None where there is no limit, or where they were not looked up.

    Raises:
        SpecError: if it is no checkpoint (the message says what a folder with a checkpoint lacks, and nothing of other
            paths), has its weights as a pickle only, refers to files outside its folder, is of an unknown or unsuitable
            architecture, a decoder among them, has weights that are not those of the architecture, or a tokenizer that
            cannot be used or takes too long, or if the hub does not have it.
    """
    folder = _folder(checkpoint)
    if folder is not None:
        _check_folder(folder)
        return _check_model(folder, decoders) if deep else None
    repository, revision = _hub_id(checkpoint)
    try:
        files = [entry.rfilename for entry in HfApi().model_info(repository, revision=revision).siblings or []]
        check_names(checkpoint, files)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SpecError(_nowhere(checkpoint)) from error
    except _HUB_ERRORS as error:
        folder = _cached(repository, revision, checkpoint, error)
        _check_folder(folder)
        return _check_model(folder, decoders) if deep else None
    return None


def fetch_checkpoint(checkpoint: str) -> Path:
    """Return the local folder of a checkpoint; one that is on the hub is downloaded into the hub's cache.

    Args:
        checkpoint: a local folder, or a hub id, `name` or `name@revision`.

    Returns:
        The folder with config.json, the safetensors weights and the tokenizer's files. Of a hub model only the files in
        :data:`WANTED_FILES` are downloaded.

    Raises:
        SpecError: as :func:`check_checkpoint`.
    """
    folder = _folder(checkpoint)
    if folder is None:
        repository, revision = _hub_id(checkpoint)
        try:
            folder = Path(snapshot_download(repository, revision=revision, allow_patterns=WANTED_FILES))
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise SpecError(_nowhere(checkpoint)) from error
        except _HUB_ERRORS as error:
            folder = _cached(repository, revision, checkpoint, error)
    _check_folder(folder)
    return folder


def open_checkpoint(checkpoint: str, decoders: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return encoder and tokenizer of a checkpoint to start from; they are seen to fit together.

    Args:
        checkpoint: a local folder, or a hub id, `name` or `name@revision`.
        decoders: whether it may read from left to right only.

    Returns:
        As :func:`open_encoder` and :func:`open_tokenizer`. Some tokens may have no row in the embeddings.

    Raises:
        SpecError: as :func:`check_checkpoint`.
    """
    folder = fetch_checkpoint(checkpoint)
    encoder = open_encoder(folder)
    if not (decoders or looks_ahead(encoder)):
        raise SpecError(left_to_right(str(folder), encoder.config))
    tokenizer = open_tokenizer(folder)
    for note in notes_on(str(folder), tokenizer, len(embeddings(encoder).weight)):
        _log.warning("%s", note)
    return encoder, tokenizer


def open_tokenizer(folder: Path, kind: Any = AutoTokenizer) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a checkpoint folder; nothing is downloaded and no code of the publisher runs.

    Args:
        folder: a checkpoint folder, such as :func:`fetch_checkpoint` returns.
        kind: transformers' class that opens it; default: the one that its config names.

    Returns:
        A fast tokenizer that has a padding token.

    Raises:
        SpecError: if it cannot be read or has no fast form, or lacks a padding token.
    """
    with vetted(folder, weights=False) as place:
        return tokenizer_in(place, str(folder), kind)


def open_encoder(folder: Path) -> PreTrainedModel:
    """Return the encoder of a checkpoint folder; nothing is downloaded and no code of the publisher runs.

    Args:
        folder: a checkpoint folder, such as :func:`fetch_checkpoint` returns.

    Returns:
        The model in float32, without pooler or task head, in evaluation mode.

    Raises:
        SpecError: if weights are missing, of the wrong shape, or not readable.
    """
    try:
        with quiet(), vetted(folder, tokenizer=False) as place:
            config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
            weights = renamed_weights(folder, config)
            kind = model_class(config)
            model, info = kind.from_pretrained(
                place if weights is None else None,
                config=config,
                state_dict=weights,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **without_pooler(config),
            )
    except SpecError:
        raise
    except Exception as error:
        raise SpecError(f"checkpoint {folder} cannot be opened: {plain_words(error)}") from error
    check_missing(str(folder), config, info["missing_keys"], headers_of(folder))
    return model.eval()


def without_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """Return the keyword arguments that leave the pooler out when an architecture is opened.

    Args:
        config: the configuration of the architecture.

    Returns:
        `{"add_pooling_layer": False}`, or nothing for an architecture that takes no such argument.
    """
    accepts = "add_pooling_layer" in inspect.signature(model_class(config)).parameters
    return {"add_pooling_layer": False} if accepts else {}


def _folder(checkpoint: str) -> Path | None:
    """Return the folder of a local checkpoint, None when there is none.

    Whether another path exists, and what it is, is logged and not told: who registers a candidate need not know it.

    Raises:
        SpecError: if it is written as a path that is no checkpoint's.
    """
    if checkpoint.startswith(_REGISTERED):
        from esci_tournament.tasks.families.registered_checkpoint import fetch_registered  # MLflow takes a second

        return fetch_registered(checkpoint, settings_in_force())
    folder = Path(checkpoint).expanduser()
    try:
        if folder.is_dir() and any((folder / name).is_file() for name in MARKS):
            return folder.absolute()
        why = "holds no checkpoint" if folder.exists() else "is not there"
    except (OSError, RuntimeError, ValueError) as error:
        why = f"cannot be looked at ({plain_words(error)})"
    if _is_path(checkpoint):
        _log.warning("checkpoint %s: the path %s", shown(checkpoint, 1000), why)
        raise SpecError(_nowhere(checkpoint))
    return None


def _is_path(checkpoint: str) -> bool:
    """Tell whether it is written as a path: the hub has no such ids."""
    return checkpoint.startswith(("/", "~", ".")) or checkpoint.count("/") > 1 or os.sep in checkpoint.replace("/", "")


def _check_folder(folder: Path) -> None:
    found = in_child(
        "esci_tournament.tasks.families.checkpoint_files:inspect",
        {"folder": str(folder)},
        doing=f"look at the checkpoint {folder}",
        seconds=_CHECK_SECONDS,
        memory_mib=_CHECK_MIB,
        refusal=SpecError,
        reads=[folder, *folder.iterdir()],
    )
    if found["model_type"] is None:
        raise SpecError(
            f"checkpoint {folder}: its config.json names no model_type; copy the config.json that belongs to the "
            "weights, as model.config.save_pretrained(...) writes it"
        )
    if found["model_type"] not in CONFIG_MAPPING:
        raise SpecError(
            f"checkpoint {folder}: architecture {shown(found['model_type'])} is not one that transformers "
            f"{transformers_version} knows; a publisher's own code is never run"
        )


def _check_model(folder: Path, decoders: bool) -> int | None:
    """Compare what the parts of a checkpoint hold, in a child; log what is not as it was meant, return positions."""
    facts, key = _facts(folder), (folder, decoders)
    if _looked.get(key, (None, None))[0] != facts:
        with vetted(folder, weights=False) as place:
            reads = [folder, *folder.iterdir()]
            if other_user(reads):  # who may then read the copies of its configs too
                place.chmod(0o755)
            found = in_child(
                "esci_tournament.tasks.families.checkpoint_model:look",
                {"folder": str(folder), "place": str(place), "decoders": decoders},
                doing=f"look at the model in the checkpoint {folder}",
                seconds=_CHECK_SECONDS,
                memory_mib=_CHECK_MIB,
                refusal=SpecError,
                reads=[*reads, place, *place.iterdir()],
            )
        for note in found["notes"]:
            _log.warning("%s", note)
        _looked[key] = facts, found["positions"]
    return _looked[key][1]


def _facts(folder: Path) -> _Facts:
    """Return names, sizes and times of a folder's files."""
    found = ((file.name, file.stat()) for file in folder.iterdir() if file.exists())
    return sorted((name, facts.st_size, facts.st_mtime_ns) for name, facts in found)


def _cached(repository: str, revision: str | None, checkpoint: str, cause: Exception) -> Path:
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (HFValidationError, *_HUB_ERRORS) as error:
        raise SpecError(
            f"{_nowhere(checkpoint)}; the hub could not be asked ({plain_words(cause)}) and the local cache does not "
            "hold it"
        ) from error


def _hub_id(checkpoint: str) -> tuple[str, str | None]:
    repository, _, revision = checkpoint.partition("@")
    return repository, revision or None


def _nowhere(checkpoint: str) -> str:
    return (
        f"checkpoint {shown(checkpoint)} is neither a folder here nor a model on the Hugging Face hub (a folder that "
        "this process may read and the operator allows, with config.json, model.safetensors and tokenizer.json in it, "
        "not in a folder below such as checkpoint-500)"
    )
