"""Scorers as processes of their own, for the benchmarks that ask one over HTTP: homes, addresses, memory, swaps."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.harness import say


def copied_home(temporary: Path) -> Path:
    """Return a home with a champion that may be written to."""
    given = os.environ.get("TOURNAMENT_HOME")
    home = temporary / "home"
    if given:
        say(f"copying {given}")
        shutil.copytree(given, home, ignore=shutil.ignore_patterns("serving", "cache", "*.lock"))
        return home
    say("holding a tournament on a small world: two minutes")
    command = [
        sys.executable,
        "-m",
        "esci_tournament.deployments.cli",
        "demo",
        "--full",
        "--queries",
        "300",
        "--home",
        str(home),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return home


@contextmanager
def running_scorer(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """Run `tournament serve`, and yield its address and its process once it is ready.

    Args:
        home: with a champion.
        settings: environment variables besides those of this process.
    """
    command = [
        sys.executable,
        "-m",
        "esci_tournament.deployments.cli",
        "serve",
        "--home",
        str(home),
        "--port",
        "0",
        "--json",
    ]
    own = os.environ | (settings or {})
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own) as process:
        try:
            assert process.stdout is not None
            lines = ""
            while "}" not in lines:
                lines += process.stdout.readline()
            address = json.loads(lines)["address"]
            until_ready(f"{address}/readyz", process)
            yield address, process.pid
        finally:
            process.terminate()
            process.wait(60)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until_ready(url: str, process: subprocess.Popen) -> None:
    """Wait until an address answers well.

    Raises:
        RuntimeError: if the process ends before, or two minutes have passed.
    """
    for _ in range(2400):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with code {process.returncode}")
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{url} does not get ready")


def metric(address: str, name: str, key: str = "") -> float:
    """Return a scorer's metric, the sum over its labels; 0 when it has none of that name.

    Args:
        address: of the scorer.
        name: of the metric.
        key: an API key, needed once the scorer has one.
    """
    with urlopen(Request(f"{address}/metrics", headers={"x-api-key": key}), timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(maxsplit=1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def memory_mib(process: int) -> float:
    """Return the memory of a process and of all below it; what they share counts once (PSS)."""
    import psutil

    tree = psutil.Process(process)
    total = 0
    for one in (tree, *tree.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            facts = one.memory_full_info()
            total += getattr(facts, "pss", facts.rss)
    return total / 2**20


class Swaps:
    """Promotes a second version with the champion's own files, and rolls back, in turn."""

    def __init__(self, home: Path) -> None:
        from esci_tournament.registry.manifests import FILE, Manifest, as_payload
        from esci_tournament.registry.packaging import package_ensemble
        from esci_tournament.registry.settings import read_settings
        from esci_tournament.registry.workspace import Workspace

        self._workspace = Workspace(read_settings(home=home))
        ledger, models = self._workspace.ledger, self._workspace.models
        promotion = ledger.champion(models.ensemble_name)
        assert promotion is not None
        first = models.ensemble(promotion.version)
        tournament = "t-benchmark"
        data = next(one.data_version for one in ledger.tournaments() if one.tournament == first.tournament)
        ledger.start_tournament(tournament, data)
        files, package = models.download(first), home / "package-of-the-benchmark"
        manifest = Manifest.read(package / FILE) if package.is_dir() else package_ensemble(files, package, {})
        self._version = models.register_ensemble(files, first.members, tournament, package=package)
        (built,) = ledger.ensembles(first.tournament)  # its rule too: the policy asks under which a verdict was reached
        content = built.payload | {"run_id": self._version.run_id} | as_payload(manifest)
        ledger.record_ensemble(tournament, first.name, self._version.version, content)
        self._first = promotion.version

    def step(self) -> None:
        """Promote the second version when the first one is champion, else roll back."""
        from esci_tournament.registry import promotion

        ledger, models = self._workspace.ledger, self._workspace.models
        standing = ledger.standing(models.ensemble_name)
        assert standing.champion is not None
        if standing.champion.version == self._version.version:
            promotion.rollback(ledger, models, f"a benchmark, {time.time()}")
            return
        verdict = ledger.record_verdict(self._version.tournament, "promote", against=standing.sequence)
        decision = ledger.record_decision(verdict.id, "approve", "a benchmark", "to measure")
        promotion.promote(ledger, models, self._version, decision, standing.sequence)
