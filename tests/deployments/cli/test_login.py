"""What `tournament login` says; that its link logs a browser in is the test of the review's page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from esci_tournament.deployments.stack.logins import LOGIN_PATH, login_folder, take_login
from esci_tournament.deployments.stack.state import Process, State, write_state


def test_without_a_server_it_says_what_starts_one(tournament: Any, tmp_path: Path) -> None:
    answer = tournament("login", "--home", tmp_path)
    assert answer.code == 10
    assert "tournament up" in answer.err


def test_its_link_leads_to_the_page_that_was_named(tournament: Any, tmp_path: Path) -> None:
    write_state(tmp_path, State(supervisor=Process.of(os.getpid()), api="http://127.0.0.1:4200/api"))
    page = "http://127.0.0.1:4200/v2/runs/flow-run/7"
    link = tournament("login", page, "--home", tmp_path, "--json").document["link"]
    address, _, said = link.partition("#")
    assert address == f"http://127.0.0.1:4200{LOGIN_PATH}"
    token, _, to = said.partition(":")
    assert to == "/v2/runs/flow-run/7"
    assert take_login(login_folder(tmp_path), token)
