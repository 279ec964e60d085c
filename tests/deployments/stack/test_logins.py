"""One-time logins in a folder."""

from __future__ import annotations

import hashlib
import shlex
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from esci_tournament.deployments.stack.logins import (
    LOGIN_PATH,
    login_folder,
    login_link,
    make_login,
    path_of,
    take_login,
)


def test_a_link_holds_a_token_of_which_the_hash_alone_is_kept(tmp_path: Path) -> None:
    link = urlsplit(
        login_link(tmp_path, "http://127.0.0.1:4200/api", "http://localhost:4200/v2/runs/flow-run/7?a=b&c=d")
    )
    assert (link.netloc, link.path, link.query) == ("127.0.0.1:4200", LOGIN_PATH, "")
    token, _, page = link.fragment.partition(":")
    assert unquote(page) == "/v2/runs/flow-run/7?a=b&c=d"
    assert shlex.split(link.geturl()) == [link.geturl()]
    (place,) = login_folder(tmp_path).iterdir()
    assert place.name == hashlib.sha256(token.encode()).hexdigest()
    assert token not in place.read_text(encoding="ascii")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert take_login(login_folder(tmp_path), token)


def test_a_token_is_taken_once_and_others_stay(tmp_path: Path) -> None:
    first, second = make_login(tmp_path), make_login(tmp_path)
    assert take_login(tmp_path, first)
    assert not take_login(tmp_path, first)
    assert take_login(tmp_path, second)
    assert list(tmp_path.iterdir()) == []


def test_tokens_that_have_ended_are_refused_and_go(tmp_path: Path) -> None:
    ended = make_login(tmp_path, seconds=-1)
    assert not take_login(tmp_path, ended)
    make_login(tmp_path, seconds=-1)
    make_login(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("token", ["", "..", "../prefect.password", "a\0b", "x" * 10_000, "\udcff"])
def test_what_was_never_made_is_refused(tmp_path: Path, token: str) -> None:
    make_login(tmp_path)
    assert not take_login(tmp_path, token)


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("", "/v2/"),
        ("/", "/v2/"),
        ("/v2/artifacts", "/v2/artifacts"),
        ("v2/artifacts", "/v2/artifacts"),
        ("//evil.example/page", "/page"),
        ("https://evil.example/page", "/page"),
        ("https://evil.example//evil.example/page", "/evil.example/page"),
        ("javascript:alert(1)", "/alert(1)"),
    ],
)
def test_a_link_leads_to_a_page_of_the_same_server(said: str, path: str) -> None:
    assert path_of(said) == path
