"""The spec of a pyfunc that was fine-tuned elsewhere."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from esci_tournament.registry.labels import LABELS, classes_in
from esci_tournament.registry.specs import NOT_PINNED, PINNED
from esci_tournament.tasks.families.declared import DeclaredSpec

ProductField = Literal["title", "brand", "color", "bullets", "description"]


class PyfuncSpec(DeclaredSpec):
    """An MLflow pyfunc that was fine-tuned elsewhere; it runs only when an operator allows its source.

    Attributes:
        model: folder of an MLflow model, or models:/NAME/VERSION or models:/m-ID.
        classes: in which order an answer without names has the four classes, letters or words; None for a model that
            answers with named columns.
        fields: what a text classifier of `mlflow.transformers` reads of the product, in this order; None for the title.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("model", "trained_queries")
    family: Literal["pyfunc"] = "pyfunc"
    model: str = Field(description="folder of an MLflow model, or models:/NAME/VERSION")
    classes: tuple[str, ...] | None = Field(
        None,
        description="order of the classes in an answer whose columns have no names, such as C, E, I, S",
        exclude_if=lambda given: given is None,  # specs are compared byte by byte with what earlier releases wrote
    )

    fields: tuple[ProductField, ...] | None = Field(
        None,
        min_length=1,
        max_length=5,
        description="what a transformers text classifier reads of the product beside the query; default: the title",
        exclude_if=lambda given: given is None,
    )

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.trained_on == "out_of_fold":
            raise ValueError("one model cannot score out of fold; register a score file in its place")
        if self.model.startswith("models:/") and not PINNED.fullmatch(self.model):
            raise ValueError(NOT_PINNED)
        if "://" in self.model:
            raise ValueError("a model is a folder or models:/NAME/VERSION; other addresses are not fetched")
        if self.classes is not None and (len(self.classes) != len(LABELS) or classes_in(self.classes) is None):
            raise ValueError(f"classes names each of {', '.join(LABELS)} once, in the order of the model's columns")
        return self

    @property
    def order(self) -> str:
        """The declared order of the classes in letters, such as "CEIS"; "" when none is declared."""
        places = classes_in(self.classes or ())
        return "" if places is None else "".join(LABELS[places.index(number)] for number in range(len(LABELS)))
