"""Proof of who a reviewer is: the user of the process, or a one-time code of an authenticator app (RFC 6238).

Prefect has one password for everybody, so a name that is typed into its form proves nothing. A reviewer whom the
policy names enrols once (`tournament policy enrol NAME`), and gives a code with each answer from then on.
"""

from __future__ import annotations

import datetime as dt
import hmac
import time
from typing import TYPE_CHECKING, Literal

import pyotp

from esci_tournament.registry import tables
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.files import digest_of
from esci_tournament.registry.policy import person
from esci_tournament.registry.processes import process_user

if TYPE_CHECKING:
    from esci_tournament.registry.ledger import Ledger

Proof = Literal["process", "code", "word"]

STEP_S = 30  # seconds that a code lasts; the one before and the one after are accepted too, for clocks that differ
REFUSED = "code_refused"  # kind of event; subject: the person
TRIES, TRIES_S = 5, 900.0  # wrong codes of a person within so many seconds, after which none is accepted


def enrol(ledger: Ledger, name: str) -> str:
    """Give a reviewer a new secret, in place of the one before.

    Args:
        ledger: The ledger.
        name: The reviewer, as the policy names them.

    Returns:
        The secret as an `otpauth://` address, which authenticator apps read.

    Raises:
        UsageError: If the name is blank.
    """
    if not person(name):
        raise UsageError("the reviewer's name is missing")
    secret = pyotp.random_base32()
    with ledger.writing() as rows:
        rows.insert(tables.enrolments, {"person": person(name)}, {"secret": secret})
    return pyotp.TOTP(secret, interval=STEP_S).provisioning_uri(name=name.strip(), issuer_name="esci-tournament")


def withdraw(ledger: Ledger, name: str) -> None:
    """Let no code of a reviewer be accepted from here on."""
    with ledger.writing() as rows:
        rows.insert(tables.enrolments, {"person": person(name)}, {"secret": None})


def enrolled(ledger: Ledger) -> set[str]:
    """Return the persons who have a secret."""
    with ledger.reading() as rows:
        secrets = {row["person"]: row["payload"]["secret"] for row in rows.all(tables.enrolments)}
    return {name for name, secret in secrets.items() if secret}


def proof_of(ledger: Ledger, name: str, code: str, mark: str, from_process: bool) -> Proof:
    """Return what proves that a reviewer is who they say; a code is used up by it.

    Args:
        ledger: The ledger.
        name: The reviewer, as typed.
        code: Six digits, "" for none.
        mark: The answer that it is given with; given again after a kill, the same answer may use the code again.
        from_process: Whether the answer comes from a process of the reviewer's own, as on the command line; then its
            user is proof of itself.

    Returns:
        "process", "code", or "word" when there is nothing but the name.

    Raises:
        UsageError: if there is a code, and it is wrong, used up, or of a person who has none.
    """
    if code.strip():
        _use(ledger, person(name), code.strip(), mark)
        return "code"
    return "process" if from_process and person(process_user()) == person(name) else "word"


def _use(ledger: Ledger, name: str, code: str, mark: str) -> None:
    now = time.time()
    since = dt.datetime.fromtimestamp(now - TRIES_S, dt.UTC)
    refusals = [one for one in ledger.events(kind=REFUSED) if one.subject == name and one.at > since]
    if len(refusals) >= TRIES:
        raise UsageError(f"{TRIES} wrong codes were given for {name}; wait {TRIES_S / 60:g} minutes")
    with ledger.writing() as rows:
        secrets = rows.all(tables.enrolments, person=name)
        secret = secrets[-1]["payload"]["secret"] if secrets else None
        used = {row["step"]: row["payload"]["code"] for row in rows.all(tables.used_codes, person=name)}
        given = digest_of([mark, code])
        if given in used.values():
            return
        step = _step_of(secret, code, int(now // STEP_S)) if secret else None
        if step is not None and step not in used:
            rows.insert(tables.used_codes, {"person": name, "step": step}, {"code": given})
            return
    ledger.record_event(REFUSED, name)
    raise UsageError(f"the code of {name} is wrong or was used before; give the one that the app shows now")


def _step_of(secret: str, code: str, now: int) -> int | None:
    """Return the time step whose code this is, None when it is of none that is accepted now."""
    app = pyotp.HOTP(secret)
    return next((step for step in (now, now - 1, now + 1) if hmac.compare_digest(app.at(step), code)), None)
