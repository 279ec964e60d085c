"""Backup and restore against a real PostgreSQL; only `docker compose` is replaced by a small script."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from esci_tournament.registry.errors import StoreError
from tests.docker.conftest import DOCKER, ledger_of

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

# `compose exec` and `compose run` run the command here, volumes being folders of the test.
COMPOSE = """\
#!{python}
import os, sys
arguments = sys.argv[sys.argv.index("-f") + 2:]
verb, rest = arguments[0], [one for one in arguments[1:] if one not in ("-T", "--rm", "--no-deps")]
with open({said!r}, "a") as log:
    print(*arguments, file=log)
if verb == "run" and "--entrypoint" not in rest:
    print("a checkpoint" if "checkpoint" in rest else sys.exit(2))
    sys.exit(0)
if verb == "run":
    rest = [rest[2], rest[1], *rest[3:]]
elif verb != "exec":
    sys.exit(0)
command = [one.replace("/var/lib/", {volumes!r} + "/") for one in rest[1:]]
os.execvp(command[0], command)
"""

NAMES = ("ledger", "mlflow", "prefect")
FILES = (*(f"{name}.dump" for name in NAMES), "mlflow.tar", "home.tar")

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    folder = tmp_path / "volumes"
    for name in ("mlflow", "tournament"):
        (folder / name).mkdir(parents=True)
    (folder / "mlflow" / "model.safetensors").write_bytes(b"weights")
    (folder / "tournament" / "stages" / "work").mkdir(parents=True)
    (folder / "tournament" / "stages" / "work" / "checkpoint").write_bytes(b"half")
    (folder / "tournament" / "report.html").write_text("a report")
    return folder


@pytest.fixture
def script(databases: dict[str, str], volumes: Path, tmp_path: Path) -> Script:
    played = tmp_path / "bin" / "docker"
    played.parent.mkdir()
    played.write_text(COMPOSE.format(python=sys.executable, said=str(tmp_path / "said"), volumes=str(volumes)))
    played.chmod(0o755)

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DOCKER / name, *map(str, arguments)],
            env=databases | {"PATH": f"{played.parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_what_was_backed_up_is_there_again(
    databases: dict[str, str], volumes: Path, script: Script, tmp_path: Path
) -> None:
    with ledger_of(databases) as ledger:
        ledger.record_event("kept", "before the backup")
    backup = tmp_path / "backup"
    done = script("backup.sh", backup)
    assert done.returncode == 0, done.stderr
    with ledger_of(databases) as ledger:
        ledger.record_event("lost", "after the backup")
    (volumes / "mlflow" / "model.safetensors").unlink()
    (volumes / "tournament" / "later.html").write_text("after the backup")

    done = script("restore.sh", backup, "--yes")

    assert done.returncode == 0, done.stderr
    with ledger_of(databases) as ledger:  # as its owner, who may read and append again
        assert [event.kind for event in ledger.events()] == ["kept"]
        ledger.record_event("goes", "on")
    assert (volumes / "mlflow" / "model.safetensors").read_bytes() == b"weights"
    assert (volumes / "tournament" / "report.html").read_text() == "a report"
    assert not (volumes / "tournament" / "stages" / "work").exists()
    assert not (volumes / "tournament" / "later.html").exists()
    said = (tmp_path / "said").read_text()
    stopped = said.index("stop prefect mlflow prepare deploy worker reviewer watcher scorer")
    assert (
        max(said.index(f"restored_{name}") for name in NAMES) < stopped < said.index("DROP DATABASE IF EXISTS ledger")
    )
    assert (backup / "checkpoint").read_text() == "a checkpoint\n"
    databases_now = sql(databases, "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database")
    assert "restored" not in databases_now
    with pytest.raises(StoreError, match="permission denied"):  # roles have no more than before
        ledger_of(databases, "ledger_scorer").champion("esci")


def test_nothing_is_replaced_by_half_a_backup_or_without_a_yes(script: Script, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert script("backup.sh", backup).returncode == 0
    again = script("backup.sh", backup)
    assert (again.returncode, "never goes over another" in again.stderr) == (1, True)
    (tmp_path / "said").unlink()
    unsure = script("restore.sh", backup)
    assert (unsure.returncode, "say --yes" in unsure.stderr) == (1, True)
    assert not (tmp_path / "said").exists()


def sql(databases: dict[str, str], statement: str) -> str:
    command = ["psql", "-qXAt", "-U", "postgres", "-d", "postgres", "-c", statement]
    return subprocess.run(command, check=True, env=databases, capture_output=True, text=True, timeout=60).stdout.strip()


def summed(backup: Path) -> None:
    """Write SHA256SUMS anew, as somebody does who changes the files."""
    files = sorted(path for path in backup.iterdir() if path.suffix in (".dump", ".tar"))
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (backup / "SHA256SUMS").write_text("".join(lines))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def outside(path: Path) -> None:
    """An archive one of whose names leaves the folder it is unpacked in."""
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("../../etc/cron.d/mine"))


DAMAGE: list[tuple[str, Callable[[Path], object], bool, str]] = [
    *((file, flip, False, "differ from SHA256SUMS") for file in FILES),
    *((file, cut, False, "differ from SHA256SUMS") for file in FILES),
    *((file, Path.unlink, False, f"{file} is missing") for file in FILES),
    ("SHA256SUMS", Path.unlink, False, "SHA256SUMS is missing"),
    ("SHA256SUMS", cut, False, "does not name"),
    *((f"{name}.dump", cut, True, f"{name}.dump cannot be restored") for name in NAMES),
    ("mlflow.tar", cut, True, "mlflow.tar cannot be read"),
    ("home.tar", outside, True, "name outside its folder"),
]


def test_a_damaged_backup_changes_nothing(
    databases: dict[str, str], volumes: Path, script: Script, tmp_path: Path
) -> None:
    """Every file damaged, cut or missing, and cut with checksums that fit; the stack goes on as it was."""
    with ledger_of(databases) as ledger:
        for _ in range(200):
            ledger.record_event("kept", "x" * 100)
    (volumes / "mlflow" / "model.safetensors").write_bytes(bytes(200_000))
    for name in ("mlflow", "prefect"):
        statement = "CREATE TABLE t AS SELECT md5(i::text) AS c FROM generate_series(1, 2000) AS i"
        command = ["psql", "-qX", "-U", name, "-d", name, "-c", statement]
        subprocess.run(command, check=True, env=databases, timeout=60)
    good = tmp_path / "good"
    assert script("backup.sh", good).returncode == 0
    with ledger_of(databases) as ledger:
        ledger.record_event("later", "after the backup")
    before = sql(databases, "SELECT string_agg(datname || oid, ' ' ORDER BY datname) FROM pg_database")
    (tmp_path / "said").unlink()
    for number, (file, damage, consistently, words) in enumerate(DAMAGE):
        bad = tmp_path / f"bad{number}"
        shutil.copytree(good, bad)
        damage(bad / file)
        if consistently:
            summed(bad)
        done = script("restore.sh", bad, "--yes")
        told = (done.returncode, words in done.stderr, "nothing was changed" in done.stderr)
        assert told == (1, True, True), (file, damage, done.stderr)
        shutil.rmtree(bad)
    assert sql(databases, "SELECT string_agg(datname || oid, ' ' ORDER BY datname) FROM pg_database") == before
    assert "stop" not in (tmp_path / "said").read_text().split()
    with ledger_of(databases) as ledger:
        assert ledger.events()[-1].kind == "later"
    assert (volumes / "tournament" / "report.html").read_text() == "a report"
    done = script("restore.sh", good, "--yes")
    assert done.returncode == 0, done.stderr
