"""What the stack consists of: each service's command, environment and sign of health."""

from __future__ import annotations

import base64
import datetime as dt
import json
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from esci_tournament.deployments.stack.access import (
    CLIENT_AUTH,
    SERVER_AUTH,
    auth_string,
    authorization,
    kept_secret,
)
from esci_tournament.deployments.stack.logins import login_folder
from esci_tournament.registry.processes import module_path, python_module
from esci_tournament.registry.settings import Settings

PROBE_S = 3.0  # an answer that takes longer is no sign of health
Health = Callable[[float], bool]  # a moment, seconds since 1970 -> whether the service answers, or has since then


@dataclass(frozen=True)
class Service:
    """One program of the stack.

    Attributes:
        name: what it is called in words, logs and state.
        command: arguments of the process.
        environment: variables beside those of the supervisor.
        health: its sign of health.
        address: where people reach it, "" when there is nothing to see.
        port: what it listens on, None for nothing.
        setting: the setting that the port comes from.
        after: services that must be healthy before it is started.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: Health
    address: str = ""
    port: int | None = None
    setting: str = ""
    after: tuple[str, ...] = field(default=())


def services_of(settings: Settings) -> list[Service]:
    """Return the services of the stack in order of start; MLflow is left out when the settings name a server of it."""
    ours = environment_of(settings) | module_path()
    common = ours | prefect_environment(settings)
    api, here = api_url(settings), reachable(settings.host)
    services = [
        Service(
            name="prefect",
            command=(
                *python_module("esci_tournament.deployments.prefect_server", "start", "--analytics-off"),
                *("--host", settings.host, "--port", str(settings.prefect_port)),
                *("--login-folder", str(login_folder(settings.home))),
            ),
            environment=common,
            health=lambda _: _answers(f"{api}/health"),
            address=f"http://{here}:{settings.prefect_port}/v2",
            port=settings.prefect_port,
            setting="prefect_port",
        )
    ]
    if not settings.tracking_uri.startswith(("http://", "https://")):
        services.append(
            Service(
                name="mlflow",
                command=mlflow_command(settings),
                environment=ours | mlflow_environment(settings),
                health=lambda _: _answers(f"http://{reachable(settings.host)}:{settings.mlflow_port}/health"),
                address=f"http://{here}:{settings.mlflow_port}",
                port=settings.mlflow_port,
                setting="mlflow_port",
            )
        )
        common = common | {"TOURNAMENT_MLFLOW_UI": settings.mlflow_ui or services[-1].address}
    ready = tuple(service.name for service in services)
    services.append(
        Service(
            name="worker",
            command=tuple(python_module("esci_tournament.deployments.worker")),
            environment=common,
            health=lambda started: _polls(api, common[CLIENT_AUTH], "tournament/tournament", started),
            after=ready,
        )
    )
    services.append(
        Service(
            name="watcher",
            command=tuple(python_module("esci_tournament.deployments.watcher")),
            environment=common,
            health=lambda _: _answers(f"http://{here}:{settings.watcher_port}/healthz"),
            address=f"http://{here}:{settings.watcher_port}/healthz",
            port=settings.watcher_port,
            setting="watcher_port",
            after=ready,
        )
    )
    return services


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the variables that make `read_settings` give these settings in another process, whatever its folder."""
    said = settings.model_dump(mode="json", include=settings.model_fields_set | {"home"})
    return {
        f"TOURNAMENT_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in said.items()
        if value is not None
    }


def prefect_environment(settings: Settings) -> dict[str, str]:
    """Return Prefect's variables, the same for its server and for whoever speaks to it; the password is among them."""
    auth = auth_string(settings.home)
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_API_URL": api_url(settings),
        SERVER_AUTH: auth,
        CLIENT_AUTH: auth,
        # Where the page came from, under whatever name: only its own origin may speak to the API.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        # In memory, the default, a restart of the server would leave leased slots taken for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


def mlflow_command(settings: Settings) -> tuple[str, ...]:
    """Return the command of the MLflow server.

    The database's address, which may hold a password, is in :func:`mlflow_environment`: everybody on the machine reads
    what stands on a command line.
    """
    # Artifacts lie in the home under plain paths: whoever uses the database directly finds them too.
    artifacts = (settings.home / "mlartifacts").as_uri()
    return (
        *python_module("mlflow", "server"),
        *("--default-artifact-root", artifacts, "--artifacts-destination", artifacts),
        *("--host", settings.host, "--port", str(settings.mlflow_port), "--workers", "1"),
    )


def mlflow_environment(settings: Settings) -> dict[str, str]:
    """Return MLflow's variables: the very database that the command line uses, and webhooks to this machine."""
    return {
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": _encryption_key(settings.home),
    }


def api_url(settings: Settings) -> str:
    """Return the address of the Prefect API that the stack runs."""
    return f"http://{reachable(settings.host)}:{settings.prefect_port}/api"


def reachable(host: str) -> str:
    """Return an address that a server listening on `host` is reached under from this machine."""
    if _is_everywhere(host):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server that listens on `host`."""
    return host in ("localhost", "::1") or host.startswith("127.")


def who_listens(host: str, port: int) -> str:
    """Return who keeps `port` from being listened on, "" when it is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return ""
        except OSError as error:
            return _owner(port) or error.strerror or str(error)


def _owner(port: int) -> str:
    import psutil

    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid:
                return f"process {each.pid} ({psutil.Process(each.pid).name()})"
    except psutil.Error:
        pass
    return ""


def _is_everywhere(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=PROBE_S).status_code == 200
    except httpx.HTTPError:
        return False


def _polls(api: str, auth: str, deployment: str, started: float) -> bool:
    """Tell whether somebody has asked for runs of a deployment since `started`."""
    try:
        answer = httpx.get(f"{api}/deployments/name/{deployment}", timeout=PROBE_S, headers=authorization(auth))
    except httpx.HTTPError:
        return False
    polled = answer.json().get("last_polled") if answer.status_code == 200 else None
    return polled is not None and dt.datetime.fromisoformat(polled).timestamp() > started


def _encryption_key(home: Path) -> str:
    """Return the key under which MLflow keeps webhook secrets."""
    return kept_secret(home, "webhook.key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
