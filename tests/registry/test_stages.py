import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import NotFoundError, StoreError, UsageError
from esci_tournament.registry.stages import StageStore


@pytest.fixture
def store(tmp_path):
    return StageStore(tmp_path / "stages")


def hidden(store):
    return sorted(path.name for path in store.root.glob(".making-*"))


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=4))
def test_key_follows_from_stage_and_inputs(inputs):
    store = StageStore(Path("unused"))
    assert store.key("train", **{"i": inputs}) == store.key("train", **{"i": dict(reversed(inputs.items()))})
    assert store.key("train", i=inputs) != store.key("score", i=inputs)


def test_key_changes_with_the_version_of_the_code(tmp_path):
    old, new = StageStore(tmp_path, {"train": 1, "score": 1}), StageStore(tmp_path, {"train": 2, "score": 1})
    assert old.key("train", seed=0) != new.key("train", seed=0)
    assert old.key("score", seed=0) == new.key("score", seed=0)


@pytest.mark.parametrize("stage", ["", "Train", "../train", "a b"])
def test_key_refuses_a_name_that_is_no_word(store, stage):
    with pytest.raises(UsageError, match="stage name"):
        store.key(stage)


def test_key_refuses_a_path_among_its_inputs(store):
    with pytest.raises(UsageError, match="content digest"):
        store.key("load", folder=Path("/data"))


def test_make_publishes_a_whole_folder_with_its_record(store):
    key = store.key("train", seed=3, fields=("a", "b"))
    assert store.find(key) is None
    with store.make(key) as folder:
        (folder / "model").write_text("weights")
        assert store.find(key) is None
    assert (store.find(key) / "model").read_text() == "weights"
    record = store.record(key)
    assert (record["stage"], record["inputs"]) == ("train", {"seed": 3, "fields": ["a", "b"]})
    assert record["seconds"] >= 0
    assert record["finished_at"].endswith("+00:00")
    assert hidden(store) == []


def test_make_keeps_nothing_of_a_block_that_fails(store):
    key = store.key("train")

    def build(folder):
        (folder / "model").write_text("half")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        store.obtain(key, build)
    assert store.find(key) is None
    assert hidden(store) == []


def test_the_loser_of_a_race_throws_its_copy_away(store):
    key = store.key("train")
    with store.make(key) as slow:
        with StageStore(store.root).make(key) as fast:
            (fast / "model").write_text("fast")
        (slow / "model").write_text("slow")
    assert (store.find(key) / "model").read_text() == "fast"
    assert hidden(store) == []


def test_obtain_builds_once(store):
    key, calls = store.key("train"), []
    for _ in range(2):
        folder = store.obtain(key, lambda place: calls.append((place / "x").write_text("x")))
    assert (folder / "x").is_file()
    assert len(calls) == 1


def test_a_full_disk_ends_in_words_and_leaves_nothing(store):
    key = store.key("train")

    def build(folder):
        (folder / "model").write_text("half")
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(StoreError, match="is full"):
        store.obtain(key, build)
    assert store.find(key) is None
    assert hidden(store) == []


def test_a_damaged_record_is_named(store):
    key = store.key("train")
    store.obtain(key, lambda folder: None)
    (store.root / key / "stage.json").write_text("{")
    with pytest.raises(StoreError, match=r"stage\.json"):
        store.record(key)


