import errno
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import StoreError, UsageError
from esci_tournament.registry.files import (
    canonical_json,
    digest_of,
    disk_in_words,
    folder_digest,
    is_disk_full,
    temporary_folder,
    write_atomically,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_digest_does_not_depend_on_the_order_of_keys(content):
    assert digest_of(content) == digest_of(dict(reversed(content.items())))


@given(json_values)
def test_canonical_json_can_be_read_back(value):
    assert json.loads(canonical_json(value)) == value


def test_canonical_json_takes_numpy_scalars_as_numbers():
    assert canonical_json({"rows": np.int64(3)}) == '{"rows":3}'


@pytest.mark.parametrize("value", [float("nan"), {"x": float("inf")}, object()])
def test_canonical_json_refuses_what_json_has_no_word_for(value):
    with pytest.raises(UsageError, match="canonical"):
        canonical_json(value)


def test_write_atomically_leaves_nothing_when_it_fails(tmp_path):
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "a.json", "text, not bytes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_folder_digest_follows_content_and_names_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a").write_text("x")
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")
    (tmp_path / "two" / "sub" / "a").rename(tmp_path / "two" / "sub" / "b")
    assert folder_digest(tmp_path / "one") != folder_digest(tmp_path / "two")


def test_a_full_disk_is_recognised_behind_another_error():
    full = RuntimeError("could not serialise")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(full)
    assert not is_disk_full(RuntimeError("something else"))


def test_a_full_disk_is_told_in_words(tmp_path):
    with pytest.raises(StoreError, match=r"disk of .* is full"), disk_in_words("writing", tmp_path):
        fill_the_disk()


def fill_the_disk():
    with open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")


@pytest.mark.parametrize(("mine", "other"), [("vm", "vm-999999"), ("vm-999999", "vm"), ("a", "a-1-2")])
def test_what_another_host_has_under_way_is_left_alone_whatever_it_is_called(tmp_path, monkeypatch, mine, other):
    """F1.1: two hosts on a shared home, whose names begin with one another."""
    monkeypatch.setattr("socket.gethostname", lambda: other)
    monkeypatch.setattr("os.getpid", lambda: 999_999_999)  # nobody here
    with temporary_folder(tmp_path, "train") as theirs:
        monkeypatch.setattr("socket.gethostname", lambda: mine)
        with temporary_folder(tmp_path, "train") as ours:
            assert theirs.is_dir()
        assert not ours.exists()
        monkeypatch.setattr("socket.gethostname", lambda: other)
        with temporary_folder(tmp_path, "train"):
            assert not theirs.exists(), "a killed process of the same host"
