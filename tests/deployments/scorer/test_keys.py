"""API keys: shown once, hashed at rest, revoked at once."""

from __future__ import annotations

import threading

import pytest

from esci_tournament.deployments.scorer.keys import Keys
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
