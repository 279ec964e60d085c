"""Backup and restore against a real PostgreSQL; only `docker compose` is replaced by a small script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from esci_tournament.registry.ledger import Ledger

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

DOCKER = Path(__file__).resolve().parents[2] / "docker"

# `compose exec` and `compose run` run the command here, volumes being folders of the test.
COMPOSE = """\
#!{python}
import os, sys
arguments = sys.argv[sys.argv.index("-f") + 2:]
verb, rest = arguments[0], [one for one in arguments[1:] if one not in ("-T", "--rm", "--no-deps")]
with open({said!r}, "a") as log:
    print(*arguments, file=log)
if verb == "run":
    rest = [rest[2], rest[1], *rest[3:]]
elif verb != "exec":
    sys.exit(0)
command = [one.replace("/var/lib/", {volumes!r} + "/") for one in rest[1:]]
os.execvp(command[0], command)
"""

Script = Callable[..., subprocess.CompletedProcess[str]]


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
        for name in ("prefect", "mlflow", "ledger"):
            sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"DROP ROLE IF EXISTS {name}")
        sql("DROP ROLE postgres")


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    folder = tmp_path / "volumes"
    for name in ("mlflow", "tournament"):
        (folder / name).mkdir(parents=True)
    (folder / "mlflow" / "model.safetensors").write_bytes(b"weights")
    (folder / "tournament" / "stages" / "work").mkdir(parents=True)
    (folder / "tournament" / "stages" / "work" / "checkpoint").write_bytes(b"half")
    (folder / "tournament" / "report.html").write_text("a report")
    return folder


@pytest.fixture
def script(databases: dict[str, str], volumes: Path, tmp_path: Path) -> Script:
    played = tmp_path / "bin" / "docker"
    played.parent.mkdir()
    played.write_text(COMPOSE.format(python=sys.executable, said=str(tmp_path / "said"), volumes=str(volumes)))
    played.chmod(0o755)

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DOCKER / name, *map(str, arguments)],
            env=databases | {"PATH": f"{played.parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def ledger_of(databases: dict[str, str]) -> Ledger:
    password = Path(databases["SECRETS"], "ledger_db_password").read_text()
    return Ledger.open(f"postgresql+psycopg://ledger:{password}@{databases['PGHOST']}:{databases['PGPORT']}/ledger")


def test_what_was_backed_up_is_there_again(
    databases: dict[str, str], volumes: Path, script: Script, tmp_path: Path
) -> None:
    with ledger_of(databases) as ledger:
        ledger.record_event("kept", "before the backup")
    backup = tmp_path / "backup"
    done = script("backup.sh", backup)
    assert done.returncode == 0, done.stderr
    with ledger_of(databases) as ledger:
        ledger.record_event("lost", "after the backup")
    (volumes / "mlflow" / "model.safetensors").unlink()
    (volumes / "tournament" / "later.html").write_text("after the backup")

    done = script("restore.sh", backup, "--yes")

    assert done.returncode == 0, done.stderr
    with ledger_of(databases) as ledger:  # as its owner, who may read and append again
        assert [event.kind for event in ledger.events()] == ["kept"]
        ledger.record_event("goes", "on")
    assert (volumes / "mlflow" / "model.safetensors").read_bytes() == b"weights"
    assert (volumes / "tournament" / "report.html").read_text() == "a report"
    assert not (volumes / "tournament" / "stages" / "work").exists()
    assert not (volumes / "tournament" / "later.html").exists()
    stopped = (tmp_path / "said").read_text().index("stop prefect mlflow deploy worker reviewer watcher scorer")
    assert stopped < (tmp_path / "said").read_text().index("dropdb")


def test_nothing_is_replaced_by_half_a_backup_or_without_a_yes(script: Script, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert script("backup.sh", backup).returncode == 0
    again = script("backup.sh", backup)
    assert (again.returncode, "never goes over another" in again.stderr) == (1, True)
    (tmp_path / "said").unlink()
    unsure = script("restore.sh", backup)
    assert (unsure.returncode, "say --yes" in unsure.stderr) == (1, True)
    (backup / "mlflow.dump").unlink()
    half = script("restore.sh", backup, "--yes")
    assert (half.returncode, "mlflow.dump is missing" in half.stderr) == (1, True)
    assert not (tmp_path / "said").exists()


def test_each_role_sees_its_own_database_alone(databases: dict[str, str]) -> None:
    import psycopg

    address = f"host={databases['PGHOST']} port={databases['PGPORT']} user=ledger dbname="
    with psycopg.connect(address + "ledger") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("ledger",)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(address + "mlflow")
