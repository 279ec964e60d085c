"""The client over sockets, against the real application; and its distribution, which needs httpx alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

import esci_tournament as et
import esci_tournament_client
from esci_tournament_client import AsyncClient, Client, NoAnswerError, Retry
from tests.deployments.client.conftest import ask, served

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deployments" / "client"
HEAVY = ("torch", "mlflow", "prefect", "pandas", "numpy", "pydantic", "esci_tournament")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], cwd=FOLDER, check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.scorer(body_mib=0.01)
def test_pages_small_and_large_over_sockets(stand: Any) -> None:
    """The setting lets a request have some 500 ids: what is refused with 413 is sent in smaller parts."""
    ids = [f"P{number % 100}" for number in range(1500)]

    def work(client: Client) -> tuple[Any, ...]:
        small = client.score("red lamp", "us", ids[:40])
        with ThreadPoolExecutor(4) as threads:
            same = list(threads.map(lambda _: client.score("red lamp", "us", ids[:40]), range(8)))
        return small, same, client.score("red lamp", "us", ids), client.champion(), client.ready()

    small, same, large, facts, ready = served(stand, work)
    assert [one.id for one in large.products] == ids
    assert large.labels[:40] == small.labels
    assert {tuple(page.labels) for page in same} == {tuple(small.labels)}
    assert (facts.version, ready) == (1, True)


def test_a_scorer_that_is_not_there_is_said_so_quickly() -> None:
    begun = time.monotonic()
    with Client("http://127.0.0.1:9", retry=Retry(1, 0.01)) as client:
        with pytest.raises(
            NoAnswerError, match=r"no answer from http://127.0.0.1:9/v1/champion .* does the scorer run"
        ):
            client.champion()
        assert not client.ready()
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("url", ["localhost:8080", "ftp://scorer", "", "http://", "http://me:secret@scorer"])
def test_what_is_no_address_is_refused_before_it_is_asked(kind: Any, url: str) -> None:
    with pytest.raises(ValueError, match="address") as raised:
        kind(url)
    assert "secret" not in str(raised.value)


def test_a_key_is_sent_as_it_was_meant_and_shown_nowhere(stand: Any) -> None:
    _, secret = stand.gate.keys.create("shop")
    assert ask(stand, lambda client: client.champion(), api_key=f"{secret}\n").version == 1
    with Client("http://scorer", api_key=secret) as client:
        assert secret not in repr(client)
    with pytest.raises(ValueError, match="API key") as raised:
        Client("http://scorer", api_key=f"{secret}\nx: y")
    assert secret not in str(raised.value)


def test_a_scorer_below_a_path_is_asked_there() -> None:
    with Client("http://127.0.0.1:9/scorer/", retry=Retry(0)) as client, pytest.raises(NoAnswerError) as raised:
        client.champion()
    assert "http://127.0.0.1:9/scorer/v1/champion" in str(raised.value)


def test_the_wheel_holds_the_client_alone_and_needs_httpx_alone(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel)
    own = {f"esci_tournament_client/{path.name}" for path in (FOLDER / "esci_tournament_client").glob("[!_.]*")}
    own |= {"esci_tournament_client/__init__.py", "esci_tournament_client/_version.py"}
    assert "esci_tournament_client/py.typed" in own
    about = f"esci_tournament_client-{et.__version__}.dist-info"
    assert {name for name in files.namelist() if not name.startswith(f"{about}/")} == own
    facts = Parser().parsestr(files.read(f"{about}/METADATA").decode())
    assert [re.split(r"[<>=~! ]", need)[0] for need in facts.get_all("requires-dist")] == ["httpx"]
    assert files.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_it_is_of_the_release_of_the_platform() -> None:
    assert esci_tournament_client.__version__ == et.__version__
    assert all(hasattr(esci_tournament_client, name) for name in esci_tournament_client.__all__)


def test_importing_it_needs_nothing_heavy(wheel: Path, tmp_path: Path) -> None:
    """Where the heavy packages cannot be imported it works, and what it imports is httpx and what that needs."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = f"""
import sys
before = set(sys.modules)
for name in {HEAVY!r}:
    sys.modules[name] = None
import esci_tournament_client
print(esci_tournament_client.__file__)
found = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(found - sys.stdlib_module_names - set({HEAVY!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    where, found = done.stdout.splitlines()
    assert where == str(tmp_path / "esci_tournament_client" / "__init__.py"), done.stderr
    # All from click on are imported by httpx where they happen to be installed
    known = {"esci_tournament_client", "httpx", "httpcore", "h11", "anyio", "certifi", "idna", "sniffio"}
    known |= {
        "typing_extensions",
        "click",
        "rich",
        "pygments",
        "markdown_it",
        "mdurl",
        "brotli",
        "_brotli",
        "__mp_main__",
    }
    assert set(found.split()) <= known


def test_the_guide_does_what_it_says(stand: Any, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3

    def work(client: Client) -> None:
        for block in blocks:
            exec(block.replace("http://127.0.0.1:8080", client.url), {})

    served(stand, work)
    assert "B07XJ8C8F5 None None ItemError(code='unknown_product'" in capsys.readouterr().out
