"""The password of a home: made once, read by its owner alone, told to nobody but the home's own server."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from esci_tournament.deployments.stack.access import (
    ALLOWED_ORIGINS,
    CLIENT_AUTH,
    NO_ORIGIN,
    PASSWORD_FILE,
    SERVER_AUTH,
    auth_string,
    name_server,
    protect_embedded,
)
from esci_tournament.registry.errors import StoreError

API = "http://127.0.0.1:4200/api"


def test_it_is_made_once_by_whoever_comes_first_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: auth_string(tmp_path, {}), range(32)))
    (auth,) = made
    name, _, password = auth.partition(":")
    assert name == "tournament"
    assert len(password) >= 43  # 256 random bits
    place = tmp_path / "stack" / PASSWORD_FILE
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert place.read_text(encoding="ascii") == auth
    assert auth_string(tmp_path / "other", {}) != auth


def test_a_file_that_others_can_read_is_closed_to_them_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    auth = auth_string(tmp_path, {})
    place = tmp_path / "stack" / PASSWORD_FILE
    place.chmod(0o644)
    assert auth_string(tmp_path, {}) == auth
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    place.write_text("", encoding="ascii")
    assert auth_string(tmp_path, {}) not in ("", auth)


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "stack" / PASSWORD_FILE).mkdir(parents=True)
    with pytest.raises(StoreError, match=PASSWORD_FILE):
        auth_string(tmp_path, {})


@pytest.mark.parametrize("variable", [SERVER_AUTH, CLIENT_AUTH])
def test_an_operators_own_is_taken_and_none_is_made(tmp_path: Path, variable: str) -> None:
    assert auth_string(tmp_path, {variable: "ops:own"}) == "ops:own"
    assert not (tmp_path / "stack").exists()


def test_the_homes_server_is_told_the_password_and_another_is_not(tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    name_server(tmp_path, API, variables)
    assert variables == {"PREFECT_API_URL": API, CLIENT_AUTH: auth_string(tmp_path, {})}
    elsewhere = {"PREFECT_API_URL": "https://prefect.example.com/api"}
    name_server(tmp_path, API, elsewhere)
    assert elsewhere == {"PREFECT_API_URL": "https://prefect.example.com/api"}
    same = {"PREFECT_API_URL": f"{API}/", CLIENT_AUTH: "ops:own"}
    name_server(tmp_path, API, same)
    assert same[CLIENT_AUTH] == "ops:own"


def test_the_server_that_a_command_starts_for_itself_has_the_password_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    for name in (SERVER_AUTH, CLIENT_AUTH, ALLOWED_ORIGINS):
        monkeypatch.setenv(name, "")  # so that they are what they were after the test
        monkeypatch.delenv(name)
    protect_embedded(tmp_path)
    assert os.environ[SERVER_AUTH] == os.environ[CLIENT_AUTH] == auth_string(tmp_path, {})
    assert os.environ[ALLOWED_ORIGINS] == NO_ORIGIN
