"""The data version for serving: the newest of the tournament's and those published since."""

from __future__ import annotations

import pytest

from esci_tournament.registry.errors import NotFoundError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.live_data import (
    BEFORE,
    EVENT,
    live_data,
    named_so_far,
    served_history,
    set_live_data,
    take_back,
)


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


def test_it_is_taken_back_to_what_served_before_and_taken_back_again(ledger_url):
    with Ledger.open(ledger_url) as ledger:
        for digest in ("of an earlier champion", "own", "new"):
            ledger.record_data_version(digest)
        set_live_data(ledger, "of an earlier champion")
        ledger.start_tournament("t-1", "own", payload={BEFORE: named_so_far(ledger)})
        (held,) = ledger.tournaments()
        with pytest.raises(NotFoundError, match="nothing is undone"):
            take_back(ledger, held, "ana", "a mistake")
        set_live_data(ledger, "new", "the weekly run", "newest data")
        with pytest.raises(UsageError, match="reason"):
            take_back(ledger, held, "ana", " ")
        assert take_back(ledger, held, "ana", "prices are wrong").data_version == live_data(ledger, held) == "own"
        assert take_back(ledger, held, "ben", "they are right").data_version == live_data(ledger, held) == "new"
        told = [(one.data_version, one.by, one.reason) for one in served_history(ledger, held)]
        assert told == [
            ("own", "", "the data of tournament t-1"),
            ("new", "the weekly run", "newest data"),
            ("own", "ana", "prices are wrong"),
            ("new", "ben", "they are right"),
        ]
