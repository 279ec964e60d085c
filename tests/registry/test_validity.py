"""Promotions count only with the decision, verdict and policy that they rest on, however their rows came about."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, replace
from typing import Any

import pytest

from esci_tournament.registry import tables
from esci_tournament.registry.errors import PolicyError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.policies import record_policy
from esci_tournament.registry.policy import RULE, Policy
from esci_tournament.registry.records import EnsembleRecord
from esci_tournament.registry.settings import Settings
from tests.registry.conftest import approved

pytestmark = pytest.mark.databases("sqlite")

ENSEMBLE = "esci"
POLICY = Policy.of(Settings(review="none"))
REVIEWED = replace(POLICY, review="required")


def held(ledger: Ledger, number: int, against: int = 0, **rule: Any) -> int:
    """Put a tournament on record whose challenger was approved, and return the decision's id."""
    ledger.record_data_version("data")
    ledger.record_candidate(f"m/{number}", "digest", "scores", {"registered_by": ["root@here"]})
    ledger.start_tournament(f"t{number}", "data", {f"m/{number}": "newcomer"})
    settings = {name: value for name, value in asdict(POLICY).items() if name in RULE} | rule
    payload = {"members": [f"m/{number}"], "settings": settings}
    return approved(ledger, ENSEMBLE, f"t{number}", number, against, payload).id


def say_yes(ledger: Ledger, decision: int, reviewer: str, proof: str = "word") -> None:
    verdict = next(one.verdict for one in ledger.decisions() if one.id == decision)
    ledger.record_approval(verdict, reviewer, reviewer, "better", {"proof": proof})


def promote(ledger: Ledger, version: int, decision: int | None, expected: int = 0) -> None:
    ledger.record_promotion(ENSEMBLE, "promote", version, expected, "better", decision)


def forge(ledger: Ledger, **values: Any) -> None:
    """Insert a promotion by plain SQL, as somebody with a shell would."""
    row = {"ensemble": ENSEMBLE, "sequence": 1, "kind": "promote", "version": 1, "decision": None, "reason": "forged"}
    row |= {"at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "who": "ceo@board", "payload": {}} | values
    with ledger._database.writing() as connection:
        connection.execute(tables.promotions.insert().values(**row))


def test_a_promotion_without_a_decision_is_not_recorded(ledger: Ledger) -> None:
    held(ledger, 1)
    with pytest.raises(PolicyError, match="it has no decision"):
        promote(ledger, 1, None)
    assert ledger.export()["promotions"] == []


def test_a_promotion_that_was_written_by_hand_moves_nobody_and_is_told(ledger: Ledger) -> None:
    promote(ledger, 1, held(ledger, 1))
    forge(ledger, sequence=2, version=7)
    standing = ledger.standing(ENSEMBLE)
    assert (standing.champion.version, standing.sequence) == (1, 2)
    assert [str(one) for one in standing.invalid] == [
        "promote 2 to version 7 in the ledger does not count: it has no decision"
    ]
    assert [one.version for one in ledger.pending(ENSEMBLE)] == [1], "nobody finishes it"
    promote(ledger, 2, held(ledger, 2, against=1), expected=2)
    assert ledger.standing(ENSEMBLE).champion.version == 2, "the next one goes on"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"version": 2}, "another version"),
        ({"kind": "crown"}, "neither a promotion nor a rollback"),
        ({"kind": "rollback"}, "does not go back to the champion before"),
        ({"kind": "undo"}, "does not take the last change back"),
        ({"kind": "set", "version": 2}, "another version"),
        ({"sequence": -1}, "does not follow"),
    ],
)
def test_a_row_that_borrows_a_decision_does_not_count(ledger: Ledger, values: dict[str, Any], words: str) -> None:
    forge(ledger, decision=held(ledger, 1), **values)
    assert [words in one.complaint for one in ledger.standing(ENSEMBLE).invalid] == [True]
    assert ledger.standing(ENSEMBLE).champion is None


