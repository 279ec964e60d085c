"""Answers of MLflow's database are kept while its file is as it was, and no longer."""

import sqlite3
import subprocess
import sys
import time

import pytest

from esci_tournament.registry import answers
from esci_tournament.registry.answers import Answers
from esci_tournament.registry.models import Models
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "_SETTLED_S", 0.05)
    place = tmp_path / "mlflow.db"
    write(place, "CREATE TABLE words (word TEXT)")
    return place


def write(database, *statements):
    with sqlite3.connect(database) as connection:
        for one in statements:
            connection.execute(one)
    connection.close()
    time.sleep(0.1)


def words(database):
    with sqlite3.connect(database) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM words")]


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_an_answer_counts_until_something_is_written(database, tmp_path, mode):
    held = sqlite3.connect(database)  # of a server: the last to close a database would empty its -wal
    held.execute(f"PRAGMA journal_mode = {mode}")
    held.execute("SELECT word FROM words").fetchall()  # from now on there is a -wal
    time.sleep(0.1)
    asked = []

    def ask():
        asked.append(1)
        return words(database)

    def recall(*question):
        return Answers(tmp_path, database).recall(list(question), ask)

    assert (recall("words"), recall("words"), len(asked)) == ([], [], 1)
    write(database, "INSERT INTO words VALUES ('one')")
    assert (recall("words"), recall("words"), len(asked)) == (["one"], ["one"], 2)
    assert (recall("others"), len(asked)) == (["one"], 3)
    held.close()


def test_what_is_written_while_mlflow_answers_is_seen_by_the_next(database, tmp_path):
    def ask():
        found = words(database)
        write(database, "INSERT INTO words VALUES ('late')")
        return found

    assert Answers(tmp_path, database).recall(["words"], ask) == []
    assert Answers(tmp_path, database).recall(["words"], lambda: words(database)) == ["late"]


def test_nothing_is_kept_of_a_file_that_changed_just_now(database, tmp_path, monkeypatch):
    """Another write in the same tick of the clock would leave its times as they are."""
    monkeypatch.setattr(answers, "_SETTLED_S", 60.0)
    asked = []
    for _ in range(2):
        Answers(tmp_path, database).recall(["words"], lambda: asked.append(1))
    assert len(asked) == 2


@pytest.mark.parametrize("damage", [b"", b"[]", b"null", b'{"question": ["words"]}', b"\xff"])
def test_a_damaged_answer_is_asked_for_again(database, tmp_path, damage):
    assert Answers(tmp_path, database).recall(["words"], lambda: 1) == 1
    (kept,) = (tmp_path / answers.FOLDER).iterdir()
    kept.write_bytes(damage)
    assert Answers(tmp_path, database).recall(["words"], lambda: 2) == 2


def test_what_is_shown_is_what_mlflow_has_and_its_client_is_opened_once(models, home, monkeypatch):
    monkeypatch.setattr(answers, "_SETTLED_S", 0.05)
    spec = LanguageModelSpec(name="minilm", architecture="bert")
    models.register_candidate(spec)

    def shown():
        time.sleep(0.1)
        found = Models(models.tracking_uri, home, remembers=True)
        told = (
            found.candidates(),
            found.candidate("minilm/1"),
            found.champion(),
            found.registrants(found.candidates()[0]),
        )
        return told, "client" in vars(found.tracking)

    told, opened = shown()
    assert (told[0], told[1], told[2], opened) == (models.candidates(), models.candidate("minilm/1"), None, True)
    assert shown() == (told, False)
    other = Models(models.tracking_uri, home, remembers=True)
    assert (other.ensembles(), other.previous(), "client" in vars(other.tracking)) == ([], None, False)
    models.set_tags("minilm/1", {"tournament.state": "queued"})
    told, opened = shown()
    assert (told[1].tags["tournament.state"], opened) == ("queued", True)


def test_the_registry_is_imported_without_mlflow():
    code = "import sys, esci_tournament.registry.roll, esci_tournament.registry.poll; print('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
