"""The production stack's files: compose against its schema, the image with hadolint, roles against their secrets.

`compose_spec.json` is the Compose Specification's schema as Docker Compose 1.29.2 carries it (Apache-2.0).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from esci_tournament.registry.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
OURS = {"prefect", "mlflow", "prepare", "deploy", "worker", "reviewer", "watcher", "scorer"}


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read("compose.yaml")


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml", "compose.monitoring.yaml"])
def test_it_is_valid_by_the_schema(name: str) -> None:
    schema = json.loads((Path(__file__).parent / "compose_spec.json").read_text(encoding="utf-8"))
    jsonschema.Draft201909Validator(schema).validate(read(name))


def test_every_part_of_the_stack_is_there_and_is_watched(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == OURS | {"postgres", "redis"}
    for name, service in services.items():
        assert service["restart"] in ("unless-stopped", "on-failure"), name
        assert service["healthcheck"].get("test") or name in ("prepare", "deploy"), name


def test_whoever_waits_waits_for_something_that_can_be_waited_for(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, words in service.get("depends_on", {}).items():
            if words["condition"] == "service_healthy":
                assert services[other]["healthcheck"].get("test"), f"{name} waits for the health of {other}"
            else:
                assert (other in ("prepare", "deploy"), words["condition"]) == (True, "service_completed_successfully")


def test_every_secret_is_a_file_that_must_be_named(compose: dict[str, Any]) -> None:
    for name, secret in compose["secrets"].items():
        assert re.fullmatch(r"\$\{SECRETS:\?[^}]+\}/" + name, secret["file"])
    given = {name for service in compose["services"].values() for name in service.get("secrets", [])}
    assert given == set(compose["secrets"])


def test_nothing_has_a_password_by_default(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            secretive = re.search("PASSWORD|SECRET|AUTH_STRING|_KEY$", variable)
            assert not secretive or value.startswith("/run/secrets/"), f"{name}: {variable}"
    every = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    for variable in ("SECRETS", "ESCI_DATA"):
        asked = re.findall(r"\$\{" + variable + r"(.*?)\}", every)
        assert asked
        assert all(words.startswith(":?") for words in asked), f"{variable} may be missing without a word"


def test_every_service_of_the_product_has_the_same_settings(compose: dict[str, Any]) -> None:
    for name in OURS - {"prefect", "mlflow"}:
        assert compose["services"][name]["env_file"] == "tournament.env"
    lines = (DOCKER / "tournament.env").read_text(encoding="utf-8").splitlines()
    named = [line.lstrip("#").partition("=")[0] for line in lines if "=" in line]
    assert named
    assert {name.removeprefix("TOURNAMENT_").lower() for name in named} <= set(Settings.model_fields)


def test_only_loopback_is_published_unless_told(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("${PUBLISH:-127.0.0.1}:") for port in service.get("ports", []))


def test_the_secrets_that_are_made_are_those_that_are_asked_for(compose: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "secrets"
    for _ in range(2):  # what is there stays
        subprocess.run([DOCKER / "make-secrets.sh", place], check=True, stdout=subprocess.DEVNULL)
        made = {path.name: path.read_text(encoding="utf-8") for path in place.iterdir()}
    of_scorer = {"metrics_key"}  # an API key: `tournament keys create` makes it
    assert set(made) == (set(compose["secrets"]) | set(read("compose.monitoring.yaml")["secrets"])) - of_scorer
    assert len(set(made.values())) == len(made)
    assert all(len(secret) >= 44 for secret in made.values())
    assert made == {path.name: path.read_text(encoding="utf-8") for path in place.iterdir()}
    assert place.stat().st_mode & 0o077 == 0


def test_a_role_asks_for_exactly_the_secrets_that_its_service_has(compose: dict[str, Any], tmp_path: Path) -> None:
    sys.path.insert(0, str(DOCKER))
    try:
        import entrypoint
    finally:
        sys.path.remove(str(DOCKER))
    for service in OURS:
        (role,) = compose["services"][service]["command"]
        asked: set[str] = set()

        class Asked(entrypoint.Secrets):
            def __getitem__(self, name: str, asked: set[str] = asked) -> str:
                asked.add(name)
                return f"a {name}"

        assert role in entrypoint.COMMANDS
        entrypoint.environment(role, Asked(tmp_path), {})
        assert asked == set(compose["services"][service]["secrets"]), service


def test_only_what_prepares_the_stores_has_their_owners_secrets(compose: dict[str, Any]) -> None:
    owners = {"postgres_password", "ledger_db_password", "mlflow_admin_password"}
    holders = {name for name, service in compose["services"].items() if owners & set(service.get("secrets", []))}
    assert holders == {"postgres", "mlflow", "prepare"}
    for name in ("worker", "reviewer", "watcher", "scorer", "prepare"):
        assert compose["services"][name]["environment"]["SERVICE"] == name


def start(*arguments: str, secrets: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DOCKER / "entrypoint.py", *arguments],
        env={"PATH": str(Path(sys.executable).parent), "SECRETS": str(secrets)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_missing_or_empty_secret_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    (tmp_path / "ledger_worker_db_password").write_text("")
    empty = start("worker", secrets=tmp_path)
    assert empty.returncode == 1
    assert empty.stderr.startswith("secret ledger_worker_db_password: ")
    assert "is empty" in empty.stderr
    (tmp_path / "ledger_worker_db_password").write_text("x")
    missing = start("worker", secrets=tmp_path)
    assert missing.stderr.startswith("secret mlflow_tournament_password: ")
    assert "cannot be read" in missing.stderr


def test_the_program_has_its_secrets_in_its_environment_and_none_on_its_command_line(tmp_path: Path) -> None:
    for name in ("ledger_worker_db_password", "mlflow_tournament_password", "prefect_auth"):
        (tmp_path / name).write_text(f"{name} p@ss:/%\n")
    show = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv]))"
    done = start("python", "-c", show, secrets=tmp_path, POSTGRES_HOST="db:5433")
    environment, arguments = json.loads(done.stdout)
    assert environment["TOURNAMENT_LEDGER_URL"] == (
        "postgresql+psycopg://ledger_worker:ledger_worker_db_password%20p%40ss%3A%2F%25@db:5433/ledger"
    )
    assert environment["MLFLOW_TRACKING_PASSWORD"] == "mlflow_tournament_password p@ss:/%"
    assert not any("p@ss" in argument or "p%40ss" in argument for argument in arguments)


@pytest.mark.parametrize("file", ["Dockerfile"])
def test_the_image_has_no_complaint_of_hadolint(file: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (its wheel is for Linux on x86-64)")
    done = subprocess.run([hadolint, DOCKER / file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody_in_particular() -> None:
    lines = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    runtime = lines[lines.index("FROM ${PYTHON} AS runtime") :]
    assert [line for line in runtime if line.startswith("USER ")] == ["USER 10001:10001"]
    assert any(line.startswith("HEALTHCHECK ") for line in runtime)


@pytest.mark.parametrize("script", sorted(DOCKER.rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_posix(script: Path) -> None:
    assert script.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", script], check=True, timeout=10)
