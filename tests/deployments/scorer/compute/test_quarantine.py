"""What a process was lost with is not computed for a minute; the query of two such pages neither."""

from __future__ import annotations

from esci_tournament.deployments.scorer.catalogue import Text
from esci_tournament.deployments.scorer.compute.pairs import HARMLESS, Pairs
from esci_tournament.deployments.scorer.compute.quarantine import Quarantine


def page(query: str, title: str) -> Pairs:
    return Pairs(query, "us", [Text("", title, "", "", "", "")])


def test_one_page_holds_itself_and_two_hold_their_query_for_a_minute():
    now = 0.0
    held = Quarantine(lambda: now)
    held.add("m/1", page("aaa", "one"))
    assert held.holds("m/1", page("aaa", "one"))
    assert not held.holds("m/1", page("aaa", "two"))
    assert not held.holds("m/1", page("bbb", "one"))
    assert not held.holds("n/1", page("aaa", "one"))
    held.add("m/1", page("aaa", "one"))  # the same one
    assert not held.holds("m/1", page("aaa", "two"))
    held.add("m/1", page("aaa", "two"))
    assert held.holds("m/1", page("aaa", "three"))
    now = 61.0
    assert not held.holds("m/1", page("aaa", "one"))


def test_the_harmless_page_is_never_held():
    held = Quarantine()
    held.add("m/1", HARMLESS)
    assert not held.holds("m/1", HARMLESS)
