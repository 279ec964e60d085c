"""Tests that share a long setup run in one process, in the order that is wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITE = """
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def setup():
    with open(Path(__file__).with_suffix(".setups"), "a") as file:
        file.write("made ")


@pytest.mark.parametrize("number", range(6))
def test_it(setup, number):
    pass
"""


def test_each_file_is_set_up_once_however_many_processes_share_the_suite(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for name in ("test_a", "test_b", "test_c"):
        (tmp_path / f"{name}.py").write_text(SUITE, encoding="utf-8")
    plugins = [argument for plugin in ("xdist", "tests.scheduling") for argument in ("-p", plugin)]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *plugins,
        "-q",
        "-n",
        "2",
        "--dist",
        "loadgroup",
        "-p",
        "no:cacheprovider",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        environment.pop(name, None)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert "18 passed" in done.stdout, done.stdout + done.stderr
    setups = {file.stem: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.setups")}
    assert setups == dict.fromkeys(("test_a", "test_b", "test_c"), "made ")
