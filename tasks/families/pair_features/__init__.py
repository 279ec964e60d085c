"""Candidates that read features of a pair: what its texts share, what the query names, how popular the product is."""

from esci_tournament.registry.plugins import Family
from esci_tournament.tasks.families.pair_features.spec import PairFeaturesSpec

FAMILY = Family(PairFeaturesSpec, f"{__name__}.model:PairFeatures")
