import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from esci_tournament.registry.errors import CandidateError, NotFoundError, StoreError
from esci_tournament.registry.scores import ScoreStore

KEY = ("minilm/3", "d" * 64, "r" * 64)


def some_scores(n=5, seed=0):
    random = np.random.default_rng(seed)
    return {
        "example_id": np.arange(n, dtype=np.int64) * 7,
        "probabilities": random.dirichlet(np.ones(4), n).astype(np.float32),
        "out_of_sample": random.random(n) < 0.5,
    }


@pytest.fixture
def store(tmp_path):
    return ScoreStore(tmp_path / "scores")


@settings(max_examples=25)
@given(values=hnp.arrays(np.float64, st.tuples(st.integers(0, 20), st.just(4)), elements=st.floats(0.01, 1)))
def test_what_is_put_is_got_back_bit_for_bit(values, tmp_path_factory):
    store = ScoreStore(tmp_path_factory.mktemp("scores"))
    probabilities = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    ids, held_out = np.arange(len(values)), np.zeros(len(values), bool)
    store.put(*KEY, example_id=ids, probabilities=probabilities, out_of_sample=held_out)
    got = store.get(*KEY)
    assert got.probabilities.dtype == np.float32
    assert got.example_id.dtype == np.int64
    np.testing.assert_array_equal(got.probabilities, probabilities)
    np.testing.assert_array_equal(got.example_id, ids)
    np.testing.assert_array_equal(got.out_of_sample, held_out)


def spoil(**changes):
    return lambda scores: scores | {name: change(scores[name].copy()) for name, change in changes.items()}


def set_first(value):
    def change(array):
        array[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("spoiled", "complaint"),
    [
        (spoil(probabilities=set_first(np.nan)), r"1 of 5 pairs are not finite; the first is example_id 0"),
        (spoil(probabilities=set_first(np.inf)), "not finite"),
        (spoil(probabilities=set_first([0.5, 0.6, 0, 0])), "do not sum to 1"),
        (spoil(probabilities=set_first([-0.5, 1.5, 0, 0])), r"outside \[0, 1\]"),
        (spoil(probabilities=lambda array: array[:, :3]), r"expected float32 \(5, 4\)"),
        (spoil(probabilities=lambda array: array[:4]), r"\(4, 4\); expected"),
        (spoil(example_id=lambda array: array * 0), "4 example ids are scored twice"),
        (spoil(example_id=lambda array: array.astype(float)), "must be int64"),
        (spoil(out_of_sample=lambda array: array.astype(int)), "out_of_sample"),
    ],
)
def test_what_is_no_score_is_refused_and_leaves_nothing(store, spoiled, complaint):
    with pytest.raises(CandidateError, match=complaint):
        store.put(*KEY, **spoiled(some_scores()))
    assert not store.has(*KEY)
    assert not store.root.exists()


def test_scores_that_are_not_there_are_not_found(store):
    with pytest.raises(NotFoundError, match="minilm/3"):
        store.get(*KEY)


def test_putting_again_keeps_what_stands(store):
    first = store.put(*KEY, **some_scores(), provenance={"note": "first"})
    second = store.put(*KEY, **some_scores(), provenance={"note": "second"})
    assert second.provenance == first.provenance
    assert second.provenance["note"] == "first"


def test_really_different_scores_under_one_key_are_refused(store):
    store.put(*KEY, **some_scores())
    with pytest.raises(StoreError, match="recipe digest"):
        store.put(*KEY, **some_scores(seed=1))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("scores.npz", flip_a_byte),
        ("scores.npz", lambda path: path.write_bytes(path.read_bytes()[:100])),
        ("scores.npz", lambda path: path.write_bytes(b"")),
        ("scores.npz", lambda path: path.unlink()),
        ("provenance.json", lambda path: path.write_text("{")),
        ("provenance.json", lambda path: path.unlink()),
    ],
    ids=["flipped", "truncated", "empty", "missing", "half JSON", "no JSON"],
)
def test_a_damaged_file_is_named_and_then_replaced(store, name, damage):
    store.put(*KEY, **some_scores())
    damage(store.folder(*KEY) / name)
    assert name in store.damaged(*KEY)
    with pytest.raises(StoreError, match=name):
        store.get(*KEY)
    np.testing.assert_array_equal(store.put(*KEY, **some_scores()).probabilities, some_scores()["probabilities"])
    assert store.damaged(*KEY) == ""
    assert len(store.list()) == 1  # what was damaged is kept for whoever wants to look at it, and is none of these
    assert len(list(store.folder(*KEY).parent.glob(".damaged-*"))) == 1


def test_other_content_under_a_wrong_digest_is_noticed(store):
    store.put(*KEY, **some_scores())
    other = store.put("minilm/4", *KEY[1:], **some_scores(seed=1))
    path = store.folder(*KEY) / "provenance.json"
    path.write_text(json.dumps(store.get(*KEY).provenance | {"digest": other.provenance["digest"]}))
    with pytest.raises(StoreError, match="digest"):
        store.get(*KEY)


def test_list_names_all_scores_in_order(store):
    for candidate in ("b/1", "a/2", "a/1"):
        store.put(candidate, *KEY[1:], **some_scores())
    assert [words["candidate"] for words in store.list()] == ["a/1", "a/2", "b/1"]
    assert store.list()[0]["rows"] == 5


@pytest.mark.parametrize("candidate", ["../../escape", "..", "a b/1", ".hidden/1", "名/1"])
def test_no_name_leaves_the_store(store, candidate):
    store.put(candidate, *KEY[1:], **some_scores())
    folder = store.folder(candidate, *KEY[1:])
    assert folder.parent.parent.parent == store.root
    assert store.list()[0]["candidate"] == candidate


def test_a_kill_while_writing_leaves_nothing_that_can_be_read(store, run_script):
    killed = """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from esci_tournament.registry import scores
        store = scores.ScoreStore(Path(sys.argv[1]))
        os.rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
        store.put("minilm/3", "d" * 64, "r" * 64, example_id=np.arange(1),
                  probabilities=np.full((1, 4), 0.25, np.float32), out_of_sample=np.ones(1, bool))
    """
    assert run_script(killed, store.root).returncode == -9
    assert not store.has(*KEY)
    assert store.list() == []
    store.put(*KEY, **some_scores())


def test_calibrated_scores_stand_beside_the_raw_ones(store):
    scores = some_scores()
    store.put(*KEY, **scores)
    with pytest.raises(NotFoundError, match="no calibrated scores"):
        store.calibrated(*KEY)
    flat = np.full((5, 4), 0.25, np.float32)
    store.put_calibrated(*KEY, 1.7, flat)
    temperature, calibrated = store.calibrated(*KEY)
    assert temperature == 1.7
    np.testing.assert_array_equal(calibrated, flat)
    np.testing.assert_array_equal(store.get(*KEY).probabilities, scores["probabilities"])
    with pytest.raises(CandidateError, match="do not sum to 1"):
        store.put_calibrated(*KEY, 1.7, flat * 2)
