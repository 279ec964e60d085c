"""A scorer under attack: what a well-behaved client sees of it, attack by attack and under all of them together.

One client with a key of its own sends pages of 40 at random moments, at a fixed rate: four of five pages are asked for
again and again, one is new. Its times in a phase without any attack are the baseline of the same run. Every label is
compared with that of the champion's own files, which this process has loaded. The attackers run in one process of low
priority on the same machine; each attack has a key of its own, all but one with a rate, as a customer has. In two
phases the scorer's replicas are killed with SIGKILL, and champions change places. The champion is that of
TOURNAMENT_HOME if it is set, or else that of a small generated world (two minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np

from benchmarks.harness import Figure, figure, report, say
from benchmarks.load.attackers import ATTACKS, SCATTERED
from benchmarks.load.generator import Answer, arrivals, request, trace
from benchmarks.scorers import Swaps, copied_home, memory_mib, metric, running_scorer

PAGE, PAGES, FRESH, PER_SECOND = 40, 30, 0.2, 10.0
RIVAL_PER_S = 4.0
KILLS, SWAPS, ALL = "replica kills", "champion changes", "all together"
PHASES = (*ATTACKS, KILLS, SWAPS, ALL)
_LABELS = "ESCI"


@dataclass
class Phase:
    """What a well-behaved client saw during one attack.

    Attributes:
        name: of the attack.
        milliseconds: of its good answers, from the moment that each was due.
        failed: pages that were not answered with 200, tried three times.
        wrong: products with another label than the champion's own.
        incomplete: pages that not every member answered in time; the answer says so.
        deaf: times that `/healthz` was not answered within a second.
    """

    name: str
    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0
    incomplete: int = 0
    deaf: int = 0

    def at(self, percentile: float) -> float:
        return float(np.percentile(self.milliseconds, percentile)) if self.milliseconds else float("nan")


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.siege", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of all phases together (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--quick", action="store_true", help="half a minute: targets are for the full size")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is generated")
    parser.add_argument(
        "--only", nargs="+", choices=PHASES, default=PHASES, help="phases besides the one without attack"
    )
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        minutes = 0.5 if options.quick else options.minutes
        figures = list(measure(copied_home(Path(temporary)), minutes, options.seed, options.only))
    report("siege", figures, options.json)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


def measure(home: Path, minutes: float, seed: int = 0, only: Sequence[str] = PHASES) -> Iterator[Figure]:
    """Yield all figures.

    Args:
        home: with a champion; keys, labels and copies are written there.
        minutes: of all phases together.
        seed: of the pages and of their moments.
        only: names of the phases besides the one without an attack.
    """
    from esci_tournament.deployments.scorer.keys import FILE, Keys

    keys = Keys(home / FILE)
    own = keys.create(f"a well-behaved client, {time.time()}")[1]
    rivals = {name: keys.create(f"{name}, {time.time()}", rate_of(name))[1] for name in ATTACKS}
    twice = {ALL: 2}  # as long as the others, like the baseline
    seconds = minutes * 60 / (2 + sum(twice.get(name, 1) for name in only))
    with running_scorer(home) as (address, process):
        client = Client(address, own, home, seed)
        client.phase("to fill the cache", max(seconds / 2, 5.0))
        baseline = client.phase("no attack", 2 * seconds)
        memory, files = memory_mib(process), descriptors(process)
        phases = []
        for name in only:
            length = seconds * twice.get(name, 1)
            with attacking(name, address, rivals, home, process, length, client):
                phases.append(client.phase(name, length))
        if SWAPS in only:
            yield figure("champions that took over", metric(address, "scorer_swaps_total", own), "", ">= 1")
        after, left = at_rest(process, memory, files)
        for phase in (baseline, *phases):
            client.compare(phase)
        yield from figures_of(baseline, phases)
        yield figure("memory afterwards", after, "MiB", "", "before", memory)
        yield figure("memory afterwards over before", after / memory, "times", "<= 1.2")
        yield figure("descriptors afterwards, beyond those before", left - files, "files", "<= 20")


def rate_of(attack: str) -> float | None:
    """Return the rate of the key of an attack: one has none, so that its requests are waited for, and not refused."""
    return None if attack == SCATTERED else RIVAL_PER_S


def figures_of(baseline: Phase, phases: Sequence[Phase]) -> Iterator[Figure]:
    """Yield the figures of what the client saw.

    Args:
        baseline: the phase without an attack.
        phases: all others.
    """
    yield figure("no attack: p50", baseline.at(50), "ms")
    yield figure("no attack: p99", baseline.at(99), "ms")
    for phase in phases:
        yield figure(f"{phase.name}: p50", phase.at(50), "ms", "", "no attack", baseline.at(50))
        yield figure(f"{phase.name}: p99", phase.at(99), "ms", "", "no attack", baseline.at(99))
        yield figure(f"{phase.name}: p99 over that of no attack", phase.at(99) / baseline.at(99), "times", "<= 3")
    everything = (baseline, *phases)
    yield figure("pages answered", sum(len(each.milliseconds) for each in everything), "pages")
    yield figure("wrong labels", sum(each.wrong for each in everything), "products", "<= 0")
    yield figure("pages without an answer", sum(each.failed for each in everything), "pages", "<= 0")
    yield figure("pages that a member missed", sum(each.incomplete for each in everything), "pages")
    yield figure("/healthz without an answer within 1 s", sum(each.deaf for each in everything), "times", "<= 0")


class Client:
    """A well-behaved client: pages at random moments, each tried three times, and its answers as they came.

    Args:
        address: of the scorer.
        key: its API key.
        home: of the scorer, whose champion its answers are compared with.
        seed: of its pages.
    """

    def __init__(self, address: str, key: str, home: Path, seed: int) -> None:
        self.address, self._key, self._home, self._seed = address, key, home, seed
        self._random = random.Random(seed)
        self.pages = _pages(home, PAGES, seed)
        self._answers: dict[str, list[tuple[dict[str, Any], Answer]]] = {}
        self._known: dict[str, list[str]] = {}
        self._number = 0

    def phase(self, name: str, seconds: float) -> Phase:
        """Send pages for a while, and return times and failures; labels are compared later."""
        phase = Phase(name)
        moments = arrivals(PER_SECOND, seconds, self._seed + self._number)
        pages = [self._next() for _ in moments]
        asked = [
            request(self.address, "/v1/score", json.dumps(page).encode(), {"x-api-key": self._key}) for page in pages
        ]
        stop = threading.Event()
        listening = threading.Thread(target=self._listen, args=(phase, stop))
        listening.start()
        answers = trace(self.address, asked, moments, patience_s=30, tries=3)
        stop.set()
        listening.join()
        phase.milliseconds = [(one.came - one.due) * 1000 for one in answers if one.good]
        phase.failed = sum(not one.good for one in answers)
        self._answers[name] = list(zip(pages, answers, strict=False))
        reasons = sorted({one.status for one in answers if not one.good})
        say(f"{name}: p50 {phase.at(50):.1f} ms, p99 {phase.at(99):.1f} ms, {phase.failed} failed {' '.join(reasons)}")
        return phase

    def compare(self, phase: Phase) -> None:
        """Compare the labels of a phase with the champion's own."""
        for page, answer in self._answers[phase.name]:
            if not answer.good:
                continue
            content = json.loads(answer.body)
            if not content["complete"]:
                phase.incomplete += 1
                continue
            text = json.dumps(page)
            if text not in self._known:
                self._known[text] = own_labels(self._home, page)
            phase.wrong += sum(
                one["label"] != own for one, own in zip(content["products"], self._known[text], strict=True)
            )

    def _next(self) -> dict[str, Any]:
        page = self._random.choice(self.pages)
        if self._random.random() < FRESH:
            self._number += 1
            page = {**page, "query": f"{page['query']} {self._number}"}
        return page

    def _listen(self, phase: Phase, stop: threading.Event) -> None:
        while not stop.wait(0.5):
            try:
                urlopen(f"{self.address}/healthz", timeout=1.0).close()
            except OSError:
                phase.deaf += 1


