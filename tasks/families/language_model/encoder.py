"""The encoder of a language model: checked before it is trained, or new with random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families.checkpoint import check_checkpoint, quiet, without_pooler
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec


def check_origin(spec: LanguageModelSpec, deep: bool = True) -> None:
    """Refuse a checkpoint that cannot be trained, or an architecture whose sizes do not fit.

    Args:
        spec: the spec.
        deep: whether what the parts of a checkpoint hold is compared too.

    Raises:
        SpecError: as :func:`esci_tournament.tasks.families.checkpoint.check_checkpoint`, or if the heads do not divide
            the hidden size, or `max_length` is longer than the checkpoint reads.
    """
    if spec.checkpoint is not None:
        check_length(spec, check_checkpoint(spec.checkpoint, deep=deep))
    elif spec.recipe.hidden_size % spec.recipe.heads:
        raise SpecError(
            f"candidate {spec.name}: hidden_size {spec.recipe.hidden_size} is no multiple of heads {spec.recipe.heads}"
        )


def new_encoder(spec: LanguageModelSpec, vocabulary: int, pad: int) -> PreTrainedModel:
    """Return an encoder with random weights of the spec's architecture and recipe; seed torch before.

    Args:
        spec: has an `architecture`, not a checkpoint.
        vocabulary: number of pieces of the tokenizer.
        pad: id of its padding token.

    Returns:
        The encoder in float32, without pooler.
    """
    recipe, architecture = spec.recipe, spec.architecture
    size = {
        "vocab_size": vocabulary,
        "pad_token_id": pad,
        "hidden_size": recipe.hidden_size,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "intermediate_size": 4 * recipe.hidden_size,
        # RoBERTa and MPNet count positions from pad + 1
        "max_position_embeddings": recipe.max_length + pad + 2,
        "type_vocab_size": 2,
        # 0.02 is meant for hidden sizes near 768; a narrow model needs weights whose sums have the same variance.
        "initializer_range": min(0.1, recipe.hidden_size**-0.5),
    }
    special: dict[str, dict[str, Any]] = {
        "electra": {"embedding_size": recipe.hidden_size},
        "albert": {"embedding_size": recipe.hidden_size, "classifier_dropout_prob": 0.1},
        "deberta-v2": {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": True,
            "share_att_key": True,
            "position_buckets": 32,
            "norm_rel_ebd": "layer_norm",
        },
    }
    if architecture == "distilbert":
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
                 "intermediate_size": "hidden_dim"}  # fmt: skip
        size = {names.get(key, key): value for key, value in size.items() if key != "type_vocab_size"}
    config = CONFIG_MAPPING[str(architecture)](**size, **special.get(str(architecture), {}))
    with quiet():
        return AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False, **without_pooler(config))


def check_length(spec: LanguageModelSpec, positions: int | None) -> None:
    """Refuse a maximum length that the encoder has no positions for.

    Args:
        spec: its recipe names the maximum length.
        positions: tokens that the encoder has positions for; None where there is no limit.

    Raises:
        SpecError: if the recipe's `max_length` is too long.
    """
    if positions is not None and spec.recipe.max_length > positions:
        raise SpecError(
            f"candidate {spec.name}: max_length is {spec.recipe.max_length}; checkpoint "
            f"{spec.checkpoint} reads {positions} tokens; set recipe.max_length to that or less"
        )
