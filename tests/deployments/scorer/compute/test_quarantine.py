"""What processes were lost with is in doubt, and then held for a minute; so is the query of two such pages."""

from __future__ import annotations

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.pairs import HARMLESS, Pairs
from esci_tournament.deployments.scorer.compute.quarantine import Quarantine


def page(query: str, title: str) -> Pairs:
    return Pairs(query, "us", [Text("", title, "", "", "", "")])


def test_one_loss_casts_doubt_and_two_hold_a_page_or_its_query_for_a_minute():
    now = 0.0
    kept = Quarantine(lambda: now)
    kept.add("m/1", page("aaa", "one"))
    assert kept.doubts("m/1", page("aaa", "one"))
    assert kept.doubts("m/1", page("aaa", "two"))
    assert not kept.holds("m/1", page("aaa", "one"))
    assert not kept.doubts("m/1", page("bbb", "one"))
    assert not kept.doubts("n/1", page("aaa", "one"))
    kept.add("m/1", page("aaa", "one"))  # the same one
    assert kept.holds("m/1", page("aaa", "one"))
    assert not kept.holds("m/1", page("aaa", "two"))
    kept.add("m/1", page("aaa", "two"))
    assert kept.holds("m/1", page("aaa", "three"))
    now = 61.0
    assert not kept.doubts("m/1", page("aaa", "one"))


def test_the_harmless_page_is_never_held():
    kept = Quarantine()
    kept.add("m/1", HARMLESS)
    assert not kept.doubts("m/1", HARMLESS)
