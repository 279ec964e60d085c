"""How often a test split has been looked at before; looks at mostly the same pairs count as looks at the same split."""

from __future__ import annotations

import pandas as pd

from esci_tournament.flows.context import TournamentContext
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.store import digest_of_test, share_in_test, write_test


def looks_before(workspace: Workspace, context: TournamentContext, pairs: pd.DataFrame) -> int:
    """Return how many looks count as looks at these test pairs, but for the one that this tournament takes.

    Newer data has a test split of its own, by its digest. As long as fewer of its pairs are new than the setting
    `fresh_share` asks for, it inherits the looks at the older one: else the error that is allowed over the life of a
    split would be granted again with every new data version. A split whose pairs are not in the stage store counts as
    the same.

    Args:
        workspace: Ledger, stage store, which keeps the pairs, and settings.
        context: The tournament that is about to look.
        pairs: The test pairs, as :func:`esci_tournament.flows.judging.pairs_of` returns them.

    Returns:
        The number of looks, 0 for none.
    """
    ledger, stages, settings = workspace.ledger, workspace.stages, workspace.settings
    own = context.id, context.attempt.against
    digest = digest_of_test(pairs)
    stages.obtain(stages.key("test_split", digest=digest), lambda folder: write_test(pairs, folder))
    related = {digest: True}
    for split in {look.test_split for look in ledger.looks()} - {digest}:
        folder = stages.find(stages.key("test_split", digest=split))
        related[split] = folder is None or share_in_test(pairs, folder) > 1 - settings.fresh_share
    return sum(related[look.test_split] for look in ledger.looks() if (look.tournament, look.against) != own)
