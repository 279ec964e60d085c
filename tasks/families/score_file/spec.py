"""The spec of a file of scores."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from esci_tournament.tasks.families.declared import DeclaredSpec


class ScoresSpec(DeclaredSpec):
    """A file of scores of a model that cannot be shared.

    Attributes:
        file: parquet file with columns example_id (integer) and E, S, C, I (floats that sum to 1 in each row).
    """

    PATHS: ClassVar[tuple[str, ...]] = ("file", "trained_queries")
    family: Literal["scores"] = "scores"
    file: str = Field(description="parquet file")
