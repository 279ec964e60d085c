"""What a candidate says of itself: its family, its architecture or checkpoint, its relation, its recipe."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.plugins import load_family, plugged_in

TextField = Literal["title", "brand", "color", "bullets", "description"]
TEXT_FIELDS: tuple[TextField, ...] = ("title", "brand", "color", "bullets", "description")

LMArchitecture = Literal["bert", "distilbert", "electra", "roberta", "albert", "mpnet", "deberta-v2"]
GNNArchitecture = Literal["graphsage", "gcn", "gatv2", "rgcn", "hgt"]
Relation = Literal["impressions", "clicks", "adds", "purchases", "all", "bought_together", "same_session", "same_brand"]


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LanguageModelRecipe(Strict):
    """Every knob of a language model's training run."""

    style: Literal["cross_encoder", "bi_encoder"] = "cross_encoder"
    fields: tuple[TextField, ...] = TEXT_FIELDS
    max_length: int = Field(128, ge=8, le=4096, description="tokens a pair, special tokens included")
    epochs: int = Field(3, ge=1)
    batch_size: int = Field(32, ge=1, description="pairs an optimiser step")
    accumulation: int = Field(1, ge=1, description="micro-batches an optimiser step is cut into")
    learning_rate: float = Field(2e-5, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1, description="factor on the learning rate for each layer further down")
    warmup_share: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    class_weights: Literal["none", "balanced", "sqrt_balanced"] = "none"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    frozen_embeddings: bool = False
    frozen_layers: int = Field(0, ge=0, description="encoder layers, counted from below, that are not trained")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    field_tokens: dict[TextField, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="tokens a field may use at most; a field not named is cut by max_length alone"
    )
    patience: int | None = Field(None, ge=1, description="epochs without gain on validation after which training stops")
    gradient_checkpointing: bool = Field(False, description="save memory by computing activations twice")
    processes: int = Field(
        1, ge=1, le=64, description="processes that train together, one a GPU, each on its share of every batch"
    )
    lora_rank: int = Field(0, ge=0, description="rank of low-rank updates (LoRA); 0 trains the weights themselves")
    lora_alpha: int = Field(16, ge=1, description="low-rank updates are scaled by lora_alpha / lora_rank")
    keywords: dict[TextField, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="fields shortened to that many TF-IDF keywords"
    )
    locales: tuple[Literal["us", "es", "jp"], ...] = Field(
        (), description="locales it is fitted on and answers for, () for all; others get their class shares"
    )
    # Only for a model trained from scratch (`architecture` in place of `checkpoint`)
    hidden_size: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    vocabulary: int = Field(4000, ge=300, description="word pieces of the tokenizer trained on the fit pairs")


class GraphNetworkRecipe(Strict):
    """Every knob of a graph network's training run."""

    hidden_size: int = Field(128, ge=8)
    layers: int = Field(2, ge=1, le=3, description="hops of message passing")
    fanout: int = Field(8, ge=1, description="neighbours used of each node; several relations share them evenly")
    encoder: str = Field("lsa", description="frozen text encoder: `lsa`, or a Hugging Face folder or hub id")
    text_dimensions: int = Field(128, ge=8, description="dimensions of `lsa`")
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    class_weights: Literal["none", "balanced", "sqrt_balanced"] = "none"
    heads: int = Field(4, ge=1, description="attention heads of gatv2 and hgt")


class NamedSpec(Strict):
    """What the specs of all families share; a family that is plugged in derives its own spec from it.

    `PATHS` names the fields, dotted when they stand in the recipe, that may hold a file or folder: a relative one in a
    candidates file starts at that file, and its content belongs to the identity of the candidate.
    """

    PATHS: ClassVar[tuple[str, ...]] = ()

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="name of the registered model")
    description: str = ""
    seed: int | None = Field(None, ge=0, description="seed of this candidate; default: the tournament's")

    def digest(self) -> str:
        """Return a SHA-256 over all that changes what is learnt: every field but name and description.

        Fields at their default are left out, so that a later version of the product, with more fields, still
        recognises the candidates that were registered with this one. A default that changes its meaning needs a
        new code version of the stage `train` (:data:`esci_tournament.registry.stages.CODE_VERSIONS`).
        """
        content = self.model_dump(mode="json", exclude={"name", "description"}, exclude_defaults=True)
        content["family"] = getattr(self, "family", "")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class LanguageModelSpec(NamedSpec):
    """A Hugging Face encoder: fine-tuned from a checkpoint (folder or hub id), or trained from scratch."""

    PATHS: ClassVar[tuple[str, ...]] = ("checkpoint",)
    family: Literal["language_model"] = "language_model"
    checkpoint: str | None = Field(None, description="Hugging Face folder or hub id")
    architecture: LMArchitecture | None = Field(None, description="architecture of a model trained from scratch")
    recipe: LanguageModelRecipe = LanguageModelRecipe()

    @model_validator(mode="after")
    def _one_origin(self) -> LanguageModelSpec:
        if (self.checkpoint is None) == (self.architecture is None):
            raise ValueError("name either a checkpoint (to fine-tune) or an architecture (to train from scratch)")
        return self


