"""API keys: shown once, hashed at rest, revoked at once."""

from __future__ import annotations

import threading

import pytest

from esci_tournament.deployments.scorer.keys import MARK, Keys
from esci_tournament.registry.errors import NotFoundError, StoreError, UsageError


def test_a_key_opens_and_stands_nowhere(tmp_path):
    keys = Keys(tmp_path / "keys.json")
    key, text = keys.create("shop", 5)
    assert keys.verify(text) == key
    kept = (tmp_path / "keys.json").read_text(encoding="utf-8")
    assert text not in kept
    assert text.split("_", 2)[2] not in kept
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "esci", "esci_000000000000_" + "A" * 43, "x" * 10_000, "esci_\ud800_"])
def test_another_text_does_not(tmp_path, text):
    keys = Keys(tmp_path / "keys.json")
    keys.create("shop")
    assert keys.verify(text) is None


def test_a_wrong_secret_does_not_though_the_id_is_right(tmp_path):
    keys = Keys(tmp_path / "keys.json")
    _, text = keys.create("shop")
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    assert keys.verify(wrong) is None
    assert keys.known(wrong) is False  # and scrypt is not asked twice
    assert keys.verify(text) is not None


def test_another_process_sees_what_is_made_and_revoked(tmp_path):
    here, there = Keys(tmp_path / "keys.json"), Keys(tmp_path / "keys.json")
    assert not there.configured
    _, text = here.create("shop")
    assert there.verify(text) is not None
    here.revoke("shop")
    assert there.verify(text) is None
    assert there.configured  # and nobody may come without a key
    with pytest.raises(NotFoundError, match="shop"):
        here.revoke("shop")


def test_two_keys_cannot_have_one_name_and_none_is_lost_when_many_are_made_at_once(tmp_path):
    def make(name):
        Keys(tmp_path / "keys.json").create(name)

    threads = [threading.Thread(target=make, args=(f"shop {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Keys(tmp_path / "keys.json").all()) == 8
    with pytest.raises(UsageError, match="shop 3"):
        make("shop 3")


def test_a_damaged_file_is_named_and_lets_nobody_in(tmp_path):
    (tmp_path / "keys.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"keys\.json"):
        _ = Keys(tmp_path / "keys.json").configured


@pytest.mark.parametrize("anew", [False, True], ids=["this process", "another one"])
def test_once_there_was_a_key_one_is_needed_though_the_file_is_removed_or_emptied(tmp_path, anew):
    """S5.3: the file was removed while the scorer ran on loopback, which then was open to all."""
    keys = Keys(tmp_path / "keys.json")
    assert not keys.required
    _, text = keys.create("shop")
    assert keys.required
    for content in (None, '{"keys": []}'):
        (tmp_path / "keys.json").unlink(missing_ok=True)
        if content:
            (tmp_path / "keys.json").write_text(content)
        now = Keys(tmp_path / "keys.json") if anew else keys
        assert now.required
        assert not now.configured
        assert now.verify(text) is None


def test_keys_of_an_earlier_version_are_remembered_too(tmp_path):
    keys = Keys(tmp_path / "keys.json")
    keys.create("shop")
    keys.file.with_suffix(MARK).unlink()
    Keys(keys.file).settle()
    keys.file.unlink()
    assert Keys(keys.file).required


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"keys": 3}',
        b'{"keys": {"a": 1}}',
        b'{"keys": [{"id": 1}]}',
        b'{"keys": [{"id": "a", "name": "b", "salt": "no hex", "hash": "00", "created": "x"}]}',
        b'{"keys": [{"id": "a", "name": "b", "salt": "00", "hash": "00", "created": "x", "rate_per_s": "many"}]}',
    ],
)
def test_a_damaged_file_is_told_each_time_and_lets_nobody_in_even_when_it_is_removed_then(tmp_path, content):
    """S5.4."""
    file = tmp_path / "keys.json"
    file.write_bytes(content)
    keys = Keys(file)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be read"):
            keys.known("esci_000000000000_" + "A" * 43)
    file.unlink()
    assert keys.required
    _, text = keys.create("shop")
    assert keys.verify(text) is not None
