"""The server that Prefect starts for one command: it is the home's, and answers nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from esci_tournament.deployments.stack.access import PASSWORD_FILE
from tests.harness import clean_environment

HOLD = """
import json, sys
import prefect  # as a notebook may have done before
import httpx
from esci_tournament.deployments.local import quiet_prefect, start_embedded_server
from esci_tournament.registry.settings import read_settings

quiet_prefect(read_settings(home=sys.argv[1]))
start_embedded_server()()
from prefect.client.orchestration import get_client
from prefect.server.api.server import SubprocessASGIServer

api = SubprocessASGIServer().api_url
with get_client(sync_client=True) as client:
    known = client.request("POST", "/flows/count", json={}).status_code
asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
print(json.dumps({
    "known": known,
    "stranger": httpx.post(f"{api}/flows/count", json={}).status_code,
    "origin": httpx.options(f"{api}/flows/count", headers=asked).headers.get("access-control-allow-origin"),
}))
"""


@pytest.mark.slow
def test_it_asks_for_the_homes_password_and_lets_no_page_in(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"known": 200, "stranger": 401, "origin": None}
    assert (tmp_path / "stack" / PASSWORD_FILE).is_file()