def test_rows_that_did_not_count_before_there_was_a_set_do_not_count_now(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        promote(ledger, number, held(ledger, number, against=number - 1), expected=number - 1)
    forge(ledger, kind="rollback", version=1, sequence=4)  # over two champions, without saying so
    forge(ledger, kind="undo", version=1, sequence=5)
    forge(ledger, kind="set", version=7, sequence=6)
    standing = ledger.standing(ENSEMBLE)
    assert (standing.champion.version, standing.previous.version, len(standing.invalid)) == (3, 2, 3)


def test_a_version_that_is_set_is_held_to_the_policy_as_a_promotion_is(ledger: Ledger) -> None:
    promote(ledger, 1, held(ledger, 1))
    record_policy(ledger, REVIEWED, "a test", 0)
    decision = held(ledger, 2)
    with pytest.raises(PolicyError, match="approval of 1 of its reviewers, and 0 count"):
        ledger.record_promotion(ENSEMBLE, "set", 2, 1, "I want it", decision)
    with pytest.raises(PolicyError, match="it has no decision"):
        ledger.record_promotion(ENSEMBLE, "set", 2, 1, "I want it")
    say_yes(ledger, decision, "ana")
    ledger.record_promotion(ENSEMBLE, "set", 2, 1, "it was approved", decision)
    ledger.record_promotion(ENSEMBLE, "set", 1, 2, "it was champion before there was a policy")
    assert ledger.standing(ENSEMBLE).champion.version == 1


def test_a_refused_verdict_or_one_against_another_champion_promotes_nobody(ledger: Ledger) -> None:
    promote(ledger, 1, held(ledger, 1))
    with pytest.raises(PolicyError, match="against another champion"):
        promote(ledger, 2, held(ledger, 2, against=0), expected=1)
    ledger.start_tournament("t3", "data")
    ledger.record_ensemble("t3", ENSEMBLE, 3)
    verdict = ledger.record_verdict("t3", "refuse", {}, 1)
    decision = ledger.record_decision(verdict.id, "approve", "ana", "I want it")
    with pytest.raises(PolicyError, match="its verdict is 'refuse'"):
        promote(ledger, 3, decision.id, expected=1)


def test_what_was_promoted_before_there_was_a_policy_stays(ledger: Ledger) -> None:
    promote(ledger, 1, held(ledger, 1))
    record_policy(ledger, replace(REVIEWED, reviewers=("ana",)), "a test", 0)
    assert ledger.standing(ENSEMBLE).champion.version == 1
    with pytest.raises(PolicyError, match="approval of 1 of its reviewers, and 0 count"):
        promote(ledger, 2, held(ledger, 2, against=1), expected=1)


@pytest.mark.parametrize(
    ("changes", "approvals", "counts"),
    [
        ({}, [("ana", "word")], True),
        ({}, [], False),
        ({}, [("root", "word")], False),
        ({"allow_self_review": True}, [("root", "word")], True),
        ({"reviewers": ("ana", "ben")}, [("ana", "word")], False),
        ({"reviewers": ("ana", "ben")}, [("ana", "code")], True),
        ({"reviewers": ("ana", "ben")}, [("mallory", "process")], False),
        ({"quorum": 2}, [("ana", "word")], False),
        ({"quorum": 2}, [("ana", "word"), ("ben", "word")], True),
        ({"reviewers": ("Ana@x", "root"), "quorum": 2}, [("ana", "code"), ("root", "process")], False),
    ],
)
def test_who_must_have_said_yes(
    ledger: Ledger, changes: dict[str, Any], approvals: list[tuple[str, str]], counts: bool
) -> None:
    record_policy(ledger, replace(REVIEWED, **changes), "a test", 0)
    decision = held(ledger, 1)
    for reviewer, proof in approvals:
        say_yes(ledger, decision, reviewer, proof)
    if not counts:
        with pytest.raises(PolicyError, match="approval"):
            promote(ledger, 1, decision)
        forge(ledger, decision=decision)
    else:
        promote(ledger, 1, decision)
    assert bool(ledger.standing(ENSEMBLE).champion) == counts


def test_a_verdict_under_a_weaker_rule_promotes_nobody(ledger: Ledger) -> None:
    record_policy(ledger, POLICY, "a test", 0)
    with pytest.raises(PolicyError, match="weaker rule than version 1 of the policy: alpha"):
        promote(ledger, 1, held(ledger, 1, alpha=0.9))
    promote(ledger, 2, held(ledger, 2, alpha=0.01))


def test_a_policy_that_changes_later_takes_nothing_back_and_rules_what_follows(ledger: Ledger) -> None:
    record_policy(ledger, POLICY, "a test", 0)
    promote(ledger, 1, held(ledger, 1))
    record_policy(ledger, REVIEWED, "from now on", 1)
    assert ledger.standing(ENSEMBLE).champion.version == 1
    with pytest.raises(PolicyError, match="0 count"):
        promote(ledger, 2, held(ledger, 2, against=1), expected=1)


def test_who_registered_is_what_the_ledger_says(ledger: Ledger) -> None:
    held(ledger, 1)
    (ensemble,) = ledger.ensembles()
    assert isinstance(ensemble, EnsembleRecord)
    assert ledger.registrants(ensemble) == ["root@here"]


# The files that a decision is about


def attested(ledger: Ledger, number: int, digest: str, against: int = 0) -> int:
    """Do what :func:`held` does, with the digest of a manifest on record."""
    ledger.record_data_version("data")
    ledger.start_tournament(f"t{number}", "data")
    payload = {"manifest_digest": digest} if digest else {}
    return approved(ledger, ENSEMBLE, f"t{number}", number, against, payload).id


def rewrite(ledger: Ledger, table: Any, id: int, payload: dict[str, Any]) -> None:
    """Change a payload as somebody with a shell would."""
    with ledger._database.writing() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table.name}_no_update")
        connection.execute(table.update().where(table.c.id == id).values(payload=payload))


