"""The services' commands and variables: what each is told, and what nobody else may read."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from esci_tournament.deployments.stack.access import CLIENT_AUTH, SERVER_AUTH, auth_string
from esci_tournament.deployments.stack.services import Service, mlflow_command, mlflow_environment, services_of
from esci_tournament.registry.settings import read_settings

DATABASE = "postgresql+psycopg://mlflow:hunter2@db.example/mlflow"


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Service]:
    for name in (SERVER_AUTH, CLIENT_AUTH):
        monkeypatch.delenv(name, raising=False)
    ledger = DATABASE.replace("mlflow", "ledger")
    settings = read_settings(home=tmp_path, mlflow_uri=DATABASE, ledger_url=ledger, webhook_secret="hunter2-hooks")
    return {one.name: one for one in services_of(settings)}


def test_no_password_stands_on_a_command_line(tmp_path: Path, services: dict[str, Service]) -> None:
    _, _, password = auth_string(tmp_path, {}).partition(":")
    for service in services.values():
        words = " ".join(service.command)
        assert password not in words
        assert "hunter2" not in words


def test_mlflow_finds_its_database_in_the_environment(tmp_path: Path, services: dict[str, Service]) -> None:
    settings = read_settings(home=tmp_path, mlflow_uri=DATABASE)
    assert "--backend-store-uri" not in mlflow_command(settings)
    assert mlflow_environment(settings)["MLFLOW_BACKEND_STORE_URI"] == DATABASE
    assert services["mlflow"].environment["MLFLOW_BACKEND_STORE_URI"] == DATABASE


def test_mlflow_reads_that_variable() -> None:
    from mlflow.cli import server

    (option,) = (one for one in server.params if one.name == "backend_store_uri")
    assert option.envvar == "MLFLOW_BACKEND_STORE_URI"


def test_mlflow_serves_a_moved_home_s_artifacts_from_where_they_are(tmp_path: Path, mlflow_template: Path) -> None:
    home, moved = tmp_path / "home", tmp_path / "moved"
    home.mkdir()
    shutil.copy(mlflow_template, home / "mlflow.db")
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        place = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0"
        connection.execute(place, (str(home / "mlartifacts" / "0"),))
        connection.commit()
    home.rename(moved)
    mlflow_environment(read_settings(home=moved))
    with closing(sqlite3.connect(moved / "mlflow.db")) as connection:
        assert connection.execute("SELECT artifact_location FROM experiments").fetchone() == (
            str(moved / "mlartifacts" / "0"),
        )


def test_server_worker_and_watcher_have_the_password_and_mlflow_has_not(
    tmp_path: Path, services: dict[str, Service]
) -> None:
    auth = auth_string(tmp_path, {})
    for name in ("prefect", "worker", "watcher"):
        assert services[name].environment[SERVER_AUTH] == services[name].environment[CLIENT_AUTH] == auth
    assert auth not in services["mlflow"].environment.values()


def test_an_operators_password_is_given_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_AUTH, "ops:own")
    for service in services_of(read_settings(home=tmp_path)):
        if service.name != "mlflow":
            assert service.environment[SERVER_AUTH] == service.environment[CLIENT_AUTH] == "ops:own"


def test_prefects_pages_speak_to_where_they_came_from(services: dict[str, Service]) -> None:
    assert services["prefect"].environment["PREFECT_SERVER_UI_API_URL"] == "/api"
