"""The spec of a pyfunc that was fine-tuned elsewhere."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from esci_tournament.tasks.families.declared import DeclaredSpec

_PINNED = re.compile(r"models:/([^/@]+/[0-9]+|m-[0-9a-f]+)")


class PyfuncSpec(DeclaredSpec):
    """An MLflow pyfunc that was fine-tuned elsewhere; it runs only when an operator allows its source.

    Attributes:
        model: folder of an MLflow model, or models:/NAME/VERSION or models:/m-ID.
    """

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