@contextmanager
def attacking(
    name: str, address: str, keys: Mapping[str, str], home: Path, process: int, seconds: float, client: Client
) -> Iterator[None]:
    """Attack while the block runs.

    Args:
        name: of the attack, or :data:`ALL`.
        address: of the scorer.
        keys: attack -> the API key that it uses.
        home: of the scorer.
        process: id of the scorer's process.
        seconds: length of the attack.
        client: whose queries are asked in other spellings.
    """
    stop = threading.Event()
    threads = []
    if name in (KILLS, ALL):
        threads.append(threading.Thread(target=kill_replicas, args=(process, stop)))
    if name == SWAPS:
        threads.append(threading.Thread(target=change_champions, args=(home, stop)))
    names = list(ATTACKS) if name == ALL else [name] if name in ATTACKS else []
    attackers = None
    if names:
        command = [sys.executable, "-m", "benchmarks.load.attackers", address, str(seconds), "1.0", *names]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        attackers = subprocess.Popen(command, env=os.environ | {"ATTACKER_KEYS": json.dumps(dict(keys))}, **pipes)
        assert attackers.stdin is not None
        queries = [[page["query"], [one["id"] for one in page["products"]]] for page in client.pages]
        attackers.stdin.write(json.dumps(queries) + "\n")
        attackers.stdin.flush()
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        if attackers is not None:
            say(f"{name}: {attackers.communicate(timeout=60)[0].strip()}")


