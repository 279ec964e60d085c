"""`tournament deploy`. The deployments themselves are tested in `test_prefect_deployments.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_without_a_server_deploy_says_how_to_name_one(tournament: Any, tmp_path: Path) -> None:
    answer = tournament("deploy", "--home", tmp_path)
    assert answer.code == 2
    assert "--api URL or PREFECT_API_URL" in answer.err
