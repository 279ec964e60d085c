"""Start one role of the production stack: read its secrets from files, then exec its program.

`entrypoint.py ROLE [ARGUMENTS...]`. A command that is not a role is run as it is, with the secrets of a client. A
missing secret ends the program with its name. Uses only the standard library; secrets are never put on a command line.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

WORKER = ("prefect", "worker", "start", "--type", "process", "--with-healthcheck", "--pool")

COMMANDS = {
    "prefect-server": ("python", "-m", "esci_tournament.deployments.prefect_server", "start", "--host", "0.0.0.0"),
    "mlflow-server": (
        *("mlflow", "server", "--app-name", "basic-auth", "--host", "0.0.0.0", "--port", "5000", "--workers", "2"),
        *("--artifacts-destination", "/var/lib/mlflow/artifacts"),
    ),
    # Read from the environment: a password on the command line would be visible to every user of the host.
    "mlflow-upgrade": (
        *("python", "-c"),
        "import os; from mlflow.cli import cli; cli(['db', 'upgrade', os.environ['MLFLOW_BACKEND_STORE_URI']])",
    ),
    "worker": (*WORKER, "tournaments"),
    "reviewer": (*WORKER, "reviews"),
    "watcher": ("python", "-m", "esci_tournament.deployments.watcher"),
    "scorer": ("tournament", "serve"),
    "prepare": ("python", "/opt/docker/prepare.py"),
    "deploy": ("tournament", "deploy"),
}

# Database role of the ledger and user of MLflow of each service; a command has those of the service it is run in.
# Those of `prepare` own the ledger and administer MLflow: it runs once, and the operator's commands. The watcher runs
# nobody else's code and reads every table, as reviewers do.
CLIENTS = {
    "prepare": ("ledger", "admin"),
    "worker": ("ledger_worker", "tournament"),
    "reviewer": ("ledger_reviewer", "tournament"),
    "watcher": ("ledger_reviewer", "tournament"),
    "scorer": ("ledger_scorer", "scorer"),
}
SERVICE_USERS = sorted({user for _, user in CLIENTS.values()} - {"admin"})

MLFLOW_AUTH = """\
[mlflow]
default_permission = READ
database_uri = {database}
admin_username = {name}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


class Secrets:
    """The secrets in a folder, one file each; a missing or empty one ends the program with its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> str:
        try:
            content = (self.folder / name).read_text(encoding="utf-8").strip()
        except OSError as error:
            sys.exit(f"secret {name}: {self.folder / name} cannot be read ({error.strerror}); docs/production.md")
        if not content:
            sys.exit(f"secret {name}: {self.folder / name} is empty; docs/production.md says how to make it")
        return content


def environment(role: str, secrets: Secrets, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that a role needs in addition to the given ones."""
    host = given.get("POSTGRES_HOST", "postgres")

    def database(kind: str, name: str, user: str) -> str:
        return f"postgresql+{kind}://{user}:{quote(secrets[f'{user}_db_password'], safe='')}@{host}/{name}"

    if role == "prefect-server":
        return {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database("asyncpg", "prefect", "prefect"),
            "PREFECT_SERVER_API_AUTH_STRING": secrets["prefect_auth"],
            "PREFECT_API_AUTH_STRING": secrets["prefect_auth"],
        }
    if role in ("mlflow-server", "mlflow-upgrade"):
        name = given.get("MLFLOW_ADMIN", "admin")
        store = database("psycopg", "mlflow", "mlflow")
        return {
            "MLFLOW_BACKEND_STORE_URI": store,
            "MLFLOW_AUTH_CONFIG_PATH": str(_private(MLFLOW_AUTH, database=store, name=name)),
            "MLFLOW_AUTH_ADMIN_PASSWORD": secrets["mlflow_admin_password"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets["mlflow_csrf_key"],
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": secrets["mlflow_webhook_key"],
        }
    if role == "deploy":
        return {"PREFECT_API_AUTH_STRING": secrets["prefect_auth"]}
    service = role if role in CLIENTS else given.get("SERVICE", "worker")
    if service not in CLIENTS:
        sys.exit(f"SERVICE is {service!r}; it is one of {', '.join(CLIENTS)}: whose rights a command has")
    account, user = CLIENTS[service]
    variables = {
        "TOURNAMENT_LEDGER_URL": database("psycopg", "ledger", account),
        "MLFLOW_TRACKING_USERNAME": given.get("MLFLOW_ADMIN", user) if service == "prepare" else user,
        "MLFLOW_TRACKING_PASSWORD": secrets[f"mlflow_{user}_password"],
    }
    if service == "prepare":
        passwords = {f"MLFLOW_PASSWORD_{name.upper()}": secrets[f"mlflow_{name}_password"] for name in SERVICE_USERS}
        return variables | passwords | {"TOURNAMENT_WEBHOOK_SECRET": secrets["webhook_secret"]}
    if service == "scorer":
        redis = quote(secrets["redis_password"], safe="")
        return variables | {"TOURNAMENT_CACHE_REDIS_URL": f"redis://:{redis}@{given.get('REDIS_HOST', 'redis')}:6379/0"}
    if service == "watcher":
        variables["TOURNAMENT_WEBHOOK_SECRET"] = secrets["webhook_secret"]
    return variables | {"PREFECT_API_AUTH_STRING": secrets["prefect_auth"]}


def _private(template: str, **values: str) -> Path:
    """Write a file that only this user can read, and return its path."""
    descriptor, place = tempfile.mkstemp(suffix=".ini")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(template.format(**{key: value.replace("%", "%%") for key, value in values.items()}))
    return Path(place)


def main(arguments: list[str]) -> None:
    """Replace this process by the program of a role."""
    if not arguments:
        sys.exit(f"say which role: {', '.join(COMMANDS)}, or a command")
    role, *more = arguments
    folder = Path(os.environ.get("SECRETS", "/run/secrets"))
    command = [*COMMANDS.get(role, (role,)), *more]
    if role in COMMANDS or folder.is_dir():  # `docker run IMAGE tournament --help` needs none
        os.environ |= environment(role, Secrets(folder), os.environ)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
