"""What a function in a child does to the child is a refusal in words, and its process has nothing to steal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.registry import border, border_child
from esci_tournament.registry.border import in_child, other_user
from esci_tournament.registry.errors import CandidateError, DataError, SpecError
from esci_tournament.registry.processes import module_path

HERE = "test_border_functions:"


# What follows is a module of its own in the child: the tests' folder is no package there.
FUNCTIONS = """
import ctypes, os, resource, subprocess, sys, time
from esci_tournament.registry.border_child import say
from esci_tournament.registry.errors import DataError

def double(number): return 2 * number
def environment(): return dict(os.environ)
def parent(): return open(f"/proc/{os.getppid()}/environ", "rb").read().decode(errors="replace")
def unlucky(mark):
    if not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), 9)
    return "read"
def segfault(): ctypes.string_at(0)
def abort():
    os.write(2, b"terminate called after throwing an instance of 'std::bad'\\n")
    os.abort()
def sleep(): time.sleep(60)
def memory(): return len(bytearray(1 << 30))
def long(): return "x" * 5_000_000
def ours(): raise DataError("the third row is torn")
def theirs(): raise ValueError("line one\\x1b[31m\\nline two" + 5000 * "x")
def leave(): sys.exit(0)
def silent(): os._exit(0)
def shout():
    for _ in range(2000): print("x" * 1000)
    return 1
def tells():
    say(0.5)
    say({"share": 1})
    return "done"
def writes(path): __import__("pathlib").Path(path).write_bytes(bytes(100))
def nested(): return eval("[" * 90 + "]" * 90)
def starts(path):
    code = f"import os, time; open({path!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not os.path.exists(path) or not open(path).read(): time.sleep(0.01)
    time.sleep(60)
def core(): return resource.getrlimit(resource.RLIMIT_CORE)[1]
def who(): return os.geteuid()
class Panic(BaseException): pass
def panic(): raise Panic("called `Option::unwrap()` on a `None` value")
"""


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "functions"
    place.mkdir()
    (place / "test_border_functions.py").write_text(FUNCTIONS, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(place))


def run(name: str, **options: Any) -> Any:
    return in_child(HERE + name, doing="read the file x", **options)


def test_one_that_was_killed_is_started_once_more(tmp_path: Path) -> None:
    assert run("unlucky", arguments={"mark": str(tmp_path / "mark")}, reads=[], writes_mib=1) == "read"


def test_it_returns_what_the_function_returns_and_passes_on_what_it_says() -> None:
    heard: list[Any] = []
    assert run("double", arguments={"number": 21}) == 42
    assert run("tells", hear=heard.append) == "done"
    assert heard == [0.5, {"share": 1}]
    assert run("shout") == 1
    assert run("core") == 0


def test_it_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "S3cretPw")
    monkeypatch.setenv("TOURNAMENT_LEDGER_URL", "postgresql://a:S3cretPw@b/c")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S3cretPw")
    found = run("environment")
    assert "S3cretPw" not in str(found)
    assert set(found) <= {*border.HANDED_ON, *border._QUIET, "PYTHONPATH", "PYTHONSAFEPATH", "LC_CTYPE"}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("segfault", "ends the process that opens it, by SIGSEGV"),
        ("abort", r"by SIGABRT \(terminate called after throwing"),
        ("memory", "more than 300 MiB of memory"),
        ("long", "answer is longer than 1,048,576 bytes"),
        ("theirs", r"ValueError: line one \[31m line two"),
        ("leave", "SystemExit: 0"),
        ("silent", "with exit code 0"),
        ("nested", "answer cannot be read"),
        ("panic", "Panic: called `Option::unwrap"),
        ("absent", "exit code 1"),
    ],
)
def test_whatever_happens_there_is_a_refusal_in_words(function: str, words: str) -> None:
    with pytest.raises(CandidateError, match=words) as caught:
        run(function, memory_mib=300)
    assert str(caught.value).startswith("cannot read the file x: ")
    assert len(str(caught.value)) < 1_200
    assert str(caught.value).isprintable()


def test_our_own_errors_come_back_as_they_are() -> None:
    with pytest.raises(DataError, match=r"^the third row is torn$"):
        run("ours")
    with pytest.raises(SpecError, match="SIGSEGV"):
        run("segfault", refusal=SpecError)


def test_it_is_killed_at_its_deadline_with_all_that_it_started(tmp_path: Path) -> None:
    """Also a process that has left its group."""
    number = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(CandidateError, match="longer than 2 s"):
        run("starts", arguments={"path": str(number)}, seconds=2, writes_mib=1)
    assert time.monotonic() - began < 8
    for _ in range(100):
        if not Path("/proc", number.read_text()).exists() or _is_zombie(number.read_text()):
            return
        time.sleep(0.05)
    pytest.fail("what it started lives on")


def test_it_writes_no_more_than_it_may(tmp_path: Path) -> None:
    with pytest.raises(CandidateError, match="OSError"):
        run("writes", arguments={"path": str(tmp_path / "a")})
    run("writes", arguments={"path": str(tmp_path / "b")}, writes_mib=1)
    assert (tmp_path / "b").stat().st_size == 100


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user")
def test_as_root_it_is_nobody_where_everything_needed_is_open_to_all(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert other_user([closed]) is None
    code = "import os, esci_tournament.registry.border_child as it; it.become(65534, 65534); print(os.getresuid())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.strip() == "(65534, 65534, 65534)"


NOBODY = """
import sys
if sys.version_info < (3, 11):
    sys.exit("too old")
from esci_tournament.registry.border import in_child, other_user
found = other_user()
if found is None:
    sys.exit("Python or the product is not open to all")
assert in_child("os:getresuid", doing="x") == [found[0]] * 3
assert in_child("os:getgroups", doing="x") == []
assert in_child("os:getuid", doing="x", reads=["/root"]) == 0
assert in_child("os:getuid", doing="x", writes_mib=1) == 0
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user")
def test_the_python_of_the_system_runs_the_child_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of a virtual environment below /root is closed to others, that of the system is open."""
    monkeypatch.delenv("PYTHONPATH")
    path = module_path() | {"PATH": os.defpath}
    run = subprocess.run(
        ["/usr/bin/python3", "-c", NOBODY], env=path, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    if run.returncode and "Traceback" not in run.stderr:
        pytest.skip(run.stderr.strip())
    assert not run.returncode, run.stderr


def test_saying_something_where_there_is_no_parent_does_nothing() -> None:
    border_child.say("anything")


def _is_zombie(pid: str) -> bool:
    try:
        return " Z " in Path("/proc", pid, "stat").read_text()
    except OSError:
        return True