def kill_replicas(process: int, stop: threading.Event, pause_s: float = 2.0) -> int:
    """Kill one replica after the other until told to stop; return how many."""
    import psutil

    killed = 0
    while not stop.wait(pause_s):
        with suppress(psutil.NoSuchProcess):
            # The scorer's child imports, that one's children keep a champion, and theirs are replicas
            keepers = [keeper for child in psutil.Process(process).children() for keeper in child.children()]
            living = [one for keeper in keepers for one in keeper.children() if one.status() != psutil.STATUS_ZOMBIE]
            if len(living) > 1:
                os.kill(random.choice(living).pid, signal.SIGKILL)
                killed += 1
    return killed


def change_champions(home: Path, stop: threading.Event) -> None:
    """Let two versions with the champion's own files change places until told to stop."""
    swaps = Swaps(home)
    while not stop.is_set():
        swaps.step()
        stop.wait(15.0)


def at_rest(process: int, memory: float, files: int, patience_s: float = 30.0) -> tuple[float, int]:
    """Wait until memory and descriptors are near what they were, and return them."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end and (memory_mib(process) > 1.1 * memory or descriptors(process) > files + 5):
        time.sleep(1.0)
    return memory_mib(process), descriptors(process)


def descriptors(process: int) -> int:
    """Return the open files of a process and of all below it."""
    import psutil

    tree, total = psutil.Process(process), 0
    for one in (tree, *tree.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += one.num_fds()
    return total


def own_labels(home: Path, page: dict[str, Any]) -> list[str]:
    """Return the labels that the champion's own files give to a page, computed in this process."""
    from esci_tournament.deployments.scorer.compute.pairs import Pairs

    catalogue, members, aggregator = _champion(home)
    rows = catalogue.find(page["locale"], [one["id"] for one in page["products"]])
    frames = Pairs(page["query"], page["locale"], catalogue.texts(rows.tolist())).frames
    columns = np.stack([member.predict_proba(*frames) for member in members], axis=1)
    return [_LABELS[label] for label in aggregator.predict(columns)]


_opened: dict[Path, tuple[Any, list[Any], Any]] = {}


def _champion(home: Path) -> tuple[Any, list[Any], Any]:
    if home not in _opened:
        from esci_tournament.deployments.scorer.catalogue import ProductCatalogue
        from esci_tournament.tasks.ensemble.ensemble import Ensemble

        served = Ensemble.load(next(next((home / "serving" / "champions").glob("*-*/ensemble")).iterdir()))
        source = next((home / "stages").glob("load-*")) / "products.arrow"
        catalogue = ProductCatalogue.open(source, home / "serving" / "catalogues")
        _opened[home] = catalogue, list(served.members.values()), served.aggregator
    return _opened[home]


def _pages(home: Path, number: int, seed: int) -> list[dict[str, Any]]:
    from esci_tournament.tasks.data.store import read_frame

    products = read_frame(next((home / "stages").glob("load-*")) / "products.arrow")
    chosen = products[products["locale"] == "us"].sample(PAGE * number, replace=True, random_state=seed)
    pages = []
    for start in range(0, PAGE * number, PAGE):
        rows = chosen.iloc[start : start + PAGE]
        query = " ".join(rows["title"].iloc[0].split()[:2]) + f" {start}"
        products_of = [{"id": one} for one in rows["product_id"]]
        pages.append({"query": query, "locale": "us", "products": products_of, "deadline_ms": 10_000})
    return pages


if __name__ == "__main__":
    sys.exit(main())