def test_scratch_survives_a_kill_and_ends_with_the_stage(store, run_script):
    killed = """
        import os, signal, sys
        from pathlib import Path
        from esci_tournament.registry.stages import StageStore
        store = StageStore(Path(sys.argv[1]))
        key = store.key("train", seed=1)
        (store.work(key) / "checkpoint").write_text("epoch 2")
        with store.make(key) as folder:
            (folder / "model").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_script(killed, store.root).returncode == -9
    key = store.key("train", seed=1)
    assert store.find(key) is None
    assert len(hidden(store)) == 1
    assert (store.work(key) / "checkpoint").read_text() == "epoch 2"
    with store.make(key) as folder:
        (folder / "model").write_text("whole")
    assert (store.find(key) / "model").read_text() == "whole"
    assert hidden(store) == []
    assert not (store.root / "work" / key).exists()


def test_many_processes_make_one_stage(store, run_script):
    script = """
        import os, sys
        from pathlib import Path
        from esci_tournament.registry.stages import StageStore
        store = StageStore(Path(sys.argv[1]))
        children = []
        for number in range(6):
            if (child := os.fork()) == 0:
                def build(folder):
                    for part in "abc":
                        (folder / part).write_text(str(number))
                folder = store.obtain(store.key("train", seed=1), build)
                os._exit(0 if (folder / "stage.json").is_file() else 1)
            children.append(child)
        print(sum(os.waitpid(child, 0)[1] != 0 for child in children))
    """
    assert json.loads(run_script(script, store.root).stdout) == 0
    folder = store.find(store.key("train", seed=1))
    assert len({(folder / part).read_text() for part in "abc"}) == 1
    assert hidden(store) == []


def made(store, key, content=b"weights" * 50):
    with store.make(key) as folder:
        (folder / "graph").mkdir()
        (folder / "graph" / "edges.npy").write_bytes(b"edges")
        (folder / "model").write_bytes(content)
    return store.find(key)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: flip_a_bit(folder / "model"), "model has changed"),
        (lambda folder: (folder / "model").write_bytes(b""), "model has 0 bytes instead of 350"),
        (lambda folder: (folder / "graph" / "edges.npy").unlink(), "graph/edges.npy is missing"),
        (
            lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x"),
            "pytorch_model.bin was not made by the stage",
        ),
        (lambda folder: (folder / "stage.json").write_text("{"), "stage.json cannot be read"),
        (lambda folder: (folder / "stage.json").write_text('{"files": [1]}'), "stage.json cannot be read"),
    ],
)
def test_a_damaged_stage_is_told_set_aside_and_made_again(store, damage, words, caplog):
    """F2: whatever has become of its files."""
    key = store.key("train", seed=1)
    folder = made(store, key)
    assert store.damaged(key) == ""
    assert store.whole(key) == store.sound(key) == folder
    damage(folder)
    assert words in store.damaged(key)
    with pytest.raises(StoreError, match="is damaged"):
        store.whole(key)
    again = store.obtain(key, lambda empty: (empty / "model").write_bytes(b"again"))
    assert (again / "model").read_bytes() == b"again"
    assert store.damaged(key) == ""
    assert words in caplog.text
    assert len(list(store.root.glob(f".damaged-*-{key}"))) == 1


def test_a_settled_stage_is_made_again_only_as_it_was(store):
    """F2: what was decided by a result holds for the same bytes alone."""
    key = store.key("challenge")
    flip_a_bit(made(store, key) / "model")

    def build(content):
        def into(folder):
            (folder / "graph").mkdir()
            (folder / "graph" / "edges.npy").write_bytes(b"edges")
            (folder / "model").write_bytes(content)

        return into

    for _ in range(2):
        with pytest.raises(StoreError, match=r"another one: model has 5 bytes instead of 350.*backup"):
            store.obtain(key, build(b"other"), settled=True)
    assert store.find(key) is None
    assert (store.obtain(key, build(b"weights" * 50), settled=True) / "model").read_bytes() == b"weights" * 50


def test_a_stage_from_before_digests_were_kept_is_taken_as_it_is(store):
    key = store.key("train")
    folder = made(store, key)
    record = store.record(key)
    assert sorted(record.pop("files")) == ["graph/edges.npy", "model"]
    (folder / "stage.json").write_text(json.dumps(record))
    flip_a_bit(folder / "model")
    assert store.damaged(key) == ""
    assert store.sound(key) == store.whole(key) == folder


def test_a_stage_that_is_not_there_is_not_damaged(store):
    key = store.key("train")
    assert store.damaged(key) == ""
    assert store.sound(key) is None
    with pytest.raises(NotFoundError, match="run its tournament again"):
        store.whole(key)
