"""The data version for serving: the newest of the tournament's and those published since."""

from __future__ import annotations

from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.live_data import EVENT, live_data, set_live_data


def test_the_newest_counts_and_is_named_once(ledger_url):
    with Ledger.open(ledger_url) as ledger:
        for digest in ("old", "new", "newest"):
            ledger.record_data_version(digest)
        set_live_data(ledger, "new")  # before the tournament: it was held on what was newest then
        ledger.start_tournament("t-1", "old")
        (first,) = ledger.tournaments()
        assert live_data(ledger, first) == "old"
        assert set_live_data(ledger, "newest")
        assert not set_live_data(ledger, "newest")
        assert live_data(ledger, first) == "newest"
        assert [event.subject for event in ledger.events(kind=EVENT)] == ["new", "newest"]
        ledger.start_tournament("t-2", "newest")
        assert live_data(ledger, ledger.tournaments()[-1]) == "newest"
        assert set_live_data(ledger, "old")  # and back again, if somebody wants that
        assert live_data(ledger, first) == "old"
