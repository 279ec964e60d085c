"""One-time logins: a token in a link, its hash in the stack's folder, taken away by the first who shows the token."""

from __future__ import annotations

import hashlib
import secrets
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

from esci_tournament.deployments.stack.access import write_private
from esci_tournament.deployments.stack.state import stack_folder
from esci_tournament.registry.errors import UsageError

LOGIN_S = 600.0  # seconds from the making of a link until it is void
LOGIN_PATH = "/tournament/login"
START_PAGE = "/v2/"


def login_folder(home: Path) -> Path:
    """Return the folder of the hashes, which only its owner enters, made if missing.

    Raises:
        StoreError: if the home cannot be written.
    """
    folder = stack_folder(home) / "logins"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def login_link(home: Path, api: str, to: str = START_PAGE) -> str:
    """Make a token and return the address that logs a browser in with it, once and for :data:`LOGIN_S` seconds.

    The token stands behind a `#`: browsers do not send that part, so that no server or proxy writes it to a log.
    Nothing in the address means anything to a shell.

    Args:
        home: Home of the stack.
        api: Address of its Prefect API.
        to: Page that the browser is led to, an address or a path on the same server.

    Returns:
        The address, for one person: whoever opens it first has the password.

    Raises:
        StoreError: if the home cannot be written.
    """
    token = make_login(login_folder(home))
    return f"{api.removesuffix('/api')}{LOGIN_PATH}#{token}:{quote(path_of(to), safe='/')}"


def path_of(address: str) -> str:
    """Return the part of an address that stands behind the server's name.

    Args:
        address: An address or a path.

    Raises:
        UsageError: if it is no address.

    Example:
        >>> path_of("http://127.0.0.1:4200/v2/runs/flow-run/7?tab=Logs")
        '/v2/runs/flow-run/7?tab=Logs'
        >>> path_of("")
        '/v2/'
    """
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise UsageError(f"{address!r} is no address of a page: {error}") from error
    path = "/" + parts.path.lstrip("/") + (f"?{parts.query}" if parts.query else "")
    return START_PAGE if path == "/" else path


def make_login(folder: Path, seconds: float = LOGIN_S) -> str:
    """Return a new token; its hash and the moment of its end are kept, those of others that have ended are removed.

    Args:
        folder: Where the hashes are, see :func:`login_folder`.
        seconds: How long it is valid.
    """
    for old in folder.iterdir():
        with suppress(OSError, ValueError):
            if not _is_valid(old.read_text(encoding="ascii")):
                old.unlink()
    token = secrets.token_urlsafe(32)
    write_private(folder / _hash(token), f"{time.monotonic() + seconds!r} {_boot()}")
    return token


def take_login(folder: Path, token: str) -> bool:
    """Tell whether a token is valid, and make it void.

    Of two that show the same token at once one is told True: the one whose removal of the file succeeds.

    Args:
        folder: Where the hashes are.
        token: What was shown, any text.

    Returns:
        Whether it was made here, has not ended and was not shown before.
    """
    place = folder / _hash(token)
    try:
        said = place.read_text(encoding="ascii")
        place.unlink()
        return _is_valid(said)
    except (OSError, ValueError):
        return False


def _is_valid(said: str) -> bool:
    """Tell whether the end of a login is to come; it is of the clock that runs since the boot, which nobody sets."""
    end, _, boot = said.partition(" ")
    return float(end) - time.monotonic() > 0 and boot == _boot()


def _boot() -> str:
    """Return what changes when the machine is booted, "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", errors="replace")).hexdigest()
