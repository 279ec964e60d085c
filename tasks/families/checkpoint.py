"""Open a language model safely: a Hugging Face folder or hub id, safetensors only, no code of the publisher."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from esci_tournament.registry.errors import SpecError

# All that is ever fetched from the hub: weights as safetensors, JSON, and the texts of a tokenizer. No code, no pickle.
WANTED_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model")
_HUB_ERRORS = (HfHubHTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError, OSError)


def check_checkpoint(checkpoint: str) -> None:
    """Refuse a checkpoint that cannot be trained; only file names, config and headers are read.

    A hub id is looked up on the hub; a hub that cannot be reached is no error when the local cache holds the model.

    Args:
        checkpoint: a local folder, or a hub id, `name` or `name@revision`.

    Raises:
        SpecError: if the folder is no checkpoint (the message says what is missing), has its weights as a pickle only,
            is of an unknown or unsuitable architecture, or if the hub does not have it.
    """
    folder = Path(checkpoint).expanduser()
    if folder.exists():
        _check_folder(folder)
        return
    repository, revision = _hub_id(checkpoint)
    try:
        files = [entry.rfilename for entry in HfApi().model_info(repository, revision=revision).siblings or []]
        _check_names(checkpoint, files)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SpecError(_nowhere(checkpoint)) from error
    except _HUB_ERRORS as error:
        _check_folder(_cached(repository, revision, checkpoint, error))


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
    folder = Path(checkpoint).expanduser()
    if not folder.exists():
        repository, revision = _hub_id(checkpoint)
        try:
            folder = Path(snapshot_download(repository, revision=revision, allow_patterns=WANTED_FILES))
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise SpecError(_nowhere(checkpoint)) from error
        except _HUB_ERRORS as error:
            folder = _cached(repository, revision, checkpoint, error)
    _check_folder(folder)
    return folder


def open_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a checkpoint folder; nothing is downloaded and no code of the publisher runs.

    Args:
        folder: a checkpoint folder, such as :func:`fetch_checkpoint` returns.

    Returns:
        A fast tokenizer that has a padding token.

    Raises:
        SpecError: if it cannot be read or has no fast form, or lacks a padding token.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library raises whatever a broken file makes it raise
        raise SpecError(f"checkpoint {folder}: its tokenizer cannot be read ({_short(error)})") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.pad_token_id is None:
        raise SpecError(
            f"checkpoint {folder}: its tokenizer has no fast form or no padding token; "
            "save it with a tokenizer.json (AutoTokenizer.from_pretrained(...).save_pretrained(...))"
        )
    return tokenizer


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
        with quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, info = AutoModel.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **without_pooler(config),
            )
    except Exception as error:
        raise SpecError(f"checkpoint {folder} cannot be opened: {_short(error)}") from error
    missing = [name for name in info["missing_keys"] if "pooler" not in name and "position_ids" not in name]
    if missing:
        raise SpecError(
            f"checkpoint {folder}: its weights lack {len(missing)} tensors of {config.model_type}, such as "
            f"{missing[0]!r}; "
            "the file belongs to another architecture or was cut"
        )
    return model.eval()


def without_pooler(config: PretrainedConfig) -> dict[str, bool]:
    """Return the keyword arguments that leave the pooler out when an architecture is opened.

    Args:
        config: the configuration of the architecture.

    Returns:
        `{"add_pooling_layer": False}`, or nothing for an architecture that takes no such argument.
    """
    model: Any = AutoModel._model_mapping[type(config)]
    accepts = "add_pooling_layer" in inspect.signature(model).parameters
    return {"add_pooling_layer": False} if accepts else {}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the transformers library from printing reports and progress bars inside the context.

    Yields:
        Nothing. The log level and the progress bars are restored afterwards.
    """
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SpecError(f"checkpoint {folder} is a file; name the folder that holds config.json and model.safetensors")
    _check_names(str(folder), [file.name for file in folder.iterdir()])
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise SpecError(f"checkpoint {folder}: config.json is no JSON object ({_short(error)})") from error
    if kind not in CONFIG_MAPPING:
        remote = "; it needs the publisher's own code, which is never run" if config.get("auto_map") else ""
        raise SpecError(f"checkpoint {folder}: architecture {kind!r} is not one that transformers knows{remote}")
    if config.get("is_encoder_decoder") or config.get("is_decoder"):
        raise SpecError(f"checkpoint {folder}: {kind} is set up as a decoder; name an encoder, such as BERT or DeBERTa")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as weights:
                weights.keys()
        except (SafetensorError, OSError) as error:
            raise SpecError(
                f"checkpoint {folder}: {file.name} is cut or no safetensors file ({_short(error)})"
            ) from error


def _check_names(checkpoint: str, files: list[str]) -> None:
    top = [name for name in files if "/" not in name]
    missing = []
    if "config.json" not in top:
        missing.append("config.json")
    if not any(name in ("model.safetensors", "model.safetensors.index.json") for name in top):
        pickles = sorted(name for name in top if name.endswith(_PICKLES) and "training_args" not in name)
        if pickles and "config.json" in top:
            raise SpecError(
                f"checkpoint {checkpoint} has its weights only as {pickles[0]}; that is or may be a pickle, which runs "
                "code when it is read, so it is never opened. Convert it to model.safetensors on a machine you trust"
            )
        missing.append("model.safetensors")
    if not any(name in _TOKENIZER_FILES for name in top):
        missing.append("tokenizer.json")
    if missing:
        raise SpecError(f"checkpoint {checkpoint} is no Hugging Face checkpoint: it has no {', no '.join(missing)}")


def _cached(repository: str, revision: str | None, checkpoint: str, cause: Exception) -> Path:
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (HFValidationError, *_HUB_ERRORS) as error:
        raise SpecError(
            f"{_nowhere(checkpoint)}; the hub could not be asked ({_short(cause)}) and the local cache does not hold it"
        ) from error


def _hub_id(checkpoint: str) -> tuple[str, str | None]:
    repository, _, revision = checkpoint.partition("@")
    return repository, revision or None


def _nowhere(checkpoint: str) -> str:
    return f"checkpoint {checkpoint!r} is neither a folder here nor a model on the Hugging Face hub"


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
