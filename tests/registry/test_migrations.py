"""Ledgers of every released schema are brought to the newest one, and say the same as before."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from esci_tournament.registry import migrations, tables
from esci_tournament.registry.chain import verify
from esci_tournament.registry.database import Database
from esci_tournament.registry.errors import ChainError, StoreError
from esci_tournament.registry.grants import grant
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.policies import current, record_policy
from esci_tournament.registry.policy import Policy
from esci_tournament.registry.proof import enrol
from esci_tournament.registry.settings import Settings
from tests.registry.conftest import RunScript

SCHEMAS = Path(__file__).with_name("schemas")  # the DDL of each schema, as the code of its time created it
OLD = [int(path.name.split("_")[1].split(".")[0]) for path in sorted(SCHEMAS.glob("*.sqlite.sql"))]
AT = "2026-11-22 10:28:07.000250"
POLICY = {"review": "required", "reviewers": [], "quorum": 1, "allow_self_review": True, "required_gain": 0.0}

# Table -> rows; each is as the code of schema 1, and 2 and 3 where the table is younger, appended it.
ROWS: dict[int, list[tuple[str, dict[str, Any]]]] = {
    1: [
        ("data_versions", {"digest": "data-1", "payload": {"pairs": 10, "share": 1e21, "words": "名"}}),
        ("candidates", {"candidate": "minilm/1", "digest": "d", "family": "language_model"}),
        ("tournaments", {"tournament": "t1", "data_version": "data-1", "payload": {"against": 0}}),
        ("tournaments", {"tournament": "t2", "data_version": "data-1", "payload": {"against": 1}}),
        ("entries", {"tournament": "t1", "candidate": "minilm/1", "role": "newcomer"}),
        ("events", {"tournament": None, "kind": "stage_finished", "subject": "train"}),
        ("ensembles", {"tournament": "t1", "name": "esci", "version": 1, "payload": {"members": ["minilm/1"]}}),
        ("ensembles", {"tournament": "t2", "name": "esci", "version": 2, "payload": {"members": ["minilm/1"]}}),
        ("looks", {"test_split": "s", "number": 1, "tournament": "t1", "against": 0}),
        ("verdicts", {"tournament": "t1", "against": 0, "outcome": "promote"}),
        ("verdicts", {"tournament": "t2", "against": 1, "outcome": "promote"}),
        ("decisions", {"verdict": 1, "outcome": "approve", "reviewer": "ann", "reason": "better"}),
        ("decisions", {"verdict": 2, "outcome": "approve", "reviewer": "ann", "reason": "better still"}),
        *(
            ("promotions", {"ensemble": "esci", "sequence": n, "kind": kind, "version": version, "decision": decision})
            for n, kind, version, decision in ((1, "promote", 1, 1), (2, "promote", 2, 2), (3, "rollback", 1, None))
        ),
        ("promotion_steps", {"promotion": 1, "step": "done"}),
    ],
    2: [
        ("reviews", {"verdict": 1, "round": 1}),
        ("arrivals", {"candidate": "minilm/1", "digest": "d", "outcome": "queued"}),
        ("dispatches", {"dispatch": "cpu-1", "device": "cpu"}),
        ("dispatched", {"dispatch": "cpu-1", "arrival": 1}),
        ("attempts", {"dispatch": "cpu-1", "number": 1}),
        ("attempt_steps", {"attempt": 1, "step": "started", "outcome": "flow-run"}),
    ],
    3: [
        ("policies", {"version": 1, "reason": "first", "payload": {"policy": POLICY, "after_promotion": 3}}),
        ("approvals", {"verdict": 1, "person": "ann", "reviewer": "Ann", "reason": "better"}),
        ("enrolments", {"person": "ann", "payload": {"secret": "A" * 32}}),
        ("used_codes", {"person": "ann", "step": 1, "payload": {"code": "x"}}),
    ],
}


def make_old(url: str, schema: int) -> None:
    """Create a ledger as a release with this schema did, with rows in every table that has any to replay."""
    database = Database.open(url)
    kind = "postgresql" if database.is_postgresql else "sqlite"
    ddl = (SCHEMAS / f"schema_{schema}.{kind}.sql").read_text(encoding="utf-8")
    with database.writing() as connection:
        for statement in re.split(r";\n(?=CREATE|$)", ddl.split("\n", 1)[1]):
            if statement.strip():
                connection.exec_driver_sql(statement.replace("%", "%%") if database.is_postgresql else statement)
        if database.is_postgresql:
            connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
        versions = [("schema_versions", {"version": schema})]
        for table, row in [*versions, *(one for n in range(1, schema + 1) for one in ROWS[n])]:
            values = {"at": AT, "who": "ann@host", "payload": {}} | row
            if table == "promotions":
                values["reason"] = "better"
            values["payload"] = json.dumps(values["payload"])
            marks = ", ".join(f":{name}" for name in values)
            connection.execute(text(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"), values)
    database.engine.dispose()


@pytest.mark.parametrize("schema", OLD)
def test_a_ledger_of_an_old_schema_is_upgraded_and_replays_to_the_same_champion(ledger_url: str, schema: int) -> None:
    make_old(ledger_url, schema)
    with Ledger.open(ledger_url) as ledger:
        standing = ledger.standing("esci")
        assert standing.champion is not None
        assert (standing.champion.version, standing.sequence, standing.invalid) == (1, 3, ())
        assert standing.champion.at == dt.datetime(2026, 11, 22, 10, 28, 7, 250, dt.UTC)
        assert [one.promotion.reason for one in ledger.history("esci")] == ["better"] * 3
        assert [one.version for one in ledger.schemas()] == [schema, tables.SCHEMA_VERSION]
        assert (current(ledger) is not None) == (schema >= 3)
        report = verify(ledger)
        assert (report.findings, report.notes) == ([], [])
        assert report.before == 1 + sum(len(ROWS[n]) for n in range(1, schema + 1))
        assert differences(ledger) == []
        with pytest.raises(StoreError, match="append-only"), ledger.writing() as rows:
            rows.connection.execute(text("UPDATE decisions SET reviewer = 'me'"))
        ledger.record_event("later", "")
        once = ledger.export()
    with Ledger.open(ledger_url) as ledger:
        assert ledger.export() == once, "opening it again changes nothing"


def differences(ledger: Ledger) -> list[Any]:
    """Return what a schema that was migrated has less or more than the tables of the code."""
    with ledger.reading() as rows:
        context = MigrationContext.configure(rows.connection, opts={"compare_type": True})
        return list(compare_metadata(context, tables.metadata))


def test_the_revisions_make_what_the_code_reads(ledger: Ledger) -> None:
    assert migrations.newest() == tables.SCHEMA_VERSION == max(OLD) + 1, "each schema that was released has its DDL"
    assert differences(ledger) == []


def test_triggers_that_an_old_ledger_lacks_are_put_back_on_record(ledger_url: str) -> None:
    """L1.3: dropped before the upgrade; they are not restored without a word."""
    make_old(ledger_url, 3)
    database = Database.open(ledger_url)
    name = "decisions_append_only_row ON decisions" if database.is_postgresql else "decisions_no_update"
    with database.writing() as connection:
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
    database.engine.dispose()
    with Ledger.open(ledger_url) as ledger:
        report = verify(ledger)
        assert report.findings == []
        assert f"the trigger {name.split()[0]} is missing" in report.notes[0]


@pytest.mark.parametrize("tampering", ["DELETE FROM schema_versions", "UPDATE schema_versions SET version = 3"])
def test_a_schema_whose_number_was_forged_is_not_migrated_again(ledger_url: str, tampering: str) -> None:
    with Ledger.open(ledger_url) as ledger, ledger.writing() as rows:
        off(rows.connection)
        rows.connection.execute(text(tampering))
    with pytest.raises(ChainError, match=r"schema_versions says.*alembic_version that it has 4"):
        Ledger.open(ledger_url)


def off(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE schema_versions DISABLE TRIGGER USER")
        return
    for verb in ("update", "delete"):
        connection.exec_driver_sql(f"DROP TRIGGER schema_versions_no_{verb}")


def test_processes_that_open_an_old_ledger_at_once_upgrade_it_once(ledger_url: str, run_script: RunScript) -> None:
    make_old(ledger_url, 1)
    script = """
        import os, sys
        from esci_tournament.registry.ledger import Ledger
        children = []
        for number in range(4):
            if (child := os.fork()) == 0:
                try:
                    with Ledger.open(sys.argv[1]) as ledger:
                        ledger.record_event("opened", str(number))
                except BaseException as error:
                    print(repr(error), file=sys.stderr)
                    os._exit(1)
                os._exit(0)
            children.append(child)
        sys.exit(any(os.waitpid(child, 0)[1] for child in children))
    """
    run_script(script, ledger_url)
    with Ledger.open(ledger_url) as ledger:
        assert [one.version for one in ledger.schemas()] == [1, tables.SCHEMA_VERSION]
        assert len(ledger.events(kind="opened")) == 4
        assert verify(ledger).findings == []


# Roles of PostgreSQL


@pytest.fixture
def services(ledger_url: str) -> dict[str, str]:
    """Addresses of an owner, a worker, a reviewer and a scorer; nothing is created or granted yet."""
    import psycopg

    database = ledger_url.rpartition("/")[2]
    roles = {service: f"{service}_{database[-8:]}" for service in ("owner", "worker", "reviewer", "scorer")}
    with psycopg.connect(ledger_url.replace("+psycopg", ""), autocommit=True) as connection:
        for role in roles.values():
            connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"ALTER DATABASE {database} OWNER TO {roles['owner']}")
    return {service: ledger_url.replace("tournament@", f"{role}@") for service, role in roles.items()}


def verdict_in(ledger: Ledger) -> int:
    ledger.record_data_version("data-1")
    ledger.start_tournament("t1", "data-1")
    return ledger.record_verdict("t1", "promote").id


def role_of(address: str) -> str:
    return address.split("//")[1].split("@")[0]


@pytest.mark.databases("postgresql")
def test_each_service_may_do_what_it_does_and_nothing_else(services: dict[str, str]) -> None:
    for service in ("worker", "reviewer", "scorer"):
        grant(services["owner"], service, role_of(services[service]))
    with Ledger.open(services["worker"]) as worker, Ledger.open(services["scorer"]) as scorer:
        worker.record_event("x", "y")
        worker.record_data_version("data-1")
        assert len(scorer.events(kind="x")) == 1
        assert scorer.standing("esci").champion is None
        with pytest.raises(StoreError, match="permission denied"):
            scorer.record_event("x", "y")
        for one in (worker, scorer):
            with pytest.raises(StoreError, match="permission denied"), one.reading() as rows:
                rows.all(tables.enrolments)
        verdict = verdict_in(worker)
        with pytest.raises(StoreError, match="permission denied"):
            worker.record_approval(verdict, "ann", "Ann", "better")
        for one in (worker, scorer):
            for statement in (
                "UPDATE events SET who = 'me'",
                "DELETE FROM chain",
                "TRUNCATE events",
                "DROP TRIGGER events_append_only_row ON events",
                "ALTER TABLE events DISABLE TRIGGER ALL",
                "SET session_replication_role = replica",
                "CREATE OR REPLACE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS '' ",
                "CREATE TRIGGER mine BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only()",
                "CREATE RULE mine AS ON INSERT TO events DO INSTEAD NOTHING",
                "ALTER TABLE events ADD COLUMN mine integer",
                "DROP TABLE chain",
                "CREATE TABLE mine (id integer)",
                "SELECT setval('events_id_seq', 1000)",
            ):
                refused = r"permission denied|must be (owner|able)"
                with pytest.raises(StoreError, match=refused), one.writing() as rows:
                    rows.connection.exec_driver_sql(statement)
    with Ledger.open(services["reviewer"]) as reviewer:
        reviewer.record_approval(verdict, "ann", "Ann", "better")
        with pytest.raises(StoreError, match="permission denied"):
            enrol(reviewer, "ann")
        with pytest.raises(StoreError, match="permission denied"):
            record_policy(reviewer, Policy.of(Settings()), "because", 0)
    for service, address in services.items():
        with Ledger.open(address) as opened:
            report = verify(opened)
            assert report.findings == []
            assert bool(report.notes) == (service in ("worker", "scorer")), "secrets are not compared by these"


@pytest.mark.databases("postgresql")
def test_an_old_ledger_is_migrated_by_its_owner_alone(services: dict[str, str]) -> None:
    make_old(services["owner"], 3)
    for service in ("worker", "scorer"):
        with Database.open(services["owner"]).writing() as connection:
            connection.exec_driver_sql(
                f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role_of(services[service])}"
            )
        with pytest.raises(StoreError, match=r"has schema 3 .* needs 4; .*tournament ledger migrate"):
            Ledger.open(services[service])
    grant(services["owner"], "worker", role_of(services["worker"]))
    with Ledger.open(services["worker"]) as ledger:
        ledger.record_event("x", "y")


@pytest.mark.databases("postgresql")
def test_a_role_that_may_do_anything_is_no_role_of_a_service(services: dict[str, str]) -> None:
    from esci_tournament.registry.errors import UsageError

    Ledger.open(services["owner"]).close()
    for mighty in ("tournament", role_of(services["owner"])):
        with pytest.raises(UsageError, match="may do anything"):
            grant(services["owner"], "worker", mighty)
    with pytest.raises(StoreError, match="does not exist"):
        grant(services["owner"], "worker", "nobody at all")
