"""What a checkpoint holds, against the architecture that it names: weights, embeddings, tokens, and how it reads.

Weights are compared by the headers of their files with a model on torch's meta device, which takes no memory.
:func:`look` is called in a child process (`registry.border`), because a config decides what is built there.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.auto_factory import _get_model_class
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.foreign import shown
from esci_tournament.tasks.families.checkpoint_files import (
    ENCODER_HALVES,
    LAYER_KEYS,
    plain_words,
    tensors_of,
    weight_files,
)
from esci_tournament.tasks.families.checkpoint_tokenizer import quiet, tokenizer_in

# Modules that compilers and wrappers of distributed training put between a model and its parts
_WRAPPERS = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module|_wrapped_module)\."
)
_LEGACY = ((re.compile(r"\.gamma$"), ".weight"), (re.compile(r"\.beta$"), ".bias"))
_NOT_NEEDED = ("pooler", "position_ids")
_SHRUNK_VOCABULARY = 512
_MOST_PARAMETERS = 500_000_000  # of the model that the direction of reading is tried with; 4 bytes each
_PROBE = 6  # tokens
_INNER_WIDTHS = ("intermediate_size", "ffn_dim", "d_ff", "d_inner", "hidden_dim", "moe_intermediate_size")
# Tokens beyond the embeddings that are no added ones: more of them are another model's tokenizer
_FEW = 0.1


def look(folder: str, place: str, decoders: bool = False) -> dict[str, Any]:
    """Compare the parts of a checkpoint with each other; nothing of its weights but the headers is read.

    Args:
        folder: The checkpoint, whose files have been looked at (`checkpoint_files.inspect`).
        place: A folder with its configs and its tokenizer's files alone (`checkpoint_files.vetted`).
        decoders: Whether it may read from left to right.

    Returns:
        `notes`, sentences that whoever registers it should read, and `positions`, see :func:`positions`.

    Raises:
        SpecError: If weights are missing or have other shapes than the architecture's, it reads from left to right
            only, it does not turn tokens into states, or its tokenizer cannot be used with it.
    """
    with quiet():
        config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        model = check_weights(folder, config, headers_of(Path(folder)))
        check_reading(folder, config, decoders)
        tokenizer = tokenizer_in(Path(place), folder)
    return {"notes": notes_on(folder, tokenizer, len(embeddings(model).weight)), "positions": positions(model)}


def headers_of(folder: Path) -> dict[str, list[int]]:
    """Return the shapes of all weights of a checkpoint, by name.

    Args:
        folder: The checkpoint.

    Returns:
        Name of the tensor -> its shape.

    Raises:
        SpecError: If a file of weights is missing or cut.
    """
    shapes: dict[str, list[int]] = {}
    for file in weight_files(folder):
        shapes |= tensors_of(file, str(folder))
    return shapes


def model_class(config: PretrainedConfig) -> Any:
    """Return transformers' class that is opened for a config: for T5 and its like the encoder alone.

    Args:
        config: Of the checkpoint.

    Returns:
        The class.

    Raises:
        SpecError: If there is none that reads text.
    """
    kind = type(config)
    if kind in MODEL_FOR_TEXT_ENCODING_MAPPING and config.model_type in ENCODER_HALVES:
        return MODEL_FOR_TEXT_ENCODING_MAPPING[kind]
    if kind not in MODEL_MAPPING:
        raise SpecError(f"architecture {shown(config.model_type)} is no encoder of text; name one, such as BERT")
    config = copy.copy(config)
    config.architectures = config.architectures or []
    return _get_model_class(config, MODEL_MAPPING)


def check_weights(folder: str, config: PretrainedConfig, shapes: Mapping[str, Sequence[int]]) -> PreTrainedModel:
    """Refuse weights that are not those of the architecture in the config.

    Args:
        folder: The checkpoint, as messages name it.
        config: Its config.
        shapes: Name of each tensor in its files -> its shape.

    Returns:
        The encoder on the meta device, without values.

    Raises:
        SpecError: If tensors are missing or have other shapes.
    """
    kind = _class_for(folder, config)
    names = renamed(folder, list(shapes), _needed(kind, config), kind.base_model_prefix)
    state = {names[name]: torch.empty(list(shape), device="meta") for name, shape in shapes.items()}
    try:
        model, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=state,
            device_map="meta",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # the library raises whatever a config makes it raise
        raise SpecError(f"checkpoint {folder} cannot be opened: {plain_words(error)}") from error
    check_missing(folder, config, info["missing_keys"], shapes)
    for name, stored, wanted in info["mismatched_keys"]:
        raise SpecError(
            f"checkpoint {folder}: the tensor {shown(name)} has shape {tuple(stored)}, and config.json asks for "
            f"{tuple(wanted)}; take config.json and weights of one and the same model"
        )
    return model


def check_missing(folder: str, config: PretrainedConfig, missing: Iterable[str], names: Iterable[str]) -> None:
    """Refuse weights that lack tensors of the architecture.

    Args:
        folder: The checkpoint, as messages name it.
        config: Its config.
        missing: Names of the tensors that were not found.
        names: Names of the tensors in its files.

    Raises:
        SpecError: If one is missing that an encoder needs.
    """
    lacking = sorted(name for name in missing if not any(part in name for part in _NOT_NEEDED))
    if not lacking:
        return
    why = "the file belongs to another architecture or was cut"
    if getattr(config, "auto_map", None):
        why = "its publisher's own code, which config.json names (auto_map), has other names, and is never run"
    raise SpecError(
        f"checkpoint {folder}: its weights lack {len(lacking)} tensors of {config.model_type}, such as {lacking[0]!r} "
        f"(they have such as {shown(min(names, default=''))}); {why}. Save the model with save_pretrained of the class "
        "that config.json names"
    )


def renamed(folder: str, names: Sequence[str], needed: Sequence[str], base: str) -> dict[str, str]:
    """Return the names of tensors without what compilers, distributed training and wrappers have put before them.

    Args:
        folder: The checkpoint, as a message names it.
        names: Of the tensors in its files.
        needed: Of the tensors of the encoder.
        base: Prefix under which models with a task's head keep the encoder.

    Returns:
        Each name -> what it is without wrappers.

    Raises:
        SpecError: If two parts of it would be the encoder.

    Example:
        >>> renamed("x", ["_orig_mod.net.a.weight", "_orig_mod.head"], ["a.weight"], "bert")
        {'_orig_mod.net.a.weight': 'a.weight', '_orig_mod.head': 'head'}
        >>> renamed("x", ["bert.a.weight", "head"], ["a.weight"], "bert")
        {'bert.a.weight': 'bert.a.weight', 'head': 'head'}
    """
    bare = {name: _WRAPPERS.sub("", name) for name in names}
    modern = {_modern(name) for name in bare.values()}
    if not needed or any(all(start + one in modern for one in needed) for start in ("", f"{base}.")):
        return bare
    starts = sorted({name[: -len(needed[0])] for name in modern if name.endswith(f".{needed[0]}")})
    found = [start for start in starts if all(start + one in modern for one in needed)]
    if len(found) > 1:
        raise SpecError(
            f"checkpoint {folder}: its weights hold {len(found)} encoders ({', '.join(map(shown, found[:3]))}); save "
            "the one that is meant alone"
        )
    return {name: plain.removeprefix(found[0]) if found else plain for name, plain in bare.items()}


def _modern(name: str) -> str:
    for pattern, now in _LEGACY:
        name = pattern.sub(now, name)
    return name


def renamed_weights(folder: Path, config: PretrainedConfig) -> dict[str, torch.Tensor] | None:
    """Return the weights of a checkpoint under the names of its architecture; None when they have them already.

    Args:
        folder: The checkpoint.
        config: Its config.

    Returns:
        Name -> tensor, mapped into memory.

    Raises:
        SpecError: If a file of weights cannot be read, or holds two encoders.
    """
    files = weight_files(folder)
    kind = _class_for(str(folder), config)
    names = renamed(str(folder), list(headers_of(folder)), _needed(kind, config), kind.base_model_prefix)
    if all(name == now for name, now in names.items()):
        return None
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as source:
            weights |= {names[name]: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
    return weights


def _class_for(folder: str, config: PretrainedConfig) -> Any:
    try:
        return model_class(config)
    except SpecError as error:
        raise SpecError(f"checkpoint {folder}: {error}") from error


def _needed(kind: Any, config: PretrainedConfig) -> list[str]:
    model = _plan(kind, config)
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    names = (name for name, _ in model.named_parameters())
    return [name for name in names if name not in tied and not any(part in name for part in _NOT_NEEDED)]


def _plan(kind: Any, config: PretrainedConfig) -> PreTrainedModel:
    """Return a model without memory for its weights."""
    with torch.device("meta"):
        return kind(copy.deepcopy(config))


def check_reading(folder: str, config: PretrainedConfig, decoders: bool = False) -> None:
    """Refuse an architecture that reads from left to right, by what a small one of its kind does.

    Args:
        folder: The checkpoint, as messages name it.
        config: Its config.
        decoders: Whether it may do so.

    Raises:
        SpecError: If the state of a token does not depend on later ones, or it has no state of each token.
    """
    kind = _class_for(folder, config)
    try:
        try:
            plan, config = _plan(kind, small := shrunk(config)), small
        except Exception:  # its keys depend on each other in another way
            plan = _plan(kind, config)
    except Exception as error:  # a config may ask for anything
        raise SpecError(f"checkpoint {folder}: {config.model_type} cannot be made ({plain_words(error)})") from error
    if sum(parameter.numel() for parameter in plan.parameters()) > _MOST_PARAMETERS:  # too large to try
        if not decoders and any(getattr(module, "is_causal", False) for module in plan.modules()):
            raise SpecError(left_to_right(folder, config))
        return
    try:
        model = kind(config).float().eval()
        _scatter(model)
        both_ways = looks_ahead(model)
    except Exception as error:
        raise SpecError(
            f"checkpoint {folder}: {config.model_type} does not turn the tokens of a text into one state each "
            f"({plain_words(error)}); {_ENCODERS}"
        ) from error
    if not (both_ways or decoders):
        raise SpecError(left_to_right(folder, config))


_ENCODERS = "name an encoder, such as BERT, DeBERTa-v3, ModernBERT, XLM-R, multilingual E5 or BGE-M3"


def left_to_right(folder: str, config: PretrainedConfig) -> str:
    """Return the message about a decoder.

    Args:
        folder: The checkpoint, as the message names it.
        config: Its config.

    Returns:
        A sentence, and what to do.
    """
    return (
        f"checkpoint {folder} is a decoder: {config.model_type} reads from left to right, so the states of the query, "
        f"which stands first, know nothing of the product, and they are what is trained here; {_ENCODERS}. A decoder "
        "that was fine-tuned elsewhere, such as Qwen3-Reranker, can compete with its scores (family scores) or as a "
        "pyfunc"
    )


def looks_ahead(model: PreTrainedModel) -> bool:
    """Tell whether the states of tokens depend on tokens that come after them.

    Args:
        model: In evaluation mode.

    Returns:
        False for a model with causal attention, or another that reads from left to right. True when its states are no
        numbers, which say nothing of that: such weights fail for their own reason.

    Raises:
        ValueError: If it does not return a state of each token.
    """
    table = embeddings(model).weight
    rows = len(table)
    texts = torch.arange(_PROBE, device=table.device).add(5).clamp_max(rows - 2).repeat(2, 1)
    texts[1, -1] = rows - 1
    with torch.no_grad():
        states = model(input_ids=texts, attention_mask=torch.ones_like(texts)).last_hidden_state.float()
    if states.shape[:2] != texts.shape:
        raise ValueError(f"{_PROBE} tokens have {states.shape[1]} states")
    early = (states[0, :-1] - states[1, :-1]).abs().max()
    return not bool(states.isfinite().all()) or bool(early > 1e-6 * states.abs().max())


def shrunk(config: PretrainedConfig) -> PretrainedConfig:
    """Return the config of a model of the same kind with at most two layers, narrow inside, and few tokens.

    Args:
        config: Stays as it is.

    Returns:
        A copy.
    """
    small = copy.deepcopy(config)
    for keys, most in (({"num_hidden_layers", *LAYER_KEYS}, 2), (_INNER_WIDTHS, 64)):
        for key in keys:
            if isinstance(value := getattr(small, key, None), int) and value > most:
                with suppress(AttributeError):
                    setattr(small, key, most)
    for key in ("layer_types", "attention_window"):
        if isinstance(value := getattr(small, key, None), list | tuple):
            with suppress(AttributeError):  # some classes compute it
                setattr(small, key, value[:2])
    if isinstance(getattr(small, "vocab_size", None), int) and small.vocab_size > _SHRUNK_VOCABULARY:
        small.vocab_size = _SHRUNK_VOCABULARY
        for key, value in list(vars(small).items()):
            if key.endswith("_token_id") and isinstance(value, int) and value >= _SHRUNK_VOCABULARY:
                setattr(small, key, 3)
    return small


def _scatter(model: PreTrainedModel) -> None:
    """Set weights so that every token shows in every state that it can reach."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[-1]), generator=generator)


