"""The champion changed since the verdict: the challenger is judged again, and asked about again or refused."""

from __future__ import annotations

from typing import Any

import pytest

from esci_tournament.flows import decision
from esci_tournament.flows.review import reconcile_reviews
from esci_tournament.registry.promotion import rollback
from esci_tournament.registry.reviews import find_case
from tests.flows.conftest import say, summary
from tests.tasks.report.test_sealing import told_of

pytestmark = pytest.mark.slow


def test_a_challenger_that_is_better_than_the_new_champion_too_is_asked_about_again(challenged_twice: Any) -> None:
    champion = challenged_twice
    good, best = (find_case(champion.workspace.ledger, "esci-ensemble", f"t-{name}") for name in ("good", "best"))
    say(champion, good)
    looks = len(champion.workspace.ledger.export()["looks"])
    said = say(champion, best)
    assert "the champion changed to version 2 meanwhile; it was judged again: promote" in said
    assert champion.champion() == 2
    assert champion.case(best.id).state == "judged again"
    assert len(champion.workspace.ledger.export()["looks"]) == looks + 1
    again = find_case(champion.workspace.ledger, "esci-ensemble", "t-best")
    assert (again.state, again.verdict.against) == ("waits", 2)
    assert "ana approved version 3" in again.reviews[0].payload["note"]
    told = summary(champion, "t-best")
    assert (told["awaits_review"], told["champion_version"], told["verdict"]["look"]) == (
        True,
        "2",
        1,
    )
    assert told["review"] == again.id
    say(champion, again, reviewer="bob", reason="still better")
    assert champion.champion() == 3


def test_a_challenger_that_is_worse_than_the_new_champion_is_refused_and_its_numbers_are_sealed(champion: Any) -> None:
    best, good = (champion.challenge(f"t-{name}", ["weak", name]) for name in ("best", "good"))
    say(champion, best)
    said = say(champion, good)
    assert "judged again: refuse" in said
    assert "the test split does not show that it is better without harm elsewhere" in said
    assert champion.champion() == 2
    [_, again] = champion.workspace.ledger.verdicts("t-good")
    assert again.payload["metrics"], "the ledger keeps the whole verdict"
    folder = champion.settings["home"] / "tournaments" / "t-good"
    published = "".join(path.read_text() for path in folder.rglob("*.*"))
    assert not told_of(again.payload, published + said)
    shown = summary(champion, "t-good")
    assert (shown["sealed"], shown["ensemble"], shown["champion"], shown["confusion"]) == (True, None, None, [])
    assert shown["out_of_fold"]["macro_f1"] > 0
    assert shown["decision"] == {
        "decision": "refuse",
        "by": "the verdict",
        "reason": said.removesuffix("; the champion stays"),
    }
    assert reconcile_reviews(champion.workspace) == []


def test_without_scores_of_the_new_champion_the_verdict_says_what_is_missing(champion: Any) -> None:
    best, good = (
        champion.challenge(f"t-{name}", ["weak", name], keeps_scores=name != "best") for name in ("best", "good")
    )
    say(champion, best)
    said = say(champion, good)
    assert "cannot be judged against it: best/1 has no scores on data version" in said
    assert "hold a new tournament on that data" in said
    assert champion.champion() == 2
    assert champion.workspace.ledger.verdicts("t-good")[-1].outcome == "not-evaluable"
    assert summary(champion, "t-good")["verdict"]["outcome"] == "not_evaluable"


def test_the_champion_of_the_verdict_that_is_back_by_a_rollback_takes_no_other_look(challenged_twice: Any) -> None:
    champion = challenged_twice
    good, best = (find_case(champion.workspace.ledger, "esci-ensemble", f"t-{name}") for name in ("good", "best"))
    say(champion, good)
    work = champion.workspace
    rollback(work.ledger, work.models, "it was slow")
    looks = len(work.ledger.export()["looks"])
    say(champion, best)
    assert champion.champion() == 3
    assert len(work.ledger.export()["looks"]) == looks


def test_a_judgement_that_was_killed_before_the_report_is_told_by_the_next_sweep(
    challenged_twice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = challenged_twice
    good, best = (find_case(champion.workspace.ledger, "esci-ensemble", f"t-{name}") for name in ("good", "best"))
    say(champion, good)

    class Killed(BaseException):
        """As kill -9: nothing after it runs."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(decision, "read_summary", die)
        with pytest.raises(Killed):
            say(champion, best)
    verdicts = champion.workspace.ledger.verdicts("t-best")
    assert [one.against for one in verdicts] == [1, 2]
    done = reconcile_reviews(champion.workspace)
    assert "waits for review again as verdict" in done[0]
    assert champion.workspace.ledger.verdicts("t-best") == verdicts
    assert summary(champion, "t-best")["awaits_review"]
    assert find_case(champion.workspace.ledger, "esci-ensemble", "t-best").state == "waits"
