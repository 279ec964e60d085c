import subprocess
import sys

import pytest

from registry.errors import BusyError
from registry.locks import tournament_lock

HOLD = """
import sys, time
from pathlib import Path
from registry.locks import tournament_lock
with tournament_lock(Path(sys.argv[1]), "the weekly run"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_tournament_is_told_who_holds_the_home(tmp_path, holder):
    with pytest.raises(BusyError, match=rf"process {holder.pid} .*the weekly run"), tournament_lock(tmp_path):
        pytest.fail("two holders")


def test_the_lock_of_a_killed_holder_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with tournament_lock(tmp_path):
        pass


def test_the_lock_can_be_taken_again_and_leaves_no_name(tmp_path):
    for _ in range(2):
        with tournament_lock(tmp_path):
            assert (tmp_path / "tournament.holder.json").is_file()
        assert not (tmp_path / "tournament.holder.json").exists()


def test_two_homes_do_not_wait_for_each_other(tmp_path):
    with tournament_lock(tmp_path / "one"), tournament_lock(tmp_path / "two"):
        pass