def tokens_beyond(tokenizer: PreTrainedTokenizerFast, rows: int) -> list[str]:
    """Return the tokens whose numbers have no row in the embedding matrix, in the order of their numbers.

    Args:
        tokenizer: The tokenizer.
        rows: Of the matrix.

    Returns:
        Tokens.
    """
    found = ((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    return [token for _, token in sorted(found)]


def notes_on(folder: str, tokenizer: PreTrainedTokenizerFast, rows: int) -> list[str]:
    """Say that a tokenizer has tokens without a row of the embeddings, or refuse it.

    Args:
        folder: The checkpoint, as messages name it.
        tokenizer: Its tokenizer.
        rows: Of its embedding matrix.

    Returns:
        A sentence if a few tokens have no row; nothing if all have one.

    Raises:
        SpecError: If so many have none that the tokenizer must be another model's.
    """
    beyond = tokens_beyond(tokenizer, rows)
    if not beyond:
        return []
    some = ", ".join(shown(token) for token in beyond[:3])
    if not set(beyond) <= set(tokenizer.get_added_vocab()) and len(beyond) > _FEW * rows:
        raise SpecError(
            f"checkpoint {folder}: its tokenizer has {rows + len(beyond):,} tokens and its embedding matrix {rows:,} "
            f"rows; tokens such as {some} have none. The tokenizer is another model's: save the one that the model was "
            "trained with"
        )
    return [
        f"checkpoint {folder}: {len(beyond):,} tokens of its tokenizer, such as {some}, have no row in its embedding "
        f"matrix of {rows:,} rows; a model that is trained gets rows for them, near the mean of the others, and one "
        "that is frozen reads them as unknown. If they were meant to be trained already, call "
        "model.resize_token_embeddings(len(tokenizer)) before that"
    ]


def in_table(tokenizer: PreTrainedTokenizerFast, rows: int) -> tuple[int, int] | None:
    """Return what stands for tokens without a row of the embeddings, whose numbers must not reach the model.

    Args:
        tokenizer: The tokenizer.
        rows: Of the embedding matrix.

    Returns:
        From which number on tokens have no row, and the number that is read in their place: that of the unknown token,
        or of another special one. None when all tokens have a row.
    """
    if not tokens_beyond(tokenizer, rows):
        return None
    spare = (tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.sep_token_id, tokenizer.eos_token_id, 0)
    return rows, next(number for number in spare if number is not None and number < rows)


def widen_embeddings(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """Give every token a row of the embeddings; new rows are drawn around the mean of the others.

    Args:
        encoder: Changed in place.
        tokenizer: Its tokenizer.

    Returns:
        Number of tokens that had no row.
    """
    rows = len(embeddings(encoder).weight)
    beyond = tokens_beyond(tokenizer, rows)
    if beyond:
        encoder.resize_token_embeddings(max(tokenizer.get_vocab().values()) + 1, mean_resizing=True)
    return len(beyond)


def embeddings(model: PreTrainedModel) -> torch.nn.Embedding:
    """Return the embedding matrix that tokens are looked up in."""
    return cast(torch.nn.Embedding, model.get_input_embeddings())


def positions(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model has positions for; None where positions are relative or computed.

    Args:
        model: The model.

    Returns:
        Tokens, special ones included.
    """
    tables = [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and re.search(r"(?:position_embeddings?|embed_positions|wpe)$", name)
    ]
    if not tables:
        return None
    declared = getattr(model.config, "max_position_embeddings", None)
    return min([*tables, *([declared] if isinstance(declared, int) and declared > 0 else [])])
