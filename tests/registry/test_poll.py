"""A poll reports every version once: registered, tagged late, corrected, or replacing a deleted one."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.models import Models
from esci_tournament.registry.poll import Poll
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.registry.versions import SPEC_TAG, STATE_TAG


def spec(name: str, **changes: object) -> CandidateSpec:
    return parse_spec({"name": name, "family": "graph_network", "architecture": "gcn"} | changes)


def ids(poll: Poll, *named: str) -> list[str]:
    return [one.id for one in poll.look(named)]


@pytest.fixture
def poll(models: Models) -> Poll:
    """A poll that has seen what there is; only its first look is at everything."""
    for name in ("a", "b", "c"):
        models.register_candidate(spec(name))
    poll = Poll(models)
    assert ids(poll) == ["a/1", "b/1", "c/1"]
    assert ids(poll) == []
    return poll


@pytest.fixture
def cheap(poll: Poll, monkeypatch: pytest.MonkeyPatch) -> Poll:
    """The same, and another look at everything would be an error."""
    monkeypatch.setattr(poll, "_everything", lambda: pytest.fail("looked at everything"))
    return poll


def test_versions_that_were_registered_are_seen_once(models, cheap):
    models.register_candidate(spec("a", seed=1))
    models.tracking.client.create_registered_model("o'brien")
    models.tracking.client.create_model_version("o'brien", "file:///nowhere", tags={SPEC_TAG: "{}"})
    found = cheap.look()
    assert [one.id for one in found] == ["a/2", "o'brien/1"]
    assert found[0].candidate().spec == spec("a", seed=1)
    assert ids(cheap) == []


def test_what_comes_late_is_counted_beyond_the_last_of_several_pages(models, monkeypatch):
    monkeypatch.setattr("esci_tournament.registry.poll._PAGE", 2)
    for name in ("a", "b", "c", "d", "e"):
        models.register_candidate(spec(name))
    models.tracking.client.create_registered_model("late")
    models.tracking.client.create_model_version("late", "file:///nowhere")
    poll = Poll(models)
    assert ids(poll) == ["a/1", "b/1", "c/1", "d/1", "e/1"]
    monkeypatch.setattr(poll, "_everything", lambda: pytest.fail("looked at everything"))
    assert ids(poll) == []
    models.tracking.client.set_model_version_tag("late", "1", SPEC_TAG, "{}")
    assert ids(poll) == ["late/1"]
    assert ids(poll) == []


def test_a_version_that_is_tagged_long_after_it_was_made_is_seen(models, cheap):
    client = models.tracking.client
    client.create_registered_model("plain")
    for _ in range(2):
        client.create_model_version("plain", "file:///nowhere")
    assert ids(cheap) == []
    client.set_model_version_tag("plain", "1", SPEC_TAG, "{}")
    assert ids(cheap) == ["plain/1"]
    assert ids(cheap) == []


def test_a_tag_set_late_on_an_old_version_of_many_is_found_by_a_full_look(models):
    client = models.tracking.client
    client.create_registered_model("old")
    client.create_model_version("old", "file:///nowhere")
    poll = Poll(models)
    for number in range(60):
        client.create_registered_model(f"newer-{number}")
        client.create_model_version(f"newer-{number}", "file:///nowhere", tags={SPEC_TAG: "{}"})
    assert len(ids(poll)) == 60
    client.set_model_version_tag("old", "1", SPEC_TAG, "{}")
    assert ids(poll) == ["old/1"]


def test_a_refused_spec_that_is_corrected_is_seen_again(models, cheap):
    models.set_tags("b/1", {STATE_TAG: "refused"})
    assert ids(cheap) == []
    models.set_tags("b/1", {SPEC_TAG: "{}"})
    assert ids(cheap) == ["b/1"]
    assert ids(cheap) == []


def test_what_is_named_is_read_though_nothing_else_tells(models, cheap):
    models.set_tags("c/1", {SPEC_TAG: "{}"})
    assert ids(cheap) == []
    assert ids(cheap, "c/1", "nobody/1", "no id at all") == ["c/1"]


def test_a_version_in_the_place_of_a_deleted_one_is_seen(models, poll):
    models.tracking.client.delete_model_version("a", "1")
    models.register_candidate(spec("d"))
    assert ids(poll) == ["d/1"]
    models.tracking.client.delete_registered_model("b")
    assert ids(poll) == []
    models.register_candidate(spec("e"))
    assert ids(poll) == ["e/1"]


def test_after_a_failed_look_everything_is_seen_again(models, poll, monkeypatch):
    models.register_candidate(spec("d"))
    with monkeypatch.context() as patched:
        patched.setattr(models.tracking, "search_some", lambda *_: (_ for _ in ()).throw(MlflowException("gone")))
        with pytest.raises(StoreError, match="gone"):
            poll.look()
    assert ids(poll) == ["a/1", "b/1", "c/1", "d/1"]


def test_everything_is_looked_at_when_it_is_time(models):
    models.register_candidate(spec("a"))
    poll = Poll(models, full_look_s=0.0)
    assert ids(poll) == ["a/1"]
    models.set_tags("a/1", {SPEC_TAG: "{}"})
    assert ids(poll) == ["a/1"]


def test_a_registry_of_one_version_is_looked_at_as_any_other(models):
    models.register_candidate(spec("only"))
    poll = Poll(models)
    assert [ids(poll) for _ in range(2)] == [["only/1"], []]
    models.register_candidate(spec("second"))
    assert ids(poll) == ["second/1"]
