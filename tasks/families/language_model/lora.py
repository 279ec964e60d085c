"""Low-rank adaptation (LoRA, Hu et al. 2021, arXiv 2106.09685) through peft, an optional dependency."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedModel

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe


def add_lora(encoder: PreTrainedModel, recipe: LanguageModelRecipe) -> Callable[[], object]:
    """Put low-rank updates beside every linear layer of the encoder, in place; nothing else of it is trained then.

    Args:
        encoder: the encoder that is changed.
        recipe: its `lora_rank` and `lora_alpha` are read.

    Returns:
        A function without arguments that adds the updates to the weights and removes peft's layers: what is left is a
        plain encoder, so that a saved model needs no peft and serves at the cost of the model without LoRA.

    Raises:
        SpecError: if peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise SpecError("lora_rank needs peft; install the extra: pip install 'esci-tournament[lora]'") from error
    config = LoraConfig(
        r=recipe.lora_rank, lora_alpha=recipe.lora_alpha, lora_dropout=0.0, bias="none", target_modules="all-linear"
    )
    return get_peft_model(encoder, config).merge_and_unload
