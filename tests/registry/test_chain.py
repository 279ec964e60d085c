"""The ledger's hash chain: what somebody does to the database past the ledger is noticed, whatever it is (L1.3)."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from sqlalchemy import insert, select, text

from esci_tournament.registry import links, tables, triggers
from esci_tournament.registry.chain import Checkpoint, Kept, checkpoint, repair, verify, verify_home
from esci_tournament.registry.errors import ChainError, StoreError, UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.links import digest_of_row, hash_of_entry
from esci_tournament.registry.policies import record_policy
from esci_tournament.registry.policy import Policy
from esci_tournament.registry.proof import enrol
from esci_tournament.registry.queue import Queue
from esci_tournament.registry.settings import Settings
from tests.registry.conftest import approved

NAMES = [table.name for table in tables.metadata.sorted_tables]


def fill(ledger: Ledger) -> None:
    """Append at least two rows to every table but that of schema versions."""
    for number in (1, 2):
        tournament, candidate = f"t{number}", f"minilm/{number}"
        ledger.record_data_version(f"data-{number}", {"pairs": 10, "share": 0.25, "big": 1e21, "words": ["名", None]})
        ledger.record_candidate(candidate, f"digest-{number}", "language_model")
        ledger.start_tournament(tournament, f"data-{number}", {candidate: "newcomer"}, {"seed": 2**63})
        ledger.record_event("stage_finished", "train", tournament)
        ledger.record_scores(candidate, f"data-{number}", "recipe", "content")
        ledger.record_ranking(tournament, {candidate: 1.0})
        ledger.record_selection(tournament, "shap", {})
        ledger.record_look("split", tournament)
        decision = approved(ledger, "esci", tournament, number, number - 1)
        ledger.record_approval(decision.verdict, "ann", "Ann", "it is better")
        ledger.record_review(decision.verdict, 1)
        promotion = ledger.record_promotion("esci", "promote", number, number - 1, "better", decision.id)
        for step in ("champion_moved", "done"):
            ledger.record_step(promotion.id, step)
        enrol(ledger, f"person {number}")
        queue = Queue(ledger)
        queue.arrive(candidate, f"digest-{number}", "queued")
        dispatch = queue.dispatch("cpu", 1)
        assert dispatch is not None
        queue.start(dispatch.last, "flow-run")
        queue.end(dispatch.last, "completed")
        with ledger.writing() as rows:
            rows.append(tables.used_codes, {"person": "ann", "step": number})
    policy = Policy.of(Settings())
    record_policy(ledger, policy, "the first", 0)
    record_policy(ledger, replace(policy, alpha=0.01), "fewer promotions", 1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite ledger with rows in every table and no triggers. Read only; tests copy it."""
    path = tmp_path_factory.mktemp("chain") / "ledger.db"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        fill(ledger)
        assert verify(ledger).findings == []
    with closing(sqlite3.connect(path)) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
    return path


@pytest.fixture(scope="module")
def ledger_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("copies")


def tampered(template: Path, folder: Path, *statements: tuple[str, tuple[Any, ...]]) -> list[str]:
    """Return what is found in rows and entries after statements were run where no trigger is in force."""
    path = folder / f"{uuid.uuid4().hex}.db"
    shutil.copy(template, path)
    with closing(sqlite3.connect(path)) as database:
        for statement, values in statements:
            database.execute(statement, values)
        database.commit()
    try:
        with Ledger.open(f"sqlite:///{path}") as ledger:
            return [words for words in verify(ledger).findings if " triggers are not as " not in words]
    except (ChainError, StoreError) as error:  # the schema's version does not fit
        return [words] if "schema" in (words := str(error)) else []
    finally:
        path.unlink()


