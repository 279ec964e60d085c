import subprocess
import sys
import time

import pytest

from esci_tournament.registry.database import KEEP_SECONDS
from esci_tournament.registry.errors import BusyError
from esci_tournament.registry.locks import tournament_lock

HOLD = """
import sys, time
from pathlib import Path
from esci_tournament.registry.locks import tournament_lock
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


KEEP = """
import sys, time
from esci_tournament.registry.ledger import Ledger
with Ledger.open(sys.argv[1]) as ledger, ledger.keep("the device", 5.0):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def keeper(ledger_url):
    process = subprocess.Popen([sys.executable, "-c", KEEP, ledger_url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def is_held_within(ledger, wanted, seconds):
    end = time.monotonic() + seconds
    while ledger.is_locked("the device") is not wanted:
        assert time.monotonic() < end, f"held: {not wanted} for {seconds} s"
        time.sleep(0.05)


def test_a_lock_that_is_kept_is_held_until_its_process_is_killed(ledger, keeper):
    assert ledger.is_locked("the device")
    assert not ledger.is_locked("another device")
    with pytest.raises(BusyError, match="the device"), ledger.keep("the device", 0.2):
        pytest.fail("two holders")
    keeper.kill()
    keeper.wait()
    is_held_within(ledger, False, 5)
    with ledger.keep("the device", 0.2):
        pass


@pytest.mark.databases("postgresql")
def test_a_lock_that_is_kept_is_taken_again_when_the_database_drops_its_connections(ledger_url, ledger, keeper):
    import psycopg

    with psycopg.connect(ledger_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
        free = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
    assert free == (0,)
    is_held_within(ledger, True, KEEP_SECONDS)


def test_a_process_that_holds_the_home_may_take_it_again(tmp_path):
    with tournament_lock(tmp_path), tournament_lock(tmp_path):
        assert (tmp_path / "tournament.holder.json").is_file()