class GraphNetworkSpec(NamedSpec):
    """A graph neural network on one relation, or, with an architecture that tells them apart, on several at once."""

    PATHS: ClassVar[tuple[str, ...]] = ("recipe.encoder",)
    family: Literal["graph_network"] = "graph_network"
    architecture: GNNArchitecture
    relation: Relation | tuple[Relation, ...] = "impressions"
    recipe: GraphNetworkRecipe = GraphNetworkRecipe()

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The relations, one or several, in the order in which this product lists them."""
        return (self.relation,) if isinstance(self.relation, str) else self.relation

    @field_validator("relation")
    @classmethod
    def _in_one_order(cls, value: Relation | tuple[Relation, ...]) -> Relation | tuple[Relation, ...]:
        """The order of several relations means nothing, and a list of one is that one: it is the same candidate."""
        if isinstance(value, str):
            return value
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one relation, and none of them twice")
        ordered = tuple(one for one in Relation.__args__ if one in value)  # type: ignore[attr-defined]
        return ordered if len(ordered) > 1 else ordered[0]

    @model_validator(mode="after")
    def _tells_relations_apart(self) -> GraphNetworkSpec:
        if len(self.relations) > 1 and self.architecture not in ("rgcn", "hgt"):
            raise ValueError(f"{self.architecture} works on one relation; rgcn and hgt work on several")
        return self


TrainedOn = Literal["other_queries", "listed_queries", "train_split", "out_of_fold", "these_pairs"]


class DeclaredSpec(NamedSpec):
    """A model that was trained elsewhere: its owner states what it has seen, which nobody can check from outside.

    `trained_on` is one of:
        other_queries: no judged query of this data.
        listed_queries: of this data's judged queries, only those that the file `trained_queries` lists.
        out_of_fold: some of these queries, but each pair is scored by a model that did not see its query.
        train_split: the whole official train split; its scores of train pairs are in-sample and are refused.
        these_pairs: the pairs that it scores; refused.
    """

    trained_on: TrainedOn = Field(description="what the model has seen of this data")
    provenance: str = Field(min_length=10, description="who trained it, on what and when, in words")
    trained_queries: str | None = Field(
        None, description="parquet file with a column query_id, or query and product_locale: what it was trained on"
    )

    @model_validator(mode="after")
    def _listed(self) -> Self:
        if (self.trained_on == "listed_queries") != (self.trained_queries is not None):
            raise ValueError("trained_on = 'listed_queries' and the file trained_queries go together")
        if self.trained_on == "these_pairs":
            raise ValueError(
                "scores of pairs that the model was trained on are in-sample and are refused; "
                "train it without the queries of these pairs, or score them out of fold"
            )
        return self


class ScoresSpec(DeclaredSpec):
    """A file of scores of a model that cannot be shared: columns example_id, E, S, C, I."""

    PATHS: ClassVar[tuple[str, ...]] = ("file", "trained_queries")
    family: Literal["scores"] = "scores"
    file: str = Field(description="parquet file")


class PyfuncSpec(DeclaredSpec):
    """An MLflow pyfunc that was fine-tuned elsewhere; it runs only when an operator allows its source."""

    PATHS: ClassVar[tuple[str, ...]] = ("model", "trained_queries")
    family: Literal["pyfunc"] = "pyfunc"
    model: str = Field(description="folder of an MLflow model, or models:/NAME/VERSION")

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.trained_on == "out_of_fold":
            raise ValueError("one model cannot score out of fold; register a score file in its place")
        if self.model.startswith("models:/") and not _PINNED.fullmatch(self.model):
            raise ValueError("name one version, models:/NAME/VERSION or models:/m-ID: an alias may move")
        if "://" in self.model:
            raise ValueError("a model is a folder or models:/NAME/VERSION; other addresses are not fetched")
        return self


_PINNED = re.compile(r"models:/([^/@]+/[0-9]+|m-[0-9a-f]+)")
CandidateSpec = Annotated[LanguageModelSpec | GraphNetworkSpec | ScoresSpec | PyfuncSpec, Field(discriminator="family")]
BUILT_IN: dict[str, type[NamedSpec]] = {
    "language_model": LanguageModelSpec,
    "graph_network": GraphNetworkSpec,
    "scores": ScoresSpec,
    "pyfunc": PyfuncSpec,
}
_ADAPTER: TypeAdapter[CandidateSpec] = TypeAdapter(CandidateSpec)


def parse_spec(content: dict[str, Any], origin: str = "spec") -> CandidateSpec:
    """Return the spec that `content` describes.

    Raises:
        SpecError: if a key is unknown or a value wrong; the message names key, value and origin.
    """
    try:
        if plug_in := _plug_in(content.get("family")):
            return plug_in.model_validate(content)  # type: ignore[return-value]
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise SpecError(_first_complaint(error, origin, content)) from error


def read_specs(path: Path) -> list[CandidateSpec]:
    """Read the candidates of a TOML file (`[[candidate]]` tables); relative paths start at that file.

    Raises:
        SpecError: if the file is missing or no TOML, holds no candidate or an unknown key, or repeats a name.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"candidates file {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"candidates file {path} is no TOML: {error}") from error
    unknown = set(document) - {"candidate"}
    if unknown or not isinstance(document.get("candidate"), list) or not document["candidate"]:
        found = f"unknown key {sorted(unknown)[0]!r}" if unknown else "no [[candidate]] table"
        raise SpecError(f"candidates file {path}: {found}; it holds one [[candidate]] table for each candidate")
    specs = []
    for number, table in enumerate(document["candidate"], 1):
        if not isinstance(table, dict) or not isinstance(table.get("recipe", {}), dict):
            raise SpecError(
                f"{path}, candidate {number}: the candidate and its recipe are tables (got {table!r}); "
                "write [[candidate]] and [candidate.recipe]"
            )
        _resolve_paths(table, path.parent)
        specs.append(parse_spec(table, f"{path}, candidate {number} ({table.get('name', 'without a name')})"))
    names = [spec.name for spec in specs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise SpecError(f"candidates file {path}: the name {repeated[0]!r} stands {names.count(repeated[0])} times")
    return specs


def spec_paths(spec: NamedSpec) -> list[Path]:
    """Return the files and folders on this machine that a spec points to, in the order of its `PATHS`."""
    content = spec.model_dump()
    values = [_owner(content, name) for name in spec.PATHS]
    places = [Path(str(owner[key])).expanduser() for owner, key in values if owner.get(key) not in (None, "lsa")]
    return [place for place in places if place.exists()]


def _resolve_paths(table: dict[str, Any], start: Path) -> None:
    family = table.get("family")
    spec_class = _plug_in(family) or BUILT_IN.get(str(family))
    for name in spec_class.PATHS if spec_class else ():
        owner, key = _owner(table, name)
        if isinstance(value := owner.get(key), str) and value and (start / value).exists():
            owner[key] = str((start / value).resolve())


def _owner(content: dict[str, Any], dotted: str) -> tuple[dict[str, Any], str]:
    *above, key = dotted.split(".")
    for name in above:
        content = content.get(name) or {}
    return content, key


def _plug_in(family: object) -> type[NamedSpec] | None:
    """Return the spec class of a family that is plugged in, None for one that is built in or unknown."""
    if not isinstance(family, str) or family in BUILT_IN or family not in plugged_in():
        return None
    spec_class: type[NamedSpec] = load_family(family).spec_class
    return spec_class


def _first_complaint(error: ValidationError, origin: str, content: dict[str, Any]) -> str:
    first = error.errors()[0]
    families = (*BUILT_IN, *plugged_in())
    named = [str(part) for part in first["loc"] if part not in families]
    key = ".".join(part for part in named if "[" not in part) or "spec"  # with a bracket it is a type of a union
    if first["type"] == "extra_forbidden":
        return f"{origin}: unknown key {key!r}; remove it or correct its spelling"
    if first["type"].startswith("union_tag"):
        return f"{origin}: family is {content.get('family')!r}; it must be one of {', '.join(families)}"
    return f"{origin}: {key}: {first['msg']} (got {first.get('input')!r})"
