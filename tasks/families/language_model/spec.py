"""The spec of a language model: checkpoint or architecture, and the recipe of its training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from esci_tournament.registry.specs import NOT_PINNED, PINNED, NamedSpec, Strict

TextField = Literal["title", "brand", "color", "bullets", "description"]
TEXT_FIELDS: tuple[TextField, ...] = ("title", "brand", "color", "bullets", "description")

Tokens = Annotated[int, Field(ge=1, le=4096)]

LMArchitecture = Literal["bert", "distilbert", "electra", "roberta", "albert", "mpnet", "deberta-v2"]


class LanguageModelRecipe(Strict):
    """The hyperparameters of a language model and of its training run; each field's description has its unit."""

    style: Literal["cross_encoder", "bi_encoder"] = "cross_encoder"
    fields: tuple[TextField, ...] = Field(TEXT_FIELDS, max_length=len(TEXT_FIELDS))
    max_length: int = Field(128, ge=8, le=4096, description="tokens a pair, special tokens included")
    epochs: int = Field(3, ge=1, le=1000)
    batch_size: int = Field(32, ge=1, le=65_536, description="pairs an optimiser step")
    accumulation: int = Field(1, ge=1, le=65_536, description="micro-batches an optimiser step is cut into")
    learning_rate: float = Field(2e-5, gt=0, le=1000)
    layer_decay: float = Field(1.0, gt=0, le=1, description="factor on the learning rate for each layer further down")
    warmup_share: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0, le=10)
    class_weights: Literal["none", "balanced", "sqrt_balanced"] = "none"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    frozen_embeddings: bool = False
    frozen_layers: int = Field(0, ge=0, le=512, description="encoder layers, counted from below, that are not trained")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    field_tokens: dict[TextField, Tokens] = Field(
        default_factory=dict, description="tokens a field may use at most; a field not named is cut by max_length alone"
    )
    patience: int | None = Field(
        None, ge=1, le=1000, description="epochs without gain on validation after which training stops"
    )
    gradient_checkpointing: bool = Field(False, description="save memory by computing activations twice")
    processes: int = Field(
        1, ge=1, le=64, description="processes that train together, one a GPU, each on its share of every batch"
    )
    lora_rank: int = Field(
        0, ge=0, le=4096, description="rank of low-rank updates (LoRA); 0 trains the weights themselves"
    )
    lora_alpha: int = Field(16, ge=1, le=65_536, description="low-rank updates are scaled by lora_alpha / lora_rank")
    keywords: dict[TextField, Tokens] = Field(
        default_factory=dict, description="fields shortened to that many TF-IDF keywords"
    )
    locales: tuple[Literal["us", "es", "jp"], ...] = Field(
        (),
        max_length=3,
        description="locales it is fitted on and answers for, () for all; others get their class shares",
    )
    # Only for a model trained from scratch (`architecture` in place of `checkpoint`)
    hidden_size: int = Field(64, ge=8, le=16_384)
    layers: int = Field(2, ge=1, le=512)
    heads: int = Field(4, ge=1, le=512)
    vocabulary: int = Field(
        4000, ge=300, le=2_000_000, description="word pieces of the tokenizer trained on the fit pairs"
    )


class LanguageModelSpec(NamedSpec):
    """A Hugging Face encoder: fine-tuned from a checkpoint, or trained from scratch; exactly one of the two is named.

    Attributes:
        checkpoint: Hugging Face folder, or hub id `name` or `name@revision`, to fine-tune.
        architecture: architecture of a model that is trained from scratch.
        recipe: hyperparameters.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("checkpoint",)
    family: Literal["language_model"] = "language_model"
    checkpoint: str | None = Field(None, description="Hugging Face folder or hub id")
    architecture: LMArchitecture | None = Field(None, description="architecture of a model trained from scratch")
    recipe: LanguageModelRecipe = LanguageModelRecipe()

    @property
    def parameters(self) -> int:
        """Parameters of a model from scratch, estimated from the recipe before anything is allocated.

        They are its embeddings, and 12 matrices of hidden_size x hidden_size a layer.
        """
        recipe = self.recipe
        return recipe.hidden_size * (recipe.vocabulary + recipe.max_length + 12 * recipe.layers * recipe.hidden_size)

    @model_validator(mode="after")
    def _one_origin(self) -> LanguageModelSpec:
        if (self.checkpoint is None) == (self.architecture is None):
            raise ValueError("name either a checkpoint (to fine-tune) or an architecture (to train from scratch)")
        if self.checkpoint and self.checkpoint.startswith("models:/") and not PINNED.fullmatch(self.checkpoint):
            raise ValueError(NOT_PINNED)
        return self
