"""The policy in the ledger: settings may ask for more than it does, never for less."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from esci_tournament.registry.errors import PolicyError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.policies import changed_policy, current, govern, history, in_force, record_policy
from esci_tournament.registry.policy import NAMES, RULE, Policy, policy_of
from esci_tournament.registry.settings import Settings, read_settings

pytestmark = pytest.mark.databases("sqlite")

BASE = Policy.of(Settings(reviewers=("ana", "ben"), quorum=2, review="required", allowed_pyfunc_sources=("/models",)))
WEAKER: dict[str, Any] = {
    "review": "none",
    "reviewers": ("ana", "mallory"),
    "quorum": 1,
    "allow_self_review": True,
    "allowed_pyfunc_sources": ("/models", "/"),
    "primary_metric": "accuracy",
    "gain_metrics": ("primary", "log_loss", "accuracy"),
    "required_gain": -0.0,
    "alpha": 0.9,
    "guardrail_margin": 0.5,
    "not_worse_margin": 0.4,
    "cheaper_by": 0.01,
    "minimum_test_queries": 2,
    "inaugurate": True,
}


def settings(**said: Any) -> Settings:
    return read_settings(**said)


def test_every_part_of_the_policy_has_a_weaker_value_that_is_tried_here() -> None:
    assert set(WEAKER) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_asks_for_less_is_refused_and_says_how_to_change_the_policy(ledger: Ledger, name: str) -> None:
    strict = replace(BASE, required_gain=0.01, inaugurate=False)
    record_policy(ledger, strict, "a test", 0)
    with pytest.raises(PolicyError, match=rf"setting {name} = .*tournament policy set NAME=VALUE --reason WHY"):
        govern(ledger, settings(**{name: WEAKER[name]}), has_api=True)
    assert policy_of(current(ledger)) == strict


def test_what_was_left_to_its_default_is_the_policys(ledger: Ledger) -> None:
    record_policy(ledger, replace(BASE, alpha=0.01, inaugurate=False), "a test", 0)
    found = govern(ledger, settings(), has_api=False)
    assert (found.alpha, found.inaugurate, found.reviewers, found.quorum) == (0.01, False, ("ana", "ben"), 2)
    assert found.review == "required"


def test_a_run_may_be_stricter_by_itself_and_the_rule_stays(ledger: Ledger) -> None:
    record_policy(ledger, BASE, "a test", 0)
    assert govern(ledger, settings(alpha=0.001), has_api=False).alpha == 0.001
    assert policy_of(current(ledger)) == BASE


def test_the_first_use_of_a_ledger_takes_the_policy_from_its_settings(ledger: Ledger) -> None:
    govern(ledger, settings(alpha=0.02), has_api=False)
    record = current(ledger)
    assert (record.version, policy_of(record).alpha, policy_of(record).review) == (1, 0.02, "auto")
    assert govern(ledger, settings(), has_api=False).review == "none"


def test_a_review_that_was_asked_for_once_is_required_from_then_on(ledger: Ledger) -> None:
    govern(ledger, settings(), has_api=False)
    assert govern(ledger, settings(review="required"), has_api=False).review == "required"
    assert govern(ledger, settings(), has_api=False).review == "required"
    with pytest.raises(PolicyError, match="review = none, policy required"):
        govern(ledger, settings(review="none"), has_api=False)


def test_a_prefect_api_makes_reviews_required_unless_the_operator_had_said_none(ledger: Ledger, tmp_path) -> None:
    govern(ledger, settings(), has_api=False)
    assert govern(ledger, settings(), has_api=True).review == "required"
    with Ledger.open(f"sqlite:///{tmp_path / 'other.db'}") as other:
        govern(other, settings(review="none"), has_api=True)
        assert govern(other, settings(), has_api=True).review == "none"


def test_saying_none_on_a_home_without_reviews_takes_nothing_from_those_that_come_later(ledger: Ledger) -> None:
    govern(ledger, settings(), has_api=False)
    assert govern(ledger, settings(review="none"), has_api=False).review == "none"
    assert policy_of(current(ledger)).review == "auto"


def test_names_are_taken_over_where_anyone_decided_and_nobody_is_shut_out_by_a_process(ledger: Ledger) -> None:
    govern(ledger, settings(), has_api=False)
    govern(ledger, settings(reviewers=("ana", "ben")), has_api=False)
    assert policy_of(current(ledger)).reviewers == ("ana", "ben")
    assert govern(ledger, settings(reviewers=("Ana@home",)), has_api=False).reviewers == ("ana", "ben")
    assert [one.version for one in history(ledger)] == [1, 2]


def test_of_processes_that_are_the_first_at_once_all_come_under_one_policy(
    tmp_path,
) -> None:
    asked = [{"quorum": number % 3 + 1, "review": ("auto", "required")[number % 2]} for number in range(8)]
    refused: list[Exception] = []

    def first(said: dict[str, Any]) -> None:
        with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
            try:
                govern(opened, settings(**said), has_api=False)
            except PolicyError as error:
                refused.append(error)

    threads = [threading.Thread(target=first, args=(said,)) for said in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        policy = policy_of(current(ledger))
        assert (policy.quorum, policy.review) == (3, "required")
        assert [one.version for one in history(ledger)] == list(range(1, len(history(ledger)) + 1))
    assert all("quorum" in str(error) for error in refused), "who asks for a smaller quorum than another is told"


def test_a_change_needs_a_reason_and_the_version_that_was_seen(ledger: Ledger) -> None:
    record_policy(ledger, BASE, "a test", 0)
    with pytest.raises(UsageError, match="needs a reason"):
        record_policy(ledger, replace(BASE, alpha=0.1), "  ")
    record_policy(ledger, replace(BASE, alpha=0.1), "more power", 1)
    with pytest.raises(PolicyError, match="changed meanwhile"):
        record_policy(ledger, replace(BASE, alpha=0.2), "more still", 1)
    assert record_policy(ledger, replace(BASE, alpha=0.1), "the same again").version == 2
    assert history(ledger)[1].payload["changed"] == ["alpha"]


def test_values_are_checked_as_settings_are(ledger: Ledger) -> None:
    assert changed_policy(BASE, {"alpha": 0.2}).alpha == 0.2
    with pytest.raises(UsageError, match="alpha"):
        changed_policy(BASE, {"alpha": 2})
    with pytest.raises(UsageError, match="the policy has no 'seed'"):
        changed_policy(BASE, {"seed": 1})


def test_without_a_policy_the_settings_say(ledger: Ledger) -> None:
    assert in_force(ledger, settings(quorum=3)).quorum == 3
    assert current(ledger) is None


@hypothesis_settings(max_examples=30)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "alpha": st.floats(0.001, 0.5),
            "required_gain": st.floats(0, 0.1),
            "quorum": st.integers(1, 4),
            "allow_self_review": st.booleans(),
            "minimum_test_queries": st.integers(2, 500),
            "cheaper_by": st.floats(0.01, 0.9),
        },
    )
)
def test_what_governs_a_run_is_never_weaker_than_the_policy(said: dict[str, Any]) -> None:
    """A law: a run is refused, or goes by values that the policy would accept."""
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger:
        record_policy(ledger, BASE, "a test")
        before = policy_of(current(ledger))
        try:
            found = govern(ledger, settings(**said), has_api=False)
        except PolicyError:
            assert policy_of(current(ledger)) == before
            return
        assert Policy.of(found).weaker_rules({}) == [name for name in RULE if name != "gain_metrics"]
        assert before.weaker_rules({name: getattr(found, name) for name in RULE}) == []
        assert found.quorum >= before.quorum
        assert found.allow_self_review <= before.allow_self_review


def test_a_rule_that_is_missing_counts_as_weaker() -> None:
    said = {name: value for name, value in asdict(BASE).items() if name in RULE}
    assert BASE.weaker_rules(said) == []
    del said["alpha"]
    assert BASE.weaker_rules(said) == ["alpha"]


def test_a_policy_from_before_the_gain_metrics_goes_on_asking_for_the_primary_one() -> None:
    old = {name: value for name, value in asdict(BASE).items() if name != "gain_metrics"} | {"fresh_share": 0.5}
    policy = Policy.from_payload(old)
    assert policy == replace(BASE, gain_metrics=("primary",))
    assert policy.weaker_rules(old) == []
    assert policy.weaker_rules(old | {"gain_metrics": ["primary", "log_loss"]}) == ["gain_metrics"]
