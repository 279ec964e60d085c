"""What strangers, a candidate's owner and a colleague with a shell try, and what comes of it.

Each test is named after what is tried; the ids in the docstrings are rows of the table in docs/security.md.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import parse_qs, urlparse

import pyotp
import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from esci_tournament.deployments.champion import load_champion
from esci_tournament.deployments.prefect_deployments import deployments_of
from esci_tournament.deployments.worker import as_deployment
from esci_tournament.flows.decision import answer
from esci_tournament.flows.governed import workspace_of_run
from esci_tournament.flows.intake import take_in
from esci_tournament.flows.review_runs import describe
from esci_tournament.registry import tables
from esci_tournament.registry.errors import PolicyError, UsageError
from esci_tournament.registry.policies import current, record_policy
from esci_tournament.registry.policy import Policy, policy_of
from esci_tournament.registry.poll import Sighting
from esci_tournament.registry.processes import process_user
from esci_tournament.registry.promotion import reconcile
from esci_tournament.registry.proof import enrol
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.reviewers import Answer
from esci_tournament.registry.reviews import Case
from esci_tournament.registry.settings import read_settings, using
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.versions import SPEC_TAG, as_candidate
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.enter import readable
from tests.flows.conftest import REVIEWERS, govern

pytestmark = pytest.mark.slow

MakeWorld = Callable[..., Any]


def say(
    world: Any, case: Case, reviewer: str, via: str = "command line", code: str = "", outcome: str = "approve"
) -> str:
    mark = f"{case.id} {reviewer} {via} {code}"
    return answer(world.workspace, case, Answer(outcome, reviewer, "better", via, mark, code))


def code_of(world: Any, name: str) -> str:
    address = enrol(world.workspace.ledger, name)
    return pyotp.TOTP(parse_qs(urlparse(address).query)["secret"][0]).now()


@pytest.fixture
def reviewed(make_world: MakeWorld) -> Any:
    """A world whose policy names two reviewers, neither of them the user of this process, and who have been asked."""
    return make_world(begin="asked under policy", **REVIEWERS)


# What is registered

DEEP = "[" * 40_000


@pytest.mark.parametrize("tag", [DEEP, '{"a":' * 15_000, "x" * 200_000, '{"family": "scores", "file": "\\ud800"}'])
def test_one_tag_that_cannot_be_parsed_is_refused_once_and_hurts_no_other(make_world: MakeWorld, tag: str) -> None:
    """R1.1 to R2.2: nested 40,000 deep, too long, half a surrogate pair."""
    world = make_world()
    work = world.workspace
    version = MagicMock(spec=[], version=1, run_id=None, creation_timestamp=0, tags={SPEC_TAG: tag})
    version.name = "evil"
    candidate = as_candidate(version, {})
    assert candidate.spec is None
    assert candidate.complaint
    queue, sighting = Queue(work.ledger), Sighting(version, "digest of the tag")
    assert take_in(work, queue, sighting).outcome == "refused"
    assert take_in(work, queue, sighting) is None, "once"
    assert readable(candidate) == candidate.complaint


def test_a_checkpoint_whose_configuration_cannot_be_parsed_is_refused(tmp_path: Path, make_world: MakeWorld) -> None:
    """R2.4: config.json nested 100,000 deep."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "config.json").write_text("[" * 100_000, encoding="utf-8")
    world = make_world()
    spec = {
        "name": "evil",
        "family": "language_model",
        "checkpoint": f"{tmp_path}/evil",
    }
    version = world.workspace.models.register_candidate(parse_spec(spec))
    assert readable(version, world.workspace.settings)


# Who approves


def test_typing_a_reviewers_name_approves_nothing(reviewed: Any) -> None:
    """R3.c: the registrant types a wrong name, then one of the two, in the form and on the command line."""
    case = reviewed.waiting()
    for name in ("eve", "ana", "ben"):
        for via in ("prefect", "command line"):
            with pytest.raises(UsageError) as told:
                say(reviewed, case, name, via)
            others = {"ana", "ben"} - {name}
            assert not any(other in str(told.value) for other in others), "the message names nobody"
    assert reviewed.champion() is None


def test_a_one_time_code_approves_and_not_twice(reviewed: Any) -> None:
    """R3.c: whoever can prove to be a reviewer decides."""
    case, code = reviewed.waiting(), code_of(reviewed, "ana")
    assert "approved by ana" in say(reviewed, case, "ana", "prefect", code)
    assert reviewed.champion() == 1
    second = reviewed.challenge("t-2", ["weak", "good"])
    with pytest.raises(UsageError, match="used before"):
        say(reviewed, second, "ana", "prefect", code)


def test_editing_the_tag_or_deleting_the_version_hides_no_registrant(make_world: MakeWorld) -> None:
    """R3.d, R3.e: who registered a candidate was put on record when it arrived."""
    world = make_world()
    govern(world)
    case = world.challenge("t-1", ["weak"])
    models = world.workspace.models
    models.set_tags("weak/1", {"tournament.registered_by": "somebody-else"})
    with pytest.raises(UsageError, match="registered a candidate"):
        say(world, case, process_user())
    models.tracking.client.delete_model_version("weak", "1")
    with pytest.raises(UsageError, match="registered a candidate"):
        say(world, case, process_user())
    assert world.champion() is None


def test_the_environment_names_no_reviewer(reviewed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3.f: LOGNAME set to a reviewer."""
    for name in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.setenv(name, "ana")
    case = reviewed.waiting()
    with pytest.raises(UsageError, match="may not decide here"):
        say(reviewed, case, "ana")
    assert Workspace(reviewed.workspace.settings).ledger.who.startswith(f"{process_user()}@")


def test_two_must_approve_where_the_policy_says_two(make_world: MakeWorld) -> None:
    world = make_world(quorum=2)
    govern(world)
    case = world.challenge("t-1", ["weak"])
    assert "1 count" in say(world, case, "ana")
    assert "1 count" in say(world, case, "Ana@elsewhere"), "one person counts once"
    assert world.champion() is None
    assert "approved by ana, ben" in say(world, case, "ben")
    assert world.champion() == 1


# By which rules


@pytest.mark.parametrize(
    "said",
    [
        {"review": "none"},
        {"reviewers": ("a made-up name",)},
        {"allow_self_review": True},
        {"allowed_pyfunc_sources": ("/",)},
        {"alpha": 0.9},
        {"minimum_test_queries": 2},
    ],
)
def test_settings_of_whoever_asks_weaken_nothing(reviewed: Any, said: dict[str, Any]) -> None:
    """R4, U1.2, U1.3: environment, file and options of a process ask for less than the policy."""
    before = current(reviewed.workspace.ledger)
    with using(read_settings(**{**reviewed.settings, **said})), pytest.raises(PolicyError, match=next(iter(said))):
        workspace_of_run()
    assert current(reviewed.workspace.ledger) == before


def test_an_approval_under_an_older_policy_does_not_promote_under_a_stricter_one(make_world: MakeWorld) -> None:
    world = make_world(review="none")
    govern(world)
    ledger = world.workspace.ledger
    world.settings["review"] = "required"  # in this process alone
    case = world.challenge("t-1", ["weak"])
    ledger.record_decision(
        case.id, "approve", "the verdict (no review in this run)", "better", {"via": "x", "mark": "y"}
    )
    policy = policy_of(current(ledger))
    record_policy(ledger, Policy(**{**vars(policy), "review": "required"}), "we review now")
    with pytest.raises(PolicyError, match="0 count"):
        ledger.record_promotion("esci-ensemble", "promote", 1, 0, "better", ledger.decisions()[0].id)
    assert world.champion() is None


def test_a_promotion_written_into_the_ledger_moves_no_alias(reviewed: Any) -> None:
    """L1.2: INSERT of a promotion without a decision, back-dated, by ceo@board."""
    work = reviewed.workspace
    row = {"ensemble": "esci-ensemble", "sequence": 1, "kind": "promote", "version": 1, "decision": None}
    row |= {"reason": "forged", "at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "who": "ceo@board", "payload": {}}
    with work.ledger._database.writing() as connection:
        connection.execute(tables.promotions.insert().values(**row))
    assert reconcile(work.ledger, work.models) == []
    assert reviewed.champion() is None
    [invalid] = work.ledger.standing("esci-ensemble").invalid
    assert "it has no decision" in str(invalid)


def test_an_alias_that_was_moved_by_hand_is_told_and_not_followed(challenged: Any) -> None:
    """R6.1: `tournament score` and `explain` label with what the ledger says."""
    work = challenged.workspace
    work.models.set_alias("champion", 2)
    loaded = load_champion(work)
    assert (loaded.version, loaded.members) == (1, ("weak/1",))
    assert "alias 'champion' names version 2 and the ledger says version 1" in loaded.warnings[0]


# Secrets


def test_a_password_in_a_setting_stands_in_nothing_that_a_tournament_writes(make_world: MakeWorld) -> None:
    """X1.1: summary, report, their copies in MLflow, stages, ledger and what a reviewer reads."""
    secret = "S3cretPw"
    world = make_world(mlflow_ui=f"http://me:{secret}@127.0.0.1:5000")
    case = world.challenge("t-1", ["weak"])
    assert secret not in describe(world.workspace, case)
    assert secret not in say(world, case, "ana")
    files = [path for path in world.settings["home"].rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path.name for path in files if secret.encode() in path.read_bytes()] == []


# Through Prefect's API


def test_a_review_started_by_hand_with_settings_of_ones_own_is_refused_with_the_reason(served: tuple[Any, Any]) -> None:
    """U1.2: a run of review/review with reviewers and allow_self_review among its parameters."""
    assert served
    one = next(one for one in deployments_of(read_settings()) if one.flow == "review")
    deployment = as_deployment(replace(one, name="by-hand")).apply()
    parameters = {"verdict": 1, "settings": {"reviewers": ["a made-up name"], "allow_self_review": True}}
    with get_client(sync_client=True) as client, pytest.raises(PrefectHTTPStatusError) as refused:
        client.create_flow_run_from_deployment(deployment, parameters=parameters)
    assert "('settings' was unexpected)" in refused.value.response.text
