"""The spec of a graph network: architecture, relations, and the recipe of its training."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from esci_tournament.registry.specs import NamedSpec, Strict
from esci_tournament.tasks.data.relations import Relation, names

GNNArchitecture = Literal["graphsage", "gcn", "gatv2", "rgcn", "hgt"]


class GraphNetworkRecipe(Strict):
    """The hyperparameters of a graph network and of its training run; each field's description has its unit."""

    hidden_size: int = Field(128, ge=8, le=8192)
    layers: int = Field(2, ge=1, le=3, description="hops of message passing")
    fanout: int = Field(
        8, ge=1, le=1024, description="neighbours used of each node; several relations share them evenly"
    )
    encoder: str = Field("lsa", description="frozen text encoder: `lsa`, or a Hugging Face folder or hub id")
    text_dimensions: int = Field(128, ge=8, le=8192, description="dimensions of `lsa`")
    epochs: int = Field(10, ge=1, le=10_000)
    batch_size: int = Field(256, ge=1, le=1_000_000)
    learning_rate: float = Field(2e-3, gt=0, le=1000)
    weight_decay: float = Field(1e-4, ge=0, le=10)
    dropout: float = Field(0.1, ge=0, lt=1)
    class_weights: Literal["none", "balanced", "sqrt_balanced"] = "none"
    heads: int = Field(4, ge=1, le=256, description="attention heads of gatv2 and hgt")


class GraphNetworkSpec(NamedSpec):
    """A graph neural network on one relation, or, with rgcn or hgt, on several at once.

    Attributes:
        architecture: kind of the message-passing layers.
        relation: one relation or several; more than one needs rgcn or hgt.
        recipe: hyperparameters.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("recipe.encoder",)
    family: Literal["graph_network"] = "graph_network"
    architecture: GNNArchitecture
    relation: Relation | tuple[Relation, ...] = "impressions"
    recipe: GraphNetworkRecipe = GraphNetworkRecipe()

    @property
    def parameters(self) -> int:
        """Parameters of the network, estimated from the recipe before anything is allocated.

        A layer counts four matrices of hidden_size x hidden_size for itself and for each relation: what HGT, the
        largest architecture, has.
        """
        recipe, width = self.recipe, self.recipe.hidden_size
        return width * (recipe.text_dimensions + 4 * width * recipe.layers * (1 + len(self.relations)))

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
        ordered = tuple(one for one in names() if one in value)
        return ordered if len(ordered) > 1 else ordered[0]

    @model_validator(mode="after")
    def _tells_relations_apart(self) -> GraphNetworkSpec:
        if len(self.relations) > 1 and self.architecture not in ("rgcn", "hgt"):
            raise ValueError(f"{self.architecture} works on one relation; rgcn and hgt work on several")
        return self

    def paths(self) -> list[str]:
        """Return the folder of the text encoder; `lsa` names none."""
        return [] if self.recipe.encoder == "lsa" else super().paths()
