"""Output on a full disk is dropped, and told when there is room: `/dev/full` refuses every write as it does."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from esci_tournament.deployments.lasting_output import LastingStream

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")

PROGRAM = """
import os, sys
from esci_tournament.deployments.lasting_output import outlast_output
outlast_output()
outlast_output()
for number in range(3):
    print(f"line {number} " + "x" * 10_000, flush=True)
    sys.stderr.write("an error\\n")
os.dup2(int(sys.argv[1]), 1)  # there is room again
print("the last line", flush=True)
os._exit(7)
"""


@FULL
def test_a_program_outlives_a_full_disk_under_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with open("/dev/full", "wb") as full, log.open("wb") as roomy:
        program = [sys.executable, "-c", PROGRAM, str(roomy.fileno())]
        done = subprocess.run(program, stdout=full, stderr=full, pass_fds=[roomy.fileno()], timeout=60)
    assert done.returncode == 7
    assert "(some output is missing: [Errno 28] No space left on device)\nthe last line\n" in log.read_text()


def test_text_passes_as_it_is() -> None:
    inner = io.StringIO()
    stream = LastingStream(inner)
    assert stream.write("one ") == 4
    stream.writelines(["two ", "three"])
    stream.flush()
    assert stream.getvalue() == "one two three"
    inner.close()
    assert stream.write("four") == 4