def test_decisions_and_approvals_name_the_manifest_on_record(ledger: Ledger) -> None:
    first, second = attested(ledger, 1, "a" * 64), attested(ledger, 2, "")
    assert [one.payload for one in ledger.decisions()] == [{"manifest_digest": "a" * 64}, {}]
    say_yes(ledger, first, "ana")
    say_yes(ledger, second, "ana")
    assert [one.payload.get("manifest_digest") for one in ledger.approvals()] == ["a" * 64, None]


def test_a_promotion_whose_decision_names_other_files_does_not_count(ledger: Ledger) -> None:
    """L1.2: the rows of a whole decision are there."""
    promote(ledger, 1, attested(ledger, 1, "a" * 64))
    assert ledger.standing(ENSEMBLE).champion.version == 1
    for payload in ({}, {"manifest_digest": "b" * 64}):
        rewrite(ledger, tables.decisions, 1, payload)
        standing = ledger.standing(ENSEMBLE)
        assert standing.champion is None
        assert "its decision names manifest" in str(standing.invalid[0])
    rewrite(ledger, tables.decisions, 1, {"manifest_digest": "a" * 64})
    rewrite(ledger, tables.ensembles, 1, {"manifest_digest": "b" * 64})
    assert ledger.standing(ENSEMBLE).champion is None


def test_an_approval_of_other_files_does_not_count(ledger: Ledger) -> None:
    record_policy(ledger, REVIEWED, "we review", 0)
    decision = attested(ledger, 1, "a" * 64)
    settings = {name: value for name, value in asdict(POLICY).items() if name in RULE}
    rewrite(ledger, tables.ensembles, 1, {"manifest_digest": "a" * 64, "settings": settings})
    ledger.record_approval(1, "ana", "ana", "better", {"proof": "process", "manifest_digest": "b" * 64})
    with pytest.raises(PolicyError, match="0 count"):
        promote(ledger, 1, decision)


def test_once_a_champion_has_a_manifest_those_after_it_need_one(ledger: Ledger) -> None:
    """L1.2: a forged ensemble of which nobody says what its files are."""
    promote(ledger, 1, attested(ledger, 1, ""))
    promote(ledger, 2, attested(ledger, 2, "a" * 64, 1), 1)
    assert ledger.standing(ENSEMBLE).champion.version == 2, "those from before go on to count"
    with pytest.raises(PolicyError, match="has no manifest, though ensembles before it have one"):
        promote(ledger, 3, attested(ledger, 3, "", 2), 2)
