"""Who was noticed enters the queue once, or is refused with the reason and gets a chance when that is mended."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from esci_tournament.flows.intake import look_again, news, take_in
from esci_tournament.flows.watch import Watch
from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.poll import Poll
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.versions import FAILED_TAG, SPEC_TAG
from tests.flows.conftest import SPEC, plain, state, sweep


def naming(listed: Path) -> str:
    """Return the tag of a candidate whose check reads a list of queries."""
    scores = listed.with_name("scores.parquet")
    pd.DataFrame({"example_id": [1], "E": [1.0], "S": [0.0], "C": [0.0], "I": [0.0]}).to_parquet(scores)
    spec = {"family": "scores", "file": str(scores), "trained_on": "listed_queries", "trained_queries": str(listed)}
    return json.dumps(spec | {"provenance": "made for a test"})


@pytest.mark.parametrize(
    ("tag", "complaint"),
    [
        ("graph_network", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"family": "oracle"}', "family is 'oracle'"),
        ('{"family": "graph_network", "architecture": "gcn", "recipe": {"epochs": -1}}', "epochs"),
        ('{"family": "language_model", "checkpoint": "/gone"}', "/gone"),
        ('{"family": "scores", "path": "/gone.parquet"}', "unknown key 'path'"),
        ('{"family": "pyfunc", "source": "models:/somebody/1"}', "unknown key 'source'"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_with_the_reason_and_gets_a_chance_when_corrected(
    workspace, tag, complaint
):
    watch = Watch(workspace)
    candidate = plain(workspace, "bad", tag)
    [said] = sweep(watch)
    assert said.startswith("bad/1 is refused: ")
    assert sweep(watch) == sweep(Watch(workspace)) == []
    told, why = state(workspace, candidate)
    assert told == "refused"
    assert complaint in why
    workspace.models.set_tags(candidate, {SPEC_TAG: json.dumps(SPEC)})
    assert sweep(watch) == ["bad/1 is queued"]
    assert state(workspace, candidate) == ("queued", "")
    workspace.models.set_tags(candidate, {SPEC_TAG: tag})
    assert sweep(watch, candidate) == sweep(Watch(workspace)) == []


def test_who_was_tried_before_anybody_watched_does_not_enter_again(workspace):
    version = workspace.models.register_candidate(parse_spec({"name": "veteran"} | SPEC))
    workspace.models.set_tags(version.id, {FAILED_TAG: "in another life"})
    ledger = workspace.ledger
    ledger.record_data_version("data")
    ledger.record_candidate(version.id, version.digest, "graph_network")
    ledger.start_tournament("t-1", "data", {version.id: "newcomer"})
    ledger.finish_tournament("t-1")
    assert sweep(Watch(workspace)) == ["veteran/1 is tried"]
    assert Queue(ledger).waiting() == []
    assert state(workspace, version.id) == ("benched", "")
    assert FAILED_TAG not in workspace.models.tags(version.id)


def test_of_two_who_notice_the_same_version_one_lets_it_enter(workspace):
    plain(workspace, "plain", json.dumps(SPEC))
    [sighting] = Poll(workspace.models).look()
    queues = [Queue(workspace.ledger), Queue(workspace.ledger)]
    assert [news(queue, [sighting]) for queue in queues] == [[sighting], [sighting]]
    arrivals = [take_in(workspace, queue, sighting) for queue in queues]
    assert [arrival and arrival.outcome for arrival in arrivals] == ["queued", None]
    assert news(queues[1], [sighting]) == []


def test_a_version_whose_spec_is_another_than_on_record_is_refused(workspace):
    candidate = plain(workspace, "plain", json.dumps(SPEC))
    workspace.ledger.record_candidate(candidate, "the digest of another spec", "graph_network")
    [sighting] = Poll(workspace.models).look()
    arrival = take_in(workspace, Queue(workspace.ledger), sighting)
    assert arrival is not None
    assert arrival.outcome == "refused"
    assert "its spec is another one than when it entered" in arrival.payload["complaint"]


def test_a_refusal_ends_when_its_reason_is_mended(workspace, tmp_path):
    """A folder that was not there, then holds something else, then is what the spec says."""
    listed = tmp_path / "trained.parquet"
    candidate = plain(workspace, "late", naming(listed))
    watch, queue = Watch(workspace), Queue(workspace.ledger)
    [said] = sweep(watch)
    assert str(listed) in said
    before = state(workspace, candidate)
    assert look_again(workspace, queue) == {candidate: before[1]}
    assert len(queue.arrivals()) == 1
    listed.write_text("no parquet")
    other = look_again(workspace, queue, [candidate])[candidate]
    assert other not in ("", before[1])
    sweep(watch)
    assert state(workspace, candidate) == ("refused", other)
    pd.DataFrame({"query_id": [1]}).to_parquet(listed)
    assert look_again(workspace, queue) == {candidate: ""}
    assert queue.refused() == look_again(workspace, queue) == {}
    sweep(watch)
    assert state(workspace, candidate) == ("queued", "")
    assert [row.candidate for row in queue.waiting()] == [candidate]
    with pytest.raises(NotFoundError, match="not refused"):
        look_again(workspace, queue, [candidate])


def test_the_watcher_looks_at_the_refused_again_by_itself(workspace, tmp_path):
    listed = tmp_path / "trained.parquet"
    candidate = plain(workspace, "late", naming(listed))
    watch = Watch(workspace)
    sweep(watch)
    pd.DataFrame({"query_id": [1]}).to_parquet(listed)
    assert sweep(watch) == []
    watch._looked -= workspace.settings.full_look_s
    assert sweep(watch) == [f"{candidate} is queued: the reason of its refusal is gone"]


def test_a_spec_that_was_put_back_is_refused_for_its_own_reason(workspace):
    candidate, watch = plain(workspace, "back", '{"family": "oracle"}'), Watch(workspace)
    sweep(watch)
    first = state(workspace, candidate)
    workspace.models.set_tags(candidate, {SPEC_TAG: '{"family": "seer"}'})
    sweep(watch, candidate)
    assert "seer" in state(workspace, candidate)[1]
    workspace.models.set_tags(candidate, {SPEC_TAG: '{"family": "oracle"}'})
    sweep(watch, candidate)
    assert state(workspace, candidate) == first
