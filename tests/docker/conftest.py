"""The three databases of the production stack, on a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.registry.ledger import Ledger

DOCKER = Path(__file__).resolve().parents[2] / "docker"
SERVICES = ("ledger_worker", "ledger_reviewer", "ledger_scorer")


@pytest.fixture(scope="session")
def prepare() -> Any:
    """docker/prepare.py as a module."""
    sys.path.insert(0, str(DOCKER))
    try:
        import prepare
    finally:
        sys.path.remove(str(DOCKER))
    return prepare


@pytest.fixture
def databases(postgres_server: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The three databases as the image makes them; yields the environment in which they are reached."""
    if shutil.which("pg_dump") is None or shutil.which("psql") is None:
        pytest.skip("needs PostgreSQL's client programs on PATH")
    host, _, port = postgres_server.rpartition("@")[2].partition(":")
    secrets = tmp_path / "secrets"
    subprocess.run([DOCKER / "make-secrets.sh", secrets], check=True, stdout=subprocess.DEVNULL)
    reach = {"PGHOST": host, "PGPORT": port, "SECRETS": str(secrets)}
    environment = {**os.environ, **reach}

    def sql(*statements: str) -> None:
        for statement in statements:
            command = ["psql", "-qX", "-U", "tournament", "-d", "postgres", "-c", statement]
            subprocess.run(command, check=True, env=environment, timeout=60)

    sql("CREATE ROLE postgres SUPERUSER LOGIN")
    try:
        subprocess.run([DOCKER / "postgres" / "databases.sh"], check=True, env=environment, timeout=60)
        yield environment
    finally:
        sql(*(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in ("prefect", "mlflow", "ledger")))
        sql(*(f"DROP ROLE IF EXISTS {name}" for name in ("prefect", "mlflow", "ledger", *SERVICES)))
        sql("DROP ROLE postgres")


def url_of(databases: dict[str, str], role: str = "ledger") -> str:
    """The ledger's address for one of its roles."""
    password = Path(databases["SECRETS"], f"{role}_db_password").read_text()
    return f"postgresql+psycopg://{role}:{password}@{databases['PGHOST']}:{databases['PGPORT']}/ledger"


def ledger_of(databases: dict[str, str], role: str = "ledger") -> Ledger:
    return Ledger.open(url_of(databases, role))
