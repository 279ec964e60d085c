"""Newer data that waits for a reviewer: who may decide, how many must, and what waits afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from esci_tournament.registry.data_reviews import decide, find_version, offer, offered
from esci_tournament.registry.errors import NotFoundError, PolicyError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.live_data import is_served, set_live_data
from esci_tournament.registry.policy import Policy
from esci_tournament.registry.processes import process_user
from esci_tournament.registry.reviewers import Answer
from esci_tournament.registry.settings import Settings

ANYONE = Policy.of(Settings())


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as opened:
        for digest in ("aaaa1", "bbbb1", "bbbb2"):
            opened.record_data_version(digest)
        yield opened


def say(ledger: Ledger, version: str, outcome: str = "approve", by: str = "ana", policy: Policy = ANYONE) -> str:
    return decide(ledger, policy, version, Answer(outcome, by, "seen", "command line", f"{by} {version}"))


def waits(ledger: Ledger) -> list[str]:
    return [one.subject for one in offered(ledger)]


def test_what_is_offered_waits_once_until_somebody_approves_it(ledger: Ledger) -> None:
    assert offer(ledger, "aaaa1", "week 1")
    assert not offer(ledger, "aaaa1", "week 1")
    assert offer(ledger, "bbbb1", "week 2")
    assert waits(ledger) == ["aaaa1", "bbbb1"]
    assert not is_served(ledger, "bbbb1")
    assert say(ledger, "bbbb1") == "scorers change to data bbbb1"
    assert is_served(ledger, "bbbb1")
    assert waits(ledger) == []  # what is older than what serves waits no more
    assert not offer(ledger, "bbbb1", "week 2")


def test_what_was_refused_is_not_offered_again_and_may_still_be_approved(ledger: Ledger) -> None:
    offer(ledger, "aaaa1", "week 1")
    say(ledger, "aaaa1", "refuse")
    assert waits(ledger) == []
    assert not offer(ledger, "aaaa1", "week 1")
    say(ledger, "aaaa1")
    assert is_served(ledger, "aaaa1")


def test_as_many_must_approve_as_the_policy_says_each_once(ledger: Ledger) -> None:
    two = Policy.of(Settings(quorum=2))
    offer(ledger, "aaaa1", "week 1")
    for name in ("ana", "Ana@laptop"):  # one person
        assert "1 more must approve" in say(ledger, "aaaa1", by=name, policy=two)
    say(ledger, "aaaa1", "refuse", by="ben")  # an approval from before a refusal counts no more
    assert "1 more must approve" in say(ledger, "aaaa1", by="ben", policy=two)
    say(ledger, "aaaa1", by="cleo", policy=two)
    assert is_served(ledger, "aaaa1")


def test_only_who_the_policy_names_and_can_prove_it_decides(ledger: Ledger) -> None:
    offer(ledger, "aaaa1", "week 1")
    named = Policy.of(Settings(reviewers=("somebody-else", process_user())))
    for name in ("mallory", "somebody-else"):  # not named; named, and not the user of this process
        for outcome in ("approve", "refuse"):
            with pytest.raises(PolicyError, match="may not decide here"):
                say(ledger, "aaaa1", outcome, by=name, policy=named)
    assert waits(ledger) == ["aaaa1"]
    say(ledger, "aaaa1", by=process_user(), policy=named)
    assert is_served(ledger, "aaaa1")


def test_what_served_before_newer_data_can_be_offered_again(ledger: Ledger) -> None:
    set_live_data(ledger, "aaaa1")
    set_live_data(ledger, "bbbb1")
    assert offer(ledger, "aaaa1", "put back at the source")
    assert waits(ledger) == ["aaaa1"]


def test_a_version_is_found_by_its_first_digits(ledger: Ledger) -> None:
    assert find_version(ledger, "aaaa") == "aaaa1"
    for name, why in (("bbbb", "2 begin"), ("cccc", "none begins"), ("aaa", "none begins"), ("", "none begins")):
        with pytest.raises(NotFoundError, match=why):
            find_version(ledger, name)
