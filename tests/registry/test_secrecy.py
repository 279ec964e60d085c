"""A process's secrets are not in what the system shows others of its environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from esci_tournament.registry.children import start_group

PROGRAM = """
import os, subprocess, sys
from esci_tournament.registry.secrecy import hide_environment, hide_process
hide_environment()
{hide}()
shown = open("/proc/self/environ", "rb").read()
assert b"S3cretPw" not in shown, shown
assert b"PATH=/" in shown
assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "S3cretPw"
heard = subprocess.run(["sh", "-c", "echo $MLFLOW_TRACKING_PASSWORD$EMPTY"], capture_output=True, text=True).stdout
assert heard == "S3cretPw" + chr(10), heard
code = "print(open('/proc/%d/environ' % __import__('os').getppid(), 'rb').read())"
heard = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={{}})
assert "S3cretPw" not in heard.stdout + heard.stderr
"""
SECRETS = {"MLFLOW_TRACKING_PASSWORD": "S3cretPw", "EMPTY": "", "TOURNAMENT_LEDGER_URL": "postgresql://a:S3cretPw@b/c"}
linux = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="this system shows no environment")


@linux
@pytest.mark.parametrize("hide", ["hide_environment", "hide_process"])
def test_the_process_and_what_it_starts_keep_them_and_nobody_else_sees_them(hide: str) -> None:
    """X3: a pyfunc read the passwords in its parent's environment."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(hide=hide)],
        env=os.environ | SECRETS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@linux
def test_the_program_that_ends_a_group_hides_them_too() -> None:
    code = "import os, time; time.sleep(0.5); print(open(f'/proc/{os.getppid()}/environ', 'rb').read())"
    process = start_group([sys.executable, "-c", code], env=os.environ | SECRETS, stdout=subprocess.PIPE)
    shown, _ = process.communicate(timeout=60)
    assert b"MLFLOW_TRACKING_PASSWORD=" in shown
    assert b"S3cretPw" not in shown
