"""What the database roles of the services may do with the ledger, and what they may not."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from esci_tournament.registry import tables
from esci_tournament.registry.errors import PolicyError, StoreError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.policies import current, record_policy
from esci_tournament.registry.policy import Policy
from esci_tournament.registry.proof import enrol, enrolled
from esci_tournament.registry.settings import Settings
from tests.docker.conftest import DOCKER, SERVICES, ledger_of, url_of
from tests.registry.conftest import approved

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ENSEMBLE = "esci"


@pytest.fixture
def prepared(databases: dict[str, str], prepare: Any) -> dict[str, str]:
    """The databases with the ledger's tables, its rights and its first policy."""
    for _ in range(2):  # what is there stays
        prepare.prepare_ledger(Settings(ledger_url=url_of(databases), review="none"))
    return databases


def connect(databases: dict[str, str], role: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url_of(databases, role).replace("+psycopg", ""), autocommit=True)


def promote(ledger: Ledger, number: int) -> None:
    """Hold a tournament and promote its challenger, all of whose steps are appended."""
    ledger.record_data_version("data")
    ledger.record_candidate(f"m/{number}", "digest", "scores", {"registered_by": ["ana@here"]})
    ledger.start_tournament(f"t{number}", "data", {f"m/{number}": "newcomer"})
    ledger.record_event("kept", "an event")
    settings = Settings().model_dump(mode="json")
    decision = approved(ledger, ENSEMBLE, f"t{number}", number, 0, {"members": [f"m/{number}"], "settings": settings})
    promotion = ledger.record_promotion(ENSEMBLE, "promote", number, 0, "better", decision.id)
    ledger.record_step(promotion.id, "done")


def test_a_worker_appends_a_promotion_and_the_scorer_reads_the_champion(prepared: dict[str, str]) -> None:
    with ledger_of(prepared, "ledger_worker") as ledger:
        promote(ledger, 1)
        with ledger.exclusive("a name"):
            assert ledger.is_locked("a name")
        assert current(ledger).version == 1  # type: ignore[union-attr]
    with ledger_of(prepared, "ledger_scorer") as ledger:
        champion = ledger.champion(ENSEMBLE)
        assert champion is not None
        assert champion.version == 1
        assert not ledger.standing(ENSEMBLE).invalid
        assert [chapter.promotion.version for chapter in ledger.history(ENSEMBLE)] == [1]
        with pytest.raises(StoreError, match="permission denied"):
            ledger.record_event("forged", "by the scorer")


@pytest.mark.parametrize("role", SERVICES)
def test_nobody_but_the_owner_changes_or_removes_anything(role: str, prepared: dict[str, str]) -> None:
    """L1.1, L1.3: UPDATE, DELETE, TRUNCATE and triggers, beyond what the triggers themselves refuse."""
    with ledger_of(prepared, "ledger_worker") as ledger:
        promote(ledger, 1)
    statements = ["CREATE TABLE mine (id int)", "CREATE SCHEMA mine", "CREATE TEMP TABLE mine (id int)"]
    statements += ["DROP FUNCTION ledger_is_append_only CASCADE", f"ALTER ROLE {role} SUPERUSER"]
    statements += ["SET ROLE ledger", "SET session_replication_role = replica", "SELECT setval('events_id_seq', 1)"]
    statements += ["CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "COPY events TO PROGRAM 'id'"]
    for table in tables.metadata.sorted_tables:
        statements += [
            f"UPDATE {table.name} SET who = 'me'",
            f"DELETE FROM {table.name}",
            f"TRUNCATE {table.name} CASCADE",
        ]
        statements += [f"DROP TABLE {table.name} CASCADE", f"ALTER TABLE {table.name} DISABLE TRIGGER ALL"]
        statements += [f"DROP TRIGGER {table.name}_append_only_row ON {table.name}"]
        statements += [f"CREATE INDEX ON {table.name} (id)", f"GRANT ALL ON {table.name} TO PUBLIC"]
    with connect(prepared, role) as connection:
        for statement in statements:
            if statement.startswith("GRANT"):  # mostly a warning, and nothing granted
                with suppress(InsufficientPrivilege):
                    connection.execute(statement)
                continue
            with pytest.raises(InsufficientPrivilege):
                connection.execute(statement)
        granted = connection.execute(
            "SELECT count(*) FROM information_schema.table_privileges WHERE grantee = 'PUBLIC'"
            " AND table_schema = 'public'"
        ).fetchone()
        assert granted == (0,)
    for other in ("mlflow", "prefect"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(url_of(prepared, role).replace("+psycopg", ""), dbname=other)


def test_only_the_operator_changes_the_policy_and_only_reviewers_say_yes(prepared: dict[str, str]) -> None:
    with ledger_of(prepared) as owner:
        enrol(owner, "ana")
        record_policy(owner, Policy.of(Settings(review="required", reviewers=("ana",))), "named")
    weaker = Policy.of(Settings(review="none"))
    for role in SERVICES:
        with ledger_of(prepared, role) as ledger, pytest.raises(StoreError, match="permission denied"):
            record_policy(ledger, weaker, "please")
        with ledger_of(prepared, role) as ledger, pytest.raises(StoreError, match="permission denied"):
            enrol(ledger, "eve")
    with ledger_of(prepared, "ledger_worker") as worker:
        with pytest.raises(PolicyError, match="approval of 1 of its reviewers"):
            promote(worker, 1)
        verdict = worker.verdicts()[0].id
        with pytest.raises(StoreError, match="permission denied"):
            worker.record_approval(verdict, "ana", "ana", "forged", {"proof": "code"})
        with pytest.raises(StoreError, match="permission denied"):  # whose secrets would make a code
            enrolled(worker)
    with ledger_of(prepared, "ledger_scorer") as scorer, pytest.raises(StoreError, match="permission denied"):
        enrolled(scorer)
    with ledger_of(prepared, "ledger_reviewer") as reviewer:
        assert set(enrolled(reviewer)) == {"ana"}
        reviewer.record_approval(verdict, "ana", "ana", "better", {"proof": "code"})


def test_each_role_sees_its_own_database_alone(databases: dict[str, str]) -> None:
    address = f"host={databases['PGHOST']} port={databases['PGPORT']} user="
    owners = ("ledger", "mlflow", "prefect")
    for owner in owners:
        for name in owners:
            if name == owner:
                with psycopg.connect(f"{address}{owner} dbname={name}") as connection:
                    assert connection.execute("SELECT current_user").fetchone() == (owner,)
                continue
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                psycopg.connect(f"{address}{owner} dbname={name}")


def test_a_stack_of_before_gets_the_roles_and_a_ledger_of_before_the_rights(
    databases: dict[str, str], prepare: Any
) -> None:
    """An upgrade: databases.sh is run by hand again, and prepare.py at the next start."""
    with ledger_of(databases) as ledger:  # tables without grants, as the owner of before made them
        ledger.record_event("kept", "from before")
    Path(databases["SECRETS"], "ledger_worker_db_password").chmod(0o600)
    Path(databases["SECRETS"], "ledger_worker_db_password").write_text("it's 'new' \\ \"")
    subprocess.run(["sh", DOCKER / "postgres" / "databases.sh"], check=True, env=databases, timeout=60)
    with connect(databases, "ledger") as connection:
        stored = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'ledger%' ORDER BY 1").fetchall()
    assert [name for (name,) in stored] == ["ledger", *sorted(SERVICES)]
    prepare.prepare_ledger(Settings(ledger_url=url_of(databases)))
    with ledger_of(databases, "ledger_scorer") as ledger:
        assert [event.kind for event in ledger.events()] == ["kept"]