def content(template: Path, table: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(template)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY id")]


def test_a_ledger_that_was_only_appended_to_verifies(ledger: Ledger) -> None:
    fill(ledger)
    report = verify(ledger)
    assert report.findings == []
    exported = ledger.export()
    assert report.entries == sum(map(len, exported.values())) - report.entries, "each row has one entry"
    assert min(map(len, exported.values())) >= 1, "every table has rows"
    assert [row["id"] for row in exported["chain"]] == list(range(1, report.entries + 1))
    assert verify(ledger, [report.checkpoint()]).findings == []


@effort(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_single_change_of_any_row_is_noticed(template: Path, ledger_folder: Path, data: st.DataObject) -> None:
    """L1.3 as a law: a value edited, a row removed, doubled, renumbered, or two that change places, in any table."""
    table = data.draw(st.sampled_from(NAMES))
    rows = content(template, table)
    row = data.draw(st.sampled_from(rows))
    change = data.draw(st.sampled_from(["edit", "remove", "insert", "renumber", "swap"]))
    match change:
        case "edit":
            column = data.draw(st.sampled_from([name for name in row if name != "id"]))
            statement = f"UPDATE {table} SET {column} = ? WHERE id = ?", (edited(data, row[column], column), row["id"])
        case "remove":
            if table == "chain" and row["id"] == rows[-1]["id"]:
                return  # its row has no entry then, which another example shows
            statement = f"DELETE FROM {table} WHERE id = ?", (row["id"],)
        case "insert":
            new = unique_copy(row) | {"id": data.draw(st.sampled_from([-5, 0, len(rows) + 1, 10**9]))}
            marks = ", ".join("?" * len(new))
            statement = f"INSERT INTO {table} ({', '.join(new)}) VALUES ({marks})", tuple(new.values())
        case "renumber":
            statement = f"UPDATE {table} SET id = ? WHERE id = ?", (data.draw(st.integers(10**6, 10**9)), row["id"])
        case _:
            if len(rows) < 2:
                return
            one, other = rows[0]["id"], rows[-1]["id"]
            statement = (
                f"UPDATE {table} SET id = CASE id WHEN ? THEN -1 WHEN ? THEN -2 END WHERE id IN (?, ?)",
                (
                    *(one, other),
                    *(one, other),
                ),
            )
            again = f"UPDATE {table} SET id = CASE id WHEN -1 THEN ? ELSE ? END WHERE id IN (-1, -2)", (other, one)
            assert tampered(template, ledger_folder, statement, again) != [], (table, change)
            return
    assert tampered(template, ledger_folder, statement) != [], (table, change, statement)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE decisions SET reviewer = 'me' WHERE id = 1", "row 1 of decisions was changed"),
        ("DELETE FROM approvals WHERE id = 2", "row 2 of approvals is gone"),
        (
            "INSERT INTO looks SELECT id + 7, 's', number, tournament, 9, at, who, payload FROM looks",
            "row 8 of looks is not",
        ),
        ("UPDATE enrolments SET id = 12 - id", "row 1 of enrolments is gone"),
        ("UPDATE rankings SET id = -id; UPDATE rankings SET id = 3 + id", "row 1 of rankings was changed"),
        ("UPDATE policies SET payload = '{}' WHERE id = 2", "row 2 of policies was changed"),
        ("DELETE FROM chain WHERE id = 3", "entries 3 to 3 of the chain are missing"),
        ("UPDATE chain SET digest = 'x' WHERE id = 4", "entry 4 of the chain was changed"),
        (
            "UPDATE chain SET id = -id WHERE id < 3; UPDATE chain SET id = 3 + id WHERE id < 0",
            "entry 2 of the chain does not",
        ),
    ],
)
@pytest.mark.databases("postgresql")
def test_a_change_in_postgresql_is_noticed_and_named(ledger: Ledger, statement: str, words: str) -> None:
    """L1.3: rewritten, deleted, inserted, renumbered, exchanged."""
    fill(ledger)
    with ledger.writing() as rows:
        rows.connection.exec_driver_sql(
            "SET LOCAL session_replication_role = replica"
        )  # a superuser's way past triggers
        for one in statement.split("; "):
            rows.connection.exec_driver_sql(one)
    assert [one for one in verify(ledger).findings if words in one] != []


