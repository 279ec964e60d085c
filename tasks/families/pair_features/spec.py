"""The spec of a model of pair features: whose events count as popularity, and the recipe of its trees."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from esci_tournament.registry.specs import NamedSpec, Strict
from esci_tournament.tasks.data.relations import Relation, names, relation_type


class PairFeaturesRecipe(Strict):
    """The hyperparameters of the trees; each field's description has its unit."""

    rounds: int = Field(400, ge=1, le=5000, description="boosting rounds at most, of one tree a class")
    learning_rate: float = Field(0.05, gt=0, le=1)
    leaves: int = Field(15, ge=2, le=255, description="leaves of a tree at most")
    leaf_rows: int = Field(20, ge=1, le=1_000_000, description="training pairs of a leaf at least")
    l2: float = Field(3.0, ge=0, le=1_000_000, description="ridge penalty on the leaves' values")
    feature_share: float = Field(0.7, gt=0, le=1, description="share of the features that a tree sees")
    class_weights: Literal["none", "balanced", "sqrt_balanced"] = "none"


class PairFeaturesSpec(NamedSpec):
    """Gradient-boosted trees on features of a pair that need no other pair and no other model.

    Attributes:
        popularity: relations from queries to products whose events are counted for each product; none by default.
        recipe: hyperparameters.
    """

    family: Literal["pair_features"] = "pair_features"
    popularity: tuple[Relation, ...] = ()
    recipe: PairFeaturesRecipe = PairFeaturesRecipe()

    @field_validator("popularity")
    @classmethod
    def _in_one_order(cls, value: tuple[Relation, ...]) -> tuple[Relation, ...]:
        """The order of relations means nothing: it is the same candidate."""
        if len(set(value)) < len(value):
            raise ValueError("name no relation twice")
        if between := [one for one in value if relation_type(one).ends == "product"]:
            raise ValueError(f"{between[0]} is between products; name relations from a query to a product")
        return tuple(one for one in names() if one in value)
