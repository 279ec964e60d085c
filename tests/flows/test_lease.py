"""GPU slots: none is leased where there is no GPU to share, and those of a killed holder come back."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from contextlib import nullcontext, suppress

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from esci_tournament.flows.lease import LIMIT, gpu
from esci_tournament.registry.settings import read_settings
from tests.harness import clean_environment, until


@pytest.mark.parametrize(
    ("lease", "api"), [("auto", None), ("auto", "http://127.0.0.1:9/api"), ("never", "http://127.0.0.1:9/api")]
)
def test_without_a_gpu_or_by_the_setting_nothing_is_leased_and_no_server_is_asked(lease, api, tmp_path):
    with temporary_settings({PREFECT_API_URL: api}):
        held = gpu(read_settings(home=tmp_path, lease=lease, device="cpu"))
        assert isinstance(held, nullcontext)


HOLDER = """
import sys, time
from pathlib import Path
from esci_tournament.flows.lease import gpu
from esci_tournament.registry.settings import read_settings
with gpu(read_settings(lease="always")):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.mark.slow
def test_a_killed_holders_gpu_slot_comes_back(tmp_path, connected, prefect):
    with get_client(sync_client=True) as client:
        body = {"name": LIMIT, "limit": 1, "active_slots": 0}
        with suppress(PrefectHTTPStatusError):  # another test has made it
            client.request("POST", "/v2/concurrency_limits/", json=body)
    environment = clean_environment(TOURNAMENT_HOME=tmp_path, **connected)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )

    def taken() -> int:
        with get_client(sync_client=True) as client:
            return client.request("GET", f"/v2/concurrency_limits/{LIMIT}").json()["active_slots"]

    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert taken() == 1
    holder.kill()
    holder.communicate()
    index = prefect.home / "concurrency_leases" / "expirations.json"
    [lease] = json.loads(index.read_text())
    said = json.loads((index.parent / f"{lease}.json").read_text())
    now = dt.datetime.now(dt.UTC)
    assert 40 < (dt.datetime.fromisoformat(said["expiration"]) - now).total_seconds() <= 60
    # The minute goes by: what is on the server's disk says so.
    (index.parent / f"{lease}.json").write_text(json.dumps(said | {"expiration": now.isoformat()}))
    index.write_text(json.dumps({lease: now.isoformat()}))
    until(lambda: taken() == 0, 60, "the slot came back")
    with prefect.connected(), gpu(read_settings(home=tmp_path, lease="always")):
        assert taken() == 1
