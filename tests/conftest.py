"""Fixtures shared by several folders: tiny read-only synthetic worlds, and databases."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of processes that share the cores would spin, waiting for each other
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import pandas as pd
import pytest
from hypothesis import settings

from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.layout import EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.synthesize import synthesize
from tests import harness
from tests.harness import PrefectServer
from tests.scheduling import (  # noqa: F401 - pytest finds its hooks here
    pytest_collection_modifyitems,
    pytest_configure_node,
    pytest_xdist_make_scheduler,
)

settings.register_profile("tests", deadline=None)  # a busy machine must not fail a test
settings.load_profile("tests")


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 120 judged queries (about 1,400 pairs) and behaviour events. Read only."""
    return synthesize(tmp_path_factory.mktemp("world") / "tiny", queries=120, seed=7, searches_per_query=10)


@pytest.fixture(scope="session")
def tiny_dataset(tiny_world: Path) -> Dataset:
    """The data set of `tiny_world`. Read only."""
    return load_esci(tiny_world)


@pytest.fixture(scope="session")
def grown_world(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world with the judgements, products and behaviour of another week, whose ids are its own. Read only."""
    folder = tmp_path_factory.mktemp("grown")
    newer = synthesize(folder / "newer", queries=120, seed=8, searches_per_query=10)
    grown = folder / "grown"
    grown.mkdir()
    for file in (EXAMPLES_FILE, PRODUCTS_FILE, EVENTS_FILE):
        before, more = pd.read_parquet(tiny_world / file), pd.read_parquet(newer / file)
        more["product_id"] = "N" + more["product_id"]
        if file == EXAMPLES_FILE:
            more[["example_id", "query_id"]] += 1_000_000
        pd.concat([before, more], ignore_index=True).to_parquet(grown / file, index=False)
    return grown


@pytest.fixture(scope="session")
def esci_sample() -> Path:
    """The folder of real ESCI rows beside the repository; the test is skipped when it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "esci_sample"
    if not folder.is_dir():
        pytest.skip(f"real ESCI rows are not there: {folder}")
    return folder


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give tests of a ledger each kind of database, or those that the mark `databases` names."""
    if "ledger_url" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("databases")
        marks = {"sqlite": (), "postgresql": pytest.mark.postgres}
        kinds = [pytest.param(kind, marks=marks[kind]) for kind in (mark.args if mark else marks)]
        metafunc.parametrize("ledger_url", kinds, indirect=True)


@pytest.fixture
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty ledger of its own, on each kind of database where SQL may differ."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    import psycopg

    server = request.getfixturevalue("postgres_server")
    name = f"ledger_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server.replace('+psycopg', '')}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


@pytest.fixture(scope="session", autouse=True)
def _session_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tell the harness where the processes of this session meet."""
    base = tmp_path_factory.getbasetemp()
    harness.share(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture
def clean_environment() -> dict[str, str]:
    """The environment of a user who has set nothing."""
    return harness.clean_environment()


@pytest.fixture(scope="session")
def mlflow_template() -> Path:
    """An MLflow database with its schema and nothing in it, made once a session because migrations take seconds."""
    return harness.shared_mlflow()


@pytest.fixture(scope="session")
def empty_mlflow(mlflow_template: Path) -> bytes:
    """The content of that database."""
    return mlflow_template.read_bytes()


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A real Prefect server, empty and as `tournament up` starts it, for tests of what is on a server."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect-server"))
    try:
        server.start_server()
        yield server
    finally:
        server.end_all()


@pytest.fixture
def connected(prefect: PrefectServer) -> Iterator[dict[str, str]]:
    """Speak to that server while the test runs; yields the variables with which other processes do."""
    with prefect.connected():
        yield prefect.client
