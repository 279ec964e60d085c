"""Models that were trained elsewhere: what their owner states of them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from esci_tournament.registry.specs import NamedSpec

TrainedOn = Literal["other_queries", "listed_queries", "train_split", "out_of_fold", "these_pairs"]


class DeclaredSpec(NamedSpec):
    """A model that was trained elsewhere; what it has seen is stated by its owner and cannot be checked.

    Attributes:
        trained_on: what the model has seen of this data, one of

            other_queries: no judged query of this data.
            listed_queries: of this data's judged queries, only those that the file `trained_queries` lists.
            out_of_fold: some of these queries, but each pair is scored by a model that did not see its query.
            train_split: the whole official train split; its scores of train pairs are in-sample and are refused.
            these_pairs: the pairs that it scores; refused.

        provenance: who trained it, on what and when, in words.
        trained_queries: parquet file of the queries it was trained on, for `listed_queries` only.
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
