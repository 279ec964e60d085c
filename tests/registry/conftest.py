"""Stores that the registry's tests work on: ledgers on SQLite and PostgreSQL, an MLflow database, a way to fork."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.ledger import Ledger
from registry.models import Models

RunScript = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start a throw-away PostgreSQL cluster on loopback; yield its SQLAlchemy URL without a database name."""
    pytest.importorskip("psycopg", reason="needs the postgres extra")
    programs = _postgres_programs()
    folder = Path(tempfile.mkdtemp(prefix="ledger-postgres-"))
    prefix: list[str] = []
    if os.getuid() == 0:  # initdb refuses to run as root
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        if shutil.which("setpriv") is None:
            pytest.skip("initdb does not run as root, and there is no setpriv to become somebody else")
        shutil.chown(folder, "nobody", "nogroup")

    def run(program: str, *arguments: str) -> None:
        command = [*prefix, str(programs / program), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories={folder} -c fsync=off"
    try:
        run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "tournament", "--no-sync")
        run("pg_ctl", "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield f"postgresql+psycopg://tournament@127.0.0.1:{port}"
        finally:
            run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_programs() -> Path:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for folder in [*reversed(installed), Path(shutil.which("initdb") or "/nowhere/initdb").parent]:
        if (folder / "initdb").is_file() and (folder / "pg_ctl").is_file():
            return folder
    pytest.skip("no PostgreSQL server binaries (initdb, pg_ctl) on PATH or in /usr/lib/postgresql")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty ledger of its own, on each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    import psycopg

    server = request.getfixturevalue("postgres_server")
    name = f"ledger_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server.replace('+psycopg', '')}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An open, empty ledger."""
    with Ledger.open(ledger_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its schema and nothing in it, made once because the first migration takes seconds."""
    home = tmp_path_factory.mktemp("mlflow-template")
    assert Models(f"sqlite:///{home / 'mlflow.db'}", home).champion() is None
    return home / "mlflow.db"


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Path:
    """A home folder whose MLflow database has its schema."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(mlflow_template, folder / "mlflow.db")
    return folder


@pytest.fixture
def models(home: Path) -> Models:
    """The model registry of `home`."""
    return Models(f"sqlite:///{home / 'mlflow.db'}", home)


@pytest.fixture
def run_script(tmp_path: Path) -> RunScript:
    """Run a Python script in a fresh process, in an empty current folder; more processes are forked inside it."""

    def run(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            cwd=elsewhere,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, -9), done.stderr
        return done

    return run
