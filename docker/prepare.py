"""Prepare the stores for the services, as their owner: the only service that may change rights in them.

It makes or migrates the ledger's tables and says which database role may do what (postgres/grants.sql), takes over the
first policy from the settings, gives the services users of MLflow that are no administrators, and subscribes the
watcher to MLflow's events. Safe to run again: what is there is brought up to date.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import psycopg

from esci_tournament.registry.errors import TournamentError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.policies import govern
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.webhooks import ensure_webhook, webhook_secret

WORKSPACE = "default"
# Users and what they may do beyond reading, which `default_permission` gives to everybody: kind, which of it, how much.
# Versions are managed because removing a tag deletes something of a version, and the ensemble because of its aliases.
USERS = {
    "tournament": (
        ("registered_model", "*", "EDIT"),
        ("registered_model", "{ensemble}", "MANAGE"),
        ("registered_model_version", "*", "MANAGE"),
        ("experiment", "*", "EDIT"),
    ),
    "scorer": (),
}


def grants() -> Path:
    """Return grants.sql, beside this file in the image, in postgres/ in the repository."""
    here = Path(__file__).parent
    return next(path for path in (here / "grants.sql", here / "postgres" / "grants.sql") if path.exists())


def prepare_ledger(settings: Settings) -> None:
    """Make or migrate the tables, give the roles their rights, and record the first policy.

    Args:
        settings: `ledger_url` is PostgreSQL, with the name of the database's owner.
    """
    assert settings.ledger_url is not None
    with Ledger.open(settings.ledger_url) as ledger:
        with psycopg.connect(settings.ledger_url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(grants().read_bytes())
        govern(ledger, settings, has_api=True)


class Accounts:
    """The users and roles of an MLflow server, as an administrator.

    Args:
        server: http(s) address.
        name: The administrator.
        password: Their password.
    """

    def __init__(self, server: str, name: str, password: str) -> None:
        self.client = httpx.Client(base_url=server.rstrip("/"), auth=(name, password), timeout=60)

    def ask(self, path: str, **parameters: Any) -> dict[str, Any]:
        """Return what MLflow answers to a question."""
        return self.client.get(f"/api/{path}", params=parameters).raise_for_status().json()

    def tell(self, path: str, verb: str = "POST", **content: Any) -> dict[str, Any]:
        """Change something, and return what MLflow answers."""
        answer = self.client.request(verb, f"/api/{path}", json=content).raise_for_status()
        return answer.json() if answer.content else {}

    def put_user(self, name: str, password: str) -> None:
        """Make a user, or set the password again; one that is an administrator ends the program."""
        found = self.client.get("/api/2.0/mlflow/users/get", params={"username": name})
        if found.status_code == 404:
            self.tell("2.0/mlflow/users/create", username=name, password=password)
            return
        if found.raise_for_status().json()["user"]["is_admin"]:
            sys.exit(f"MLflow's user {name} is an administrator: take that away on its admin page")
        self.tell("2.0/mlflow/users/update-password", "PATCH", username=name, password=password)

    def put_role(self, user: str, permissions: Iterable[tuple[str, str, str]]) -> None:
        """Give a user a role of its own that has these permissions: kind of resource, which of it, how much."""
        name = f"service {user}"
        roles = {one["name"]: one["id"] for one in self.ask("3.0/mlflow/roles/list", workspace=WORKSPACE)["roles"]}
        if name not in roles:
            made = self.tell("3.0/mlflow/roles/create", workspace=WORKSPACE, name=name, description="docker/prepare.py")
            roles[name] = made["role"]["id"]
        keys = ("resource_type", "resource_pattern", "permission")
        held = self.ask("3.0/mlflow/roles/permissions/list", role_id=roles[name])["role_permissions"]
        for permission in set(permissions) - {tuple(one[key] for key in keys) for one in held}:
            content = dict(zip(keys, permission, strict=True))
            self.tell("3.0/mlflow/roles/permissions/add", role_id=roles[name], **content)
        assigned = self.ask("3.0/mlflow/users/roles/list", username=user)["roles"]
        if roles[name] not in {one["id"] for one in assigned}:
            self.tell("3.0/mlflow/roles/assign", username=user, role_id=roles[name])


def prepare_users(accounts: Accounts, passwords: Mapping[str, str], ensemble: str) -> None:
    """Make the services' users, or set their passwords again, and let them do what they do.

    Args:
        accounts: Those of the MLflow server.
        passwords: Password of each of `USERS`.
        ensemble: Registered model that holds the champion.
    """
    for name, permissions in USERS.items():
        accounts.put_user(name, passwords[name])
        if permissions:
            accounts.put_role(name, [(kind, of.format(ensemble=ensemble), much) for kind, of, much in permissions])


def main() -> None:
    """Prepare what the settings and the environment name."""
    try:
        settings = read_settings()
        prepare_ledger(settings)
        passwords = {name: os.environ.pop(f"MLFLOW_PASSWORD_{name.upper()}") for name in USERS}
        administrator = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
        prepare_users(Accounts(settings.tracking_uri, *administrator), passwords, settings.ensemble_name)
        if settings.webhook_url:
            ensure_webhook(settings.tracking_uri, settings.webhook_url, webhook_secret(settings))
    except (TournamentError, httpx.HTTPError, psycopg.Error) as error:
        sys.exit(f"the stores are not ready: {error}")
    print("the ledger, its roles, MLflow's users and its webhook are ready")


if __name__ == "__main__":
    main()
