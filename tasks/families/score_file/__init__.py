"""Candidates that are a file of scores, for models that cannot be shared."""

from esci_tournament.registry.plugins import Family
from esci_tournament.tasks.families.score_file.spec import ScoresSpec

FAMILY = Family(ScoresSpec, f"{__name__}.model:ScoreFile")
