import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import StoreError, UsageError
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
