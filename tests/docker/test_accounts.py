"""The services' users of MLflow, on a real server with authentication: what they may do, and what they may not."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tests.docker.conftest import DOCKER

pytestmark = pytest.mark.slow

PASSWORDS = {
    "admin": "administrator-1",
    "tournament": "of-the-services",
    "scorer": "of-the-scorer-1",
    "eng": "engineer-12345",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server as docker/entrypoint.py configures it, on SQLite; yields its address."""
    pytest.importorskip("flask_wtf", reason="needs mlflow[auth], of the extra `production`")
    folder = tmp_path_factory.mktemp("mlflow")
    sys.path.insert(0, str(DOCKER))
    try:
        import entrypoint
    finally:
        sys.path.remove(str(DOCKER))
    (folder / "auth.ini").write_text(
        entrypoint.MLFLOW_AUTH.format(database=f"sqlite:///{folder}/auth.db", name="admin")
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "PATH": str(Path(sys.executable).parent),
        "PYTHONPATH": ":".join(path for path in sys.path if path),
        "HOME": str(folder),
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORDS["admin"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--artifacts-destination", str(folder / "artifacts")]
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=variables, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 180
        while True:
            try:
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def accounts(server: str, prepare: Any) -> Any:
    found = prepare.Accounts(server, "admin", PASSWORDS["admin"])
    found.put_user("eng", PASSWORDS["eng"])
    for _ in range(2):  # what is there stays
        prepare.prepare_users(found, PASSWORDS, "ensemble")
    return found


def test_services_do_their_work_and_administer_nothing(
    server: str, accounts: Any, prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracking_uri=server, registry_uri=server)

    def become(name: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORDS[name])

    def refused(act: Callable[[], Any]) -> None:
        with pytest.raises((MlflowException, httpx.HTTPStatusError, OSError), match="403"):
            act()

    def register(model: str, experiment: str) -> Any:
        run = client.create_run(client.create_experiment(experiment))
        client.log_text(run.info.run_id, "weights", "model/file.txt")
        client.create_registered_model(model)
        client.create_model_version(model, f"runs:/{run.info.run_id}/model", run.info.run_id)
        return run

    become("eng")
    theirs = register("candidate", "an engineer's")

    become("admin")  # whose the ensemble of an older stack is
    register("ensemble", "from before")
    become("tournament")
    mine = register("challenger", "tournaments")
    client.download_artifacts(theirs.info.run_id, "model/file.txt", str(tmp_path))
    for model in ("ensemble", "candidate"):
        client.set_model_version_tag(model, "1", "tournament.status", "queued")
        client.delete_model_version_tag(model, "1", "tournament.status")
    client.create_model_version("ensemble", f"runs:/{mine.info.run_id}/model", mine.info.run_id)
    for alias in ("champion", "previous"):
        client.set_registered_model_alias("ensemble", alias, "2")
    client.delete_registered_model_alias("ensemble", "previous")
    service = prepare.Accounts(server, "tournament", PASSWORDS["tournament"])
    refused(lambda: client.delete_registered_model("candidate"))
    refused(lambda: client.delete_experiment(theirs.info.experiment_id))
    refused(lambda: client.list_webhooks())
    refused(lambda: service.tell("2.0/mlflow/users/create", username="eve", password="long-enough-1"))
    refused(lambda: service.tell("2.0/mlflow/users/update-admin", "PATCH", username="tournament", is_admin=True))
    refused(lambda: service.tell("2.0/mlflow/users/update-password", "PATCH", username="eng", password="long-enough-1"))
    refused(lambda: service.put_role("tournament", [("experiment", "*", "MANAGE")]))

    become("scorer")
    assert client.get_model_version_by_alias("ensemble", "champion").version in ("2", 2)
    client.download_artifacts(mine.info.run_id, "model/file.txt", str(tmp_path))
    refused(lambda: client.set_model_version_tag("ensemble", "1", "tournament.members", "[]"))
    refused(lambda: client.set_registered_model_alias("ensemble", "champion", "1"))
    refused(lambda: client.log_text(mine.info.run_id, "other weights", "model/file.txt"))


def test_an_administrator_does_not_become_a_service(accounts: Any, prepare: Any) -> None:
    accounts.tell("2.0/mlflow/users/update-admin", "PATCH", username="scorer", is_admin=True)
    try:
        with pytest.raises(SystemExit, match="scorer is an administrator"):
            prepare.prepare_users(accounts, PASSWORDS, "ensemble")
    finally:
        accounts.tell("2.0/mlflow/users/update-admin", "PATCH", username="scorer", is_admin=False)
