"""What proves who a reviewer is."""

from __future__ import annotations

from urllib.parse import parse_qs, urlparse

import pyotp
import pytest

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.processes import process_user
from esci_tournament.registry.proof import TRIES, enrol, enrolled, proof_of, withdraw

pytestmark = pytest.mark.databases("sqlite")


def app_of(address: str) -> pyotp.TOTP:
    """Return the authenticator app that has read an address."""
    return pyotp.TOTP(parse_qs(urlparse(address).query)["secret"][0])


def test_a_code_proves_its_reviewer_and_is_used_up(ledger: Ledger) -> None:
    code = app_of(enrol(ledger, "Ana")).now()
    assert proof_of(ledger, " ana@laptop ", code, "gate-1", from_process=False) == "code"
    assert proof_of(ledger, "ana", code, "gate-1", from_process=False) == "code", "the same answer after a kill"
    with pytest.raises(UsageError, match="wrong or was used before"):
        proof_of(ledger, "ana", code, "gate-2", from_process=False)


def test_a_code_of_somebody_else_proves_nothing(ledger: Ledger) -> None:
    enrol(ledger, "ana")
    code = app_of(enrol(ledger, "ben")).now()
    with pytest.raises(UsageError, match="code of ana is wrong"):
        proof_of(ledger, "ana", code, "gate-1", from_process=False)
    with pytest.raises(UsageError, match="code of mallory is wrong"):
        proof_of(ledger, "mallory", code, "gate-1", from_process=False)


def test_a_new_secret_takes_the_place_of_the_one_before_and_a_withdrawn_one_has_none(ledger: Ledger) -> None:
    old = app_of(enrol(ledger, "ana")).now()
    enrol(ledger, "ana")
    with pytest.raises(UsageError):
        proof_of(ledger, "ana", old, "gate-1", from_process=False)
    assert enrolled(ledger) == {"ana"}
    withdraw(ledger, "ana")
    assert enrolled(ledger) == set()


def test_guessing_is_stopped(ledger: Ledger) -> None:
    app = app_of(enrol(ledger, "ana"))
    for number in range(TRIES):
        with pytest.raises(UsageError, match="wrong"):
            proof_of(ledger, "ana", "abcdef", f"gate-{number}", from_process=False)
    with pytest.raises(UsageError, match="wait 15 minutes"):
        proof_of(ledger, "ana", app.now(), "gate-9", from_process=False)


def test_the_user_of_a_process_proves_itself_and_the_environment_does_not(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert proof_of(ledger, process_user().upper(), "", "a", from_process=True) == "process"
    assert proof_of(ledger, process_user(), "", "a", from_process=False) == "word"
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "ana")
    assert proof_of(ledger, "ana", "", "a", from_process=True) == "word"
    assert process_user() != "ana"
