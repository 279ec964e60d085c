"""The password of a home's Prefect server: made once, kept in the stack's folder, used by every command of the home."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from esci_tournament.deployments.stack.state import stack_folder
from esci_tournament.registry.addresses import sqlite_address
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.files import publish

PASSWORD_FILE = "prefect.password"
SERVER_AUTH, CLIENT_AUTH = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
ALLOWED_ORIGINS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
NO_ORIGIN = "https://nobody.invalid"  # RFC 2606: a name that never exists; Prefect takes an empty list for its default
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
USER = "tournament"


def auth_string(home: Path, given: Mapping[str, str] | None = None) -> str:
    """Return what Prefect's server and its clients are given as `name:password`.

    An operator's own, in PREFECT_SERVER_API_AUTH_STRING or PREFECT_API_AUTH_STRING, comes before the home's.

    Args:
        home: Home of the stack; its password is made when it has none.
        given: Environment variables; default: those of this process.

    Raises:
        StoreError: if the home's password can neither be read nor made.
    """
    variables = os.environ if given is None else given
    own = variables.get(SERVER_AUTH) or variables.get(CLIENT_AUTH)
    return own or kept_secret(home, PASSWORD_FILE, lambda: f"{USER}:{secrets.token_urlsafe(32)}")


def database_variables(home: Path, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variable that names the database of a home's Prefect server, where Prefect would misread its path.

    Args:
        home: Home of the stack; Prefect's database is in its folder `prefect`.
        given: Environment variables; default: those of this process. A database that they name stays.

    Returns:
        {} for most homes. Prefect pastes the path into an address as it is, so that percent signs and question marks
        lead elsewhere.
    """
    if DATABASE in (os.environ if given is None else given) or not {"%", "?"} & set(str(home)):
        return {}
    return {DATABASE: sqlite_address(home / "prefect" / "prefect.db", "sqlite+aiosqlite")}


def authorization(auth: str) -> dict[str, str]:
    """Return the header that shows `name:password` to a server.

    Example:
        >>> authorization("tournament:secret")
        {'Authorization': 'Basic dG91cm5hbWVudDpzZWNyZXQ='}
    """
    return {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"}


def kept_secret(home: Path, name: str, make: Callable[[], str]) -> str:
    """Return a secret of the stack, made once and readable by its owner alone.

    Args:
        home: Home of the stack.
        name: Name of the file in the stack's folder.
        make: Called without arguments for a new secret, in ASCII, when there is none.

    Raises:
        StoreError: if it can neither be read nor made.
    """
    place = stack_folder(home) / name
    try:
        with FileLock(f"{place}.lock"):  # of two that start at once, one makes it and both read the same
            with suppress(FileNotFoundError):
                if place.stat().st_mode & 0o077:  # copied by somebody who did not keep its mode
                    place.chmod(0o600)
                if secret := place.read_text(encoding="ascii").strip():
                    return secret
            secret = make()
            fresh = place.with_name(f".{name}.new")
            fresh.unlink(missing_ok=True)
            write_private(fresh, secret)
            publish(fresh, place)
            return secret
    except (OSError, ValueError) as error:
        raise StoreError(f"{place} cannot be used: {error}; remove it, and it is made anew") from error


def write_private(place: Path, content: str) -> None:
    """Write a new file that only its owner reads (mode 0600); FileExistsError if it is there."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(content)


def name_server(home: Path, api: str, variables: MutableMapping[str, str] | None = None) -> None:
    """Name the Prefect server of a home, and its password, to Prefect's client; call it before Prefect's import.

    Where the environment names another server, nothing is changed: it must not be told this home's password.

    Args:
        home: Home of the stack.
        api: Address of its Prefect API.
        variables: Environment variables that are changed; default: those of this process.

    Raises:
        StoreError: if the home's password can neither be read nor made.
    """
    known = os.environ if variables is None else variables
    if known.setdefault("PREFECT_API_URL", api).rstrip("/") == api.rstrip("/"):
        known.setdefault(CLIENT_AUTH, auth_string(home, known))


def protect_embedded(home: Path) -> None:
    """Give the temporary server that Prefect starts for one command the home's password, and no foreign origin.

    It listens on this machine for as long as the command runs, on the database of the home: a page in a browser could
    speak to it otherwise.

    Raises:
        StoreError: if the home's password can neither be read nor made.
    """
    auth = auth_string(home)
    for name in (SERVER_AUTH, CLIENT_AUTH):
        os.environ[name] = os.environ.get(name) or auth
    os.environ.setdefault(ALLOWED_ORIGINS, NO_ORIGIN)