def edited(data: st.DataObject, value: Any, column: str) -> Any:
    """Return another value for a column, as somebody would write it or as no software would."""
    if column == "payload":
        known = json.loads(value)
        return json.dumps(known | {"forged": data.draw(st.one_of(st.none(), st.integers(), st.text(max_size=5)))})
    if column == "at":
        return data.draw(st.sampled_from(["2020-01-01 00:00:00.000000", "2026-11-26 00:00:00.000001", "yesterday"]))
    if isinstance(value, int):
        return data.draw(st.integers(-(2**40), 2**40).filter(lambda other: other != value))
    return data.draw(st.one_of(st.text(max_size=8), st.binary(min_size=1, max_size=4)).filter(lambda it: it != value))


def unique_copy(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose natural key is its own: words get a tail, numbers grow."""
    kept = ("id", "at", "payload", "who")
    return {
        name: value if name in kept or value is None else f"{value}!" if isinstance(value, str) else value + 1000
        for name, value in row.items()
    }


@pytest.mark.parametrize("table", [name for name in NAMES if name not in ("schema_versions", "chain")])
def test_an_edit_and_its_entry_made_anew_break_the_link_to_the_next(template: Path, tmp_path: Path, table: str) -> None:
    """The attacker knows how entries are made, and stops there."""
    path = tmp_path / "forged.db"
    shutil.copy(template, path)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        forge(ledger, tables.metadata.tables[table], id=1, to_the_end=False)
        assert any("does not follow" in words for words in verify(ledger).findings)


def forge(ledger: Ledger, table: Any, id: int, to_the_end: bool) -> None:
    """Change who wrote a row, and make its entry anew, and on request all entries after it."""
    chain = tables.chain
    with ledger.writing() as rows:
        connection = rows.connection
        switch_triggers_off(connection, [table.name, "chain"])
        connection.execute(table.update().where(table.c.id == id).values(who="somebody@else"))
        row = connection.execute(select(table).where(table.c.id == id)).mappings().one()
        entries = [dict(one) for one in connection.execute(select(chain).order_by(chain.c.id)).mappings()]
        first = next(n for n, one in enumerate(entries) if (one["entry_table"], one["entry_row"]) == (table.name, id))
        entries[first] |= {"digest": digest_of_row(table.name, row)}
        for number in range(first, len(entries) if to_the_end else first + 1):
            if number > first:
                entries[number]["previous"] = entries[number - 1]["hash"]
            entries[number]["hash"] = hash_of_entry(entries[number])
            changed = {name: entries[number][name] for name in ("digest", "previous", "hash")}
            connection.execute(chain.update().where(chain.c.id == entries[number]["id"]).values(**changed))
        triggers.put_in_place(connection)


def switch_triggers_off(connection: Any, names: list[str]) -> None:
    if connection.dialect.name == "postgresql":
        for name in names:
            connection.exec_driver_sql(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        return
    found = connection.execute(text("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'")).all()
    for name, place in found:
        if place in names:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")


def test_a_chain_that_was_made_anew_to_its_end_is_noticed_by_a_checkpoint_alone(ledger: Ledger) -> None:
    fill(ledger)
    kept = checkpoint(ledger)
    ledger.record_event("later", "")
    forge(ledger, tables.decisions, id=1, to_the_end=True)
    assert verify(ledger).findings == [], "the chain holds: this is what checkpoints are for"
    [found] = verify(ledger, [kept]).findings
    assert f"entry {kept.entries} of the chain is another than at the checkpoint" in found


def test_rows_cut_off_with_their_entries_are_noticed_by_a_checkpoint_alone(ledger: Ledger) -> None:
    ledger.record_event("one", "")
    ledger.record_event("two", "")
    kept = checkpoint(ledger)
    with ledger.writing() as rows:
        switch_triggers_off(rows.connection, ["events", "chain"])
        rows.connection.execute(text("DELETE FROM events WHERE id = 2"))
        rows.connection.execute(text(f"DELETE FROM chain WHERE id = {kept.entries}"))
        triggers.put_in_place(rows.connection)
    assert verify(ledger).findings == []
    [found] = verify(ledger, [kept]).findings
    assert f"has fewer entries than at the checkpoint of {kept.at}" in found


def test_a_checkpoint_of_another_ledger_is_told(ledger: Ledger, tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'other.db'}") as other:
        foreign = checkpoint(other)
    assert "of another ledger, or the whole chain was made anew" in " ".join(verify(ledger, [foreign]).findings)


@pytest.mark.parametrize("words", ["", "{}", "[1]", '{"format": 1}', "[" * 100_000, '{"format": 2, "entries": 1}'])
def test_what_is_no_checkpoint_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match="no checkpoint"):
        Checkpoint.from_json(words)


def test_a_checkpoint_comes_back_from_its_file(ledger: Ledger) -> None:
    one = checkpoint(ledger)
    assert Checkpoint.from_json(one.to_json()) == one


def test_a_home_keeps_what_was_verified_last(ledger: Ledger, tmp_path: Path) -> None:
    address = ledger._database.place
    assert verify_home(ledger, tmp_path, address).findings == []
    ledger.record_event("one", "")
    assert verify_home(ledger, tmp_path, address).count == 0
    forge(ledger, tables.events, id=1, to_the_end=True)
    report = verify_home(ledger, tmp_path, address)
    assert "is another than at the checkpoint" in report.complaint()
    assert "remove that file if you restored an older backup yourself" in report.complaint()
    Kept(tmp_path, address).path.write_text("damaged")
    with pytest.raises(ChainError, match="is damaged"):
        verify_home(ledger, tmp_path, address)


def test_nothing_but_the_chain_and_what_keeps_it_inserts_rows() -> None:
    registry = Path(links.__file__).parent
    inserting = {
        path.name for path in registry.glob("*.py") if re.search(r"\.insert\(\)|INSERT INTO", path.read_text())
    }
    assert inserting == {"links.py", "rows.py"}


# Triggers

SQLITE = [
    "DROP TRIGGER decisions_no_update",
    "DROP TRIGGER chain_no_replace_1",
    "DROP TRIGGER looks_no_delete; CREATE TRIGGER looks_no_delete BEFORE DELETE ON looks BEGIN SELECT 1; END",
    "CREATE TRIGGER helpful AFTER INSERT ON verdicts BEGIN SELECT 1; END",
]
POSTGRESQL = [
    "DROP TRIGGER decisions_append_only_row ON decisions",
    "DROP TRIGGER chain_append_only_table ON chain",
    "ALTER TABLE looks DISABLE TRIGGER looks_append_only_row",
    "ALTER TABLE entries DISABLE TRIGGER ALL",
    "CREATE OR REPLACE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RETURN NEW; END $$",
    "CREATE OR REPLACE TRIGGER looks_append_only_row BEFORE UPDATE OR DELETE ON looks FOR EACH ROW WHEN (OLD.id > 9) "
    "EXECUTE FUNCTION ledger_is_append_only()",
    "CREATE OR REPLACE TRIGGER looks_append_only_row BEFORE DELETE ON looks FOR EACH ROW "
    "EXECUTE FUNCTION ledger_is_append_only()",
    "CREATE TRIGGER helpful BEFORE INSERT ON verdicts FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()",
    "CREATE RULE quiet AS ON INSERT TO verdicts DO INSTEAD NOTHING",
]


def test_a_trigger_that_is_missing_changed_or_foreign_is_told_and_put_right_on_record(ledger: Ledger) -> None:
    """L1.3: triggers never came back, and nobody was told."""
    harm = POSTGRESQL if ledger._database.is_postgresql else SQLITE
    for number, statements in enumerate(harm, 1):
        with ledger.writing() as rows:
            for statement in statements.split("; C"):
                whole = statement if statement.startswith(("DROP", "ALTER", "CREATE")) else "C" + statement
                rows.connection.exec_driver_sql(whole)
        found = verify(ledger).findings
        assert found, statements
        with pytest.raises(ChainError, match="ledger repair --reason"):
            checkpoint(ledger)
        with pytest.raises(UsageError, match="needs a reason"):
            repair(ledger, " ")
        assert len(repair(ledger, "an upgrade of the database")) >= len(found)
        report = verify(ledger)
        assert report.findings == [], statements
        assert len(report.notes) == number
    assert repair(ledger, "nothing to do") == {}
    with pytest.raises(StoreError, match="append-only"), ledger.writing() as rows:
        rows.connection.execute(text("DELETE FROM events"))


def test_a_table_that_is_gone_is_told(ledger: Ledger) -> None:
    with ledger.writing() as rows:
        rows.connection.exec_driver_sql("DROP TABLE rankings")
    assert verify(ledger).findings == ["the table rankings is missing"]


@pytest.mark.parametrize("constraint", ["index", "unique"])
def test_a_constraint_that_was_dropped_is_told(ledger: Ledger, constraint: str) -> None:
    drops = {
        "index": "DROP INDEX events_one_end",
        "unique": "ALTER TABLE looks DROP CONSTRAINT looks_test_split_number_key",
    }
    if constraint == "unique" and not ledger._database.is_postgresql:
        return  # SQLite cannot drop one; a table that was made anew in its place lacks its triggers
    with ledger.writing() as rows:
        rows.connection.exec_driver_sql(drops[constraint])
    table = {"index": "events", "unique": "looks"}[constraint]
    assert [words for words in verify(ledger).findings if f"the table {table} lacks" in words] != []


# The same on both databases


@pytest.fixture
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Ledger]]:
    """An empty ledger in each kind of database."""
    import psycopg

    server = request.getfixturevalue("postgres_server")
    with psycopg.connect(f"{server.replace('+psycopg', '')}/postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS chain_two")
        connection.execute("CREATE DATABASE chain_two")
    opened = [Ledger.open(f"sqlite:///{tmp_path / 'two.db'}"), Ledger.open(f"{server}/chain_two")]
    yield opened
    for one in opened:
        one.close()


NUMBERS = st.one_of(st.integers(-(2**80), 2**80), st.floats(allow_nan=True, allow_infinity=True))
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
PAYLOADS = st.dictionaries(
    WORDS, st.recursive(st.one_of(st.none(), st.booleans(), NUMBERS, WORDS), lambda one: st.lists(one, max_size=3))
)


@pytest.mark.postgres
@effort(max_examples=60, suppress_health_check=list(HealthCheck))
@given(payload=PAYLOADS, word=WORDS, moment=st.datetimes(timezones=st.just(dt.UTC), min_value=dt.datetime(1900, 1, 1)))
def test_a_row_has_one_digest_in_both_databases(
    two: list[Ledger], payload: dict[str, Any], word: str, moment: dt.datetime
) -> None:
    row = {"tournament": None, "kind": word, "subject": "", "at": moment, "who": word, "payload": payload}
    digests = set()
    for ledger in two:
        with ledger.writing() as rows:
            given_back = insert(tables.events).values(**row).returning(*tables.events.c)
            stored = dict(rows.connection.execute(given_back).mappings().one())
            again = rows.one(tables.events, {"id": stored["id"]})
            assert again is not None
            assert digest_of_row("events", stored) == digest_of_row("events", again)
            digests.add(digest_of_row("events", dict(again) | {"id": 1}))
    assert len(digests) == 1
