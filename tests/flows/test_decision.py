"""Effects of a reviewer's answer without a Prefect server: the command line, and the sweep that completes them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.flows.decision import record
from esci_tournament.flows.review import reconcile_reviews
from esci_tournament.registry.errors import BusyError, NotFoundError, UsageError
from esci_tournament.registry.processes import user_and_host
from esci_tournament.registry.reviews import find_case
from tests.flows.conftest import say, summary

pytestmark = pytest.mark.slow

MakeWorld = Callable[..., Any]
ME = user_and_host()


# One decision


def test_an_approval_installs_the_version_and_ledger_report_and_registry_tell_it(asked: Any) -> None:
    world, case = asked, asked.waiting()
    assert (case.state, case.is_inaugural, world.champion()) == ("waits", True, None)
    assert say(world, case) == "version 1 is champion, approved by ana: it is better"
    assert world.champion() == 1
    told = summary(world, "t-1")
    assert told["decision"] == {"decision": "approve", "by": "ana", "reason": "it is better"}
    assert (told["promoted"], told["awaits_review"]) == (True, False)
    models = world.workspace.models
    version = models.ensemble(1)
    assert version.tags["tournament.decision"] == "approve"
    assert version.tags["tournament.reviewer"] == "ana"
    assert json.loads((models.report(version) / "summary.json").read_text()) == told
    assert "it is better" in (models.report(version) / "report.html").read_text(encoding="utf-8")
    chapter = world.workspace.ledger.history("esci-ensemble")[-1]
    assert (chapter.decision.reviewer, chapter.verdict.id) == ("ana", case.id)


def test_a_refusal_leaves_the_champion_and_cannot_be_turned_by_an_approval(challenged: Any) -> None:
    case = challenged.waiting()
    assert say(challenged, case, "refuse", reason="too slow") == "version 2 was refused by ana: too slow"
    with pytest.raises(BusyError, match=r"decided already: refuse by ana .*too slow.*nothing was changed"):
        say(challenged, challenged.case(case.id), "approve", "bob")
    assert challenged.champion() == 1
    assert summary(challenged, "t-2")["decision"]["decision"] == "refuse"


def test_who_registered_a_candidate_may_refuse_it_but_not_approve_it(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(begin="asked")
    case = world.waiting()
    for spelling in (ME, ME.split("@")[0].upper()):
        with pytest.raises(UsageError, match="registered a candidate that is new in this ensemble"):
            say(world, case, "approve", spelling)
    assert world.case(case.id).state == "waits"
    world.settings["allow_self_review"] = True
    say(world, case, "approve", ME)
    assert world.champion() == 1
    other = make_world(tmp_path / "other", "asked")
    say(other, other.waiting(), "refuse", ME)


@pytest.mark.parametrize(
    ("reviewer", "reason", "complaint"),
    [
        ("mallory", "why not", "mallory may not decide here"),
        ("ana", "why not", "ana may not decide here, or nothing proves that it is ana"),
        ("  ", "why not", "name is missing"),
        ("Bob", " ", "reason is missing"),
    ],
)
def test_an_answer_that_breaks_a_rule_is_not_recorded(
    make_world: MakeWorld, reviewer: str, reason: str, complaint: str
) -> None:
    world = make_world(begin="asked", reviewers=("ana", "bob@desk", ME))
    case = world.waiting()
    with pytest.raises(UsageError, match=complaint) as raised:
        say(world, case, "approve", reviewer, reason)
    assert "ana, bob" not in str(raised.value), "who may decide is nobody's to find out by trying"
    assert world.case(case.id).state == "waits"
    say(world, case, "refuse", ME.split("@")[0].upper(), "it may")


def test_of_many_who_answer_at_once_one_is_heard_and_the_others_are_told_so(challenged: Any) -> None:
    case = challenged.waiting()
    said: list[str] = []

    def speak(number: int) -> None:
        try:
            said.append(say(challenged, case, ("approve", "refuse")[number % 2], f"reviewer {number}"))
        except BusyError as error:
            said.append(f"refused: {error}")

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert sorted(words.startswith("refused: ") for words in said) == [False, True, True, True, True, True], said
    decided = challenged.case(case.id).decision
    assert challenged.champion() == (2 if decided.outcome == "approve" else 1)
    assert all(decided.reviewer in words for words in said)


# No answer, and kills


def test_no_answer_is_a_refusal_at_the_deadline_and_not_before(challenged: Any) -> None:
    case = challenged.waiting()
    assert reconcile_reviews(challenged.workspace) == [
        f"verdict {case.id} waits for review: tournament review show {case.id}"
    ]
    assert reconcile_reviews(challenged.workspace) == []
    challenged.settings["review_reminder_h"] = 1e-9
    assert reconcile_reviews(challenged.workspace) == [f"verdict {case.id}: reviewers were reminded"]
    challenged.settings["review_deadline_h"] = 1e-9
    assert "counts as a refusal" in reconcile_reviews(challenged.workspace)[0]
    assert challenged.case(case.id).decision.outcome == "expired"
    assert challenged.champion() == 1
    with pytest.raises(BusyError, match="expired by nobody"):
        say(challenged, challenged.case(case.id))
    assert summary(challenged, "t-2")["decision"]["by"] == "nobody"
    assert reconcile_reviews(challenged.workspace) == []


def test_an_approval_that_was_killed_before_anything_followed_is_carried_out_once(challenged: Any) -> None:
    case = challenged.waiting()
    record(challenged.workspace, case, "approve", "ana", "it is better", "prefect", "mark")
    assert challenged.champion() == 1
    assert reconcile_reviews(challenged.workspace) == ["version 2 is champion, approved by ana: it is better"]
    assert challenged.champion() == 2
    assert summary(challenged, "t-2")["promoted"]
    assert reconcile_reviews(challenged.workspace) == []


def test_an_approval_that_was_killed_is_carried_out_by_the_same_command_again(challenged: Any) -> None:
    case = challenged.waiting()
    record(challenged.workspace, case, "approve", "ana", "it is better", "command line", "of a process that was killed")
    with pytest.raises(BusyError, match="approve by ana"):
        say(challenged, case)
    assert challenged.champion() == 2


def test_a_verdict_that_nobody_has_to_decide_is_not_found(champion: Any) -> None:
    ledger = champion.workspace.ledger
    ledger.start_tournament("t-loser", champion.source.version)
    verdict = ledger.record_verdict("t-loser", "refuse", {}, 1)
    with pytest.raises(NotFoundError, match=r"is running.* is not one to be decided"):
        find_case(ledger, "esci-ensemble", verdict.id)
    with pytest.raises(NotFoundError, match="no verdict 't-other' asks"):
        find_case(ledger, "esci-ensemble", "t-other")


# The champion changed since the verdict
