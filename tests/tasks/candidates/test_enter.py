"""Entering: all candidates are checked before the first is registered; those that cannot compete get a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from esci_tournament.registry.errors import NotFoundError, SpecError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.models import Models
from esci_tournament.registry.roll import Roll
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.registry.versions import SPEC_TAG
from esci_tournament.tasks.candidates.enter import check_spec, make_inputs, newcomers, readable


def graph(name: str, **changes: object) -> CandidateSpec:
    return parse_spec({"name": name, "family": "graph_network", "architecture": "gcn"} | changes)


def text(name: str, checkpoint: Path) -> CandidateSpec:
    return parse_spec({"name": name, "family": "language_model", "checkpoint": str(checkpoint)})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A registry that all tests here share, because making one takes seconds: each uses names of its own."""
    home = tmp_path_factory.mktemp("home")
    return Models(f"sqlite:///{home / 'mlflow.db'}", home)


@pytest.fixture(scope="module")
def roll(models: Models) -> Roll:
    return Roll(Ledger.open(f"sqlite:///{models.home / 'ledger.db'}"), models)


def test_a_text_encoder_is_checked_as_a_checkpoint_is(tmp_path: Path) -> None:
    for spec in (text("x", tmp_path), graph("x", recipe={"encoder": str(tmp_path)})):
        with pytest.raises(SpecError, match=r"neither a folder here nor a model"):
            check_spec(spec)


def test_what_points_to_nothing_passes() -> None:
    check_spec(graph("x"))


def test_the_seed_of_a_spec_goes_before_that_of_the_tournament(models: Models) -> None:
    all_inputs = [
        make_inputs(models.register_candidate(spec), "data", "roles", 5, "cpu")
        for spec in (graph("seeded", seed=0), graph("unseeded"))
    ]
    assert [inputs.seed for inputs in all_inputs] == [0, 5]
    assert (all_inputs[0].candidate, all_inputs[0].data_version, all_inputs[0].roles) == ("seeded/1", "data", "roles")


def test_named_specs_are_registered_once(roll: Roll) -> None:
    specs = [graph("first"), graph("second")]
    assert [one.id for one in newcomers(roll, specs, set())] == ["first/1", "second/1"]
    assert [one.id for one in newcomers(roll, specs[::-1], set())] == ["second/1", "first/1"]


def test_one_bad_spec_keeps_all_from_being_registered(models: Models, roll: Roll, tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        newcomers(roll, [graph("innocent"), text("guilty", tmp_path)], set())
    assert models.candidates("innocent") == []


def test_named_versions_enter_once_whether_they_were_tried_or_not(models: Models, roll: Roll) -> None:
    named = models.register_candidate(graph("named"))
    models.register_candidate(graph("named-too"))
    found = newcomers(roll, [graph("named")], {"named/1"}, versions=["named-too/1", "named/1", "named-too/1"])
    assert [one.id for one in found] == ["named-too/1", named.id]
    with pytest.raises(NotFoundError, match="named/7"):
        newcomers(roll, [], set(), versions=["named/7"])


def test_without_specs_those_enter_that_wait(models: Models, roll: Roll) -> None:
    for name in ("waits", "was-tried"):
        models.register_candidate(graph(name))
    found = {one.id for one in newcomers(roll, [], {"was-tried/1"})}
    assert found & {"waits/1", "was-tried/1"} == {"waits/1"}


def test_a_version_whose_spec_cannot_be_read_waits_and_is_told_why(models: Models, roll: Roll) -> None:
    client = MlflowClient(models.tracking_uri, models.tracking_uri)
    client.create_registered_model("by-hand")
    client.create_model_version("by-hand", source="file:///nowhere", tags={SPEC_TAG: '{"family": "oracle"}'})
    found = {one.id: readable(one.version) for one in newcomers(roll, [], set())}
    assert "family is 'oracle'" in found["by-hand/1"]


def test_a_checkpoint_that_has_gone_since_it_was_registered_is_named(models: Models, tmp_path: Path) -> None:
    version = models.register_candidate(text("moved", tmp_path / "gone"))
    assert str(tmp_path / "gone") in readable(version)
    assert readable(models.register_candidate(graph("still-there"))) == ""
