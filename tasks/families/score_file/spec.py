"""What a file of scores says of itself."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from esci_tournament.tasks.families.declared import DeclaredSpec


class ScoresSpec(DeclaredSpec):
    """A file of scores of a model that cannot be shared: columns example_id, E, S, C, I."""

    PATHS: ClassVar[tuple[str, ...]] = ("file", "trained_queries")
    family: Literal["scores"] = "scores"
    file: str = Field(description="parquet file")
