"""Graph networks in torch and numpy, without compiled extensions.

`ngrams` and `lexicon` hash text; `encoders` turn it into frozen vectors; `neighbourhoods` keeps the strongest
neighbours of every node; `inputs` turns edges and pairs into arrays; `subgraphs` cuts out what a mini-batch needs;
`networks` holds the torch modules; `training` fits them; `embeddings` computes all products ahead of serving;
`catalogue` finds them again; `refresh` brings a fitted model up to date with other edges; `mend` repairs a saved model
whose files are damaged.
"""

from esci_tournament.registry.plugins import Family
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkSpec

FAMILY = Family(GraphNetworkSpec, f"{__name__}.model:GraphNetwork")
