"""The services of the stack: command, environment and health check of each."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from esci_tournament.deployments.heartbeats import heartbeat_environment
from esci_tournament.deployments.stack.access import (
    CLIENT_AUTH,
    SERVER_AUTH,
    auth_string,
    authorization,
    database_variables,
    kept_secret,
)
from esci_tournament.deployments.stack.logins import login_folder
from esci_tournament.registry.addresses import sqlite_file
from esci_tournament.registry.processes import module_path, python_module
from esci_tournament.registry.relocation import ARTIFACTS, settle
from esci_tournament.registry.settings import Settings

PROBE_S = 3.0  # timeout of a health check
Health = Callable[[float], bool]  # a moment, seconds since 1970 -> whether the service answers, or has since then


@dataclass(frozen=True)
class Service:
    """One program of the stack.

    Attributes:
        name: its name in messages, log files and the state file.
        command: program and arguments of the process.
        environment: variables that are added to those of the supervisor.
        health: health check, called with a moment in seconds since 1970; returns whether the service answers or, for
            one without a port, has shown activity since that moment.
        address: URL for people, "" when there is nothing to see.
        port: TCP port that it listens on, None for none.
        setting: name of the setting that the port comes from, "" for none.
        after: names of the services that must be healthy before it is started.
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
    """Return the services of the stack in the order of their start.

    Args:
        settings: home, host, ports and stores.

    Returns:
        prefect, mlflow, worker and watcher; mlflow is left out when `mlflow_uri` names an MLflow server.

    Raises:
        StoreError: if the home cannot be written.
    """
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
    """Return the environment variables that make `read_settings` return these settings in another process.

    Args:
        settings: those to hand on. Settings that were left at their default are left out, the home excepted.

    Returns:
        `TOURNAMENT_<NAME>` -> value, as JSON where it is not text.
    """
    said = settings.model_dump(mode="json", include=settings.model_fields_set | {"home"})
    return {
        f"TOURNAMENT_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in said.items()
        if value is not None
    }


def prefect_environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables of Prefect's server and of its clients; the password is among them."""
    auth = auth_string(settings.home)
    return {
        "PREFECT_HOME": str(settings.home / "prefect"),
        **database_variables(settings.home),
        "PREFECT_API_URL": api_url(settings),
        SERVER_AUTH: auth,
        CLIENT_AUTH: auth,
        # Where the page came from, under whatever name: only its own origin may speak to the API.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        **heartbeat_environment(),
        # With the default (in memory), leased slots would stay taken forever after a restart of the server.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


def mlflow_command(settings: Settings) -> tuple[str, ...]:
    """Return the command of the MLflow server.

    The database's address, which may hold a password, is in :func:`mlflow_environment`: a command line can be read by
    every user of the machine.
    """
    # Artifacts lie in the home under plain paths, so that clients of the database itself find them too.
    artifacts = (settings.home / ARTIFACTS).as_uri()
    return (
        *python_module("mlflow", "server"),
        *("--default-artifact-root", artifacts, "--artifacts-destination", artifacts),
        *("--host", settings.host, "--port", str(settings.mlflow_port), "--workers", "1"),
    )


def mlflow_environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables of the MLflow server: its database, webhooks to this machine, no telemetry.

    The server hands out the addresses that its database has, so those of a moved home are put right before it starts.

    Args:
        settings: `home`, in which the key that encrypts webhook secrets is made at the first call, and the database.

    Returns:
        Variable -> value.

    Raises:
        StoreError: if the home cannot be written.
    """
    if (database := sqlite_file(settings.tracking_uri)) is not None:
        settle(database, settings.home)
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
    """Return the host part of a URL at which this machine reaches a server that listens on `host`.

    Args:
        host: address to listen on, such as "0.0.0.0"; an IPv6 address without brackets.

    Returns:
        The host; loopback for a server that listens everywhere, and IPv6 in brackets.

    Example:
        >>> reachable("0.0.0.0"), reachable("::1"), reachable("192.168.1.7")
        ('127.0.0.1', '[::1]', '192.168.1.7')
    """
    if _is_everywhere(host):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Tell whether a server that listens on `host` is reachable from this machine only.

    Returns:
        True for "localhost" and the addresses of loopback, "::1" and those of 127.0.0.0/8; not for a name that begins
        like one.

    Example:
        >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("0.0.0.0"), is_loopback("127.0.0.1.example")
        (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def who_listens(host: str, port: int) -> str:
    """Return what keeps a TCP port from being used, "" when it is free.

    Args:
        host: address to listen on.
        port: port to listen on.

    Returns:
        The process that listens on it, such as "process 4711 (python)"; the system's message when that is not known.
    """
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
    """Tell whether a worker has asked for runs of a deployment since `started`."""
    try:
        answer = httpx.get(f"{api}/deployments/name/{deployment}", timeout=PROBE_S, headers=authorization(auth))
    except httpx.HTTPError:
        return False
    polled = answer.json().get("last_polled") if answer.status_code == 200 else None
    return polled is not None and dt.datetime.fromisoformat(polled).timestamp() > started


def _encryption_key(home: Path) -> str:
    """Return the key under which MLflow keeps webhook secrets."""
    return kept_secret(home, "webhook.key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
