"""The scorer beside LitServe, Ray Serve and BentoML, all with the same champion: pages of 40, none of them cached.

Every server has two replicas that compute with one thread each, and a deadline of a second. A peer holds the champion
in its replicas, loaded and asked by the scorer's own functions, and is set up as its documentation recommends
(`benchmarks/peers/`). Its environment, below `build/peers`, is made when it is missing and sees this one's packages;
a peer that cannot be installed is left out. Servers run in turn, each round in the other order, on the cores that also
send the load. Pages arrive at random moments (a Poisson process), at shares of what the members alone could do on two
cores. Figures are medians over three rounds, fewer when they take longer than six minutes; bursts, a kill and a change
of champion follow in the first. What did not happen while it was looked for is `nan`.

The champion is that of TOURNAMENT_HOME if it is set, else that of a small generated world (`tournament demo --full
--queries 300`, two minutes).
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import psutil

from benchmarks.harness import Figure, arguments, figure, median_seconds, report, say
from benchmarks.load.generator import Answer, arrivals, closed_loop, request, trace
from benchmarks.peers.champion import DEADLINE_S, PLACE, Champion
from benchmarks.scorers import Swaps, copied_home, free_port, memory_mib, metric, running_scorer

PAGE, REPLICAS = 40, 2
SHARES = (0.2, 0.4, 0.6)  # of what the members alone could do; the middle one is also sent while servers are disturbed
CLIENTS = 16
_ROOT = Path(__file__).resolve().parents[1]
_START_S = 90.0
_LATEST_S = 360.0  # after the beginning: no round begins later

Measures = dict[str, tuple[float, str]]  # name -> value and unit


@dataclass(frozen=True)
class Size:
    """How long it takes.

    Attributes:
        rounds: of all servers, at most. seconds: of each load. burst: pages that come at once.
        killed, changed: seconds of the load in which a replica is killed, and of that in which the champion changes.
    """

    rounds: int
    seconds: float
    burst: int
    killed: float
    changed: float


FULL, QUICK = Size(3, 3.0, 400, 12.0, 22.0), Size(1, 1.5, 400, 12.0, 22.0)


class Pages:
    """Pages that nobody has asked for before: products of the champion's catalogue with their text.

    Args:
        home: with a champion.
        seed: of which products they are.
    """

    def __init__(self, home: Path, seed: int) -> None:
        from esci_tournament.deployments.scorer.catalogue import TEXTS
        from esci_tournament.tasks.data.store import read_frame

        products = read_frame(next((home / "stages").glob("load-*")) / "products.arrow")
        chosen = products[products["locale"] == "us"].sample(50 * PAGE, replace=True, random_state=seed)
        names = {"product_id": "id"} | {name: name for name in TEXTS}
        rows = chosen.rename(columns=names)[[*names.values()]].fillna("").astype(str).to_dict("records")
        self._shelves = [rows[start : start + PAGE] for start in range(0, len(rows), PAGE)]
        self._numbers = count()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in self._numbers:
            shelf = self._shelves[number % len(self._shelves)]
            query = f"{' '.join(shelf[0]['title'].split()[:2])} {number}"
            yield {"query": query, "locale": "us", "products": shelf, "deadline_ms": round(1000 * DEADLINE_S)}


class Server(ABC):
    """A server that runs.

    Args:
        address: of it.
        process: that it began as; all others are below it.
    """

    path = "/v1/score"

    def __init__(self, address: str, process: int) -> None:
        self.address, self.process = address, process

    def body(self, page: dict[str, Any]) -> Any:
        """Return a page as the server takes it."""
        return page

    def requests(self, pages: Pages) -> Iterator[bytes]:
        """Yield requests for new pages, without end."""
        return (request(self.address, self.path, json.dumps(self.body(page)).encode()) for page in pages)

    def ask(self, pages: Pages) -> dict[str, Any] | None:
        """Return the answer to one new page, over a connection of its own; None when there is none."""
        content = json.dumps(self.body(next(iter(pages)))).encode()
        asked = Request(self.address + self.path, content, {"content-type": "application/json"})
        try:
            with urlopen(asked, timeout=DEADLINE_S + 1) as answer:
                return facts(answer.read())
        except (OSError, ValueError):
            return None

    def processor_seconds(self) -> float:
        """Return what its processes have computed so far, those included that have ended."""
        root, total = psutil.Process(self.process), 0.0
        for one in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:4])
        return total

    @abstractmethod
    def kill_one(self, pages: Pages) -> Callable[[Sequence[Answer]], float]:
        """Kill a replica; return what tells, from answers and their beginning, when another one is at work."""

    @abstractmethod
    def swap(self, pages: Pages) -> None:
        """Have another version of the champion served."""


class Scorer(Server):
    """Ours."""

    changing: Swaps

    def kill_one(self, pages: Pages) -> Callable[[Sequence[Answer]], float]:
        lost, back = metric(self.address, "scorer_replicas_lost_total"), [math.nan]

        def watch() -> None:
            while math.isnan(back[0]) and time.perf_counter() < begun + 30:
                if metric(self.address, "scorer_replicas_lost_total") > lost and (
                    metric(self.address, "scorer_replicas") == REPLICAS
                ):
                    back[0] = time.perf_counter()
                time.sleep(0.01)

        # The scorer starts the zygote, that forks the keeper, and that the replicas
        keepers = [keeper for zygote in psutil.Process(self.process).children() for keeper in zygote.children()]
        begun = time.perf_counter()
        next(one for keeper in keepers for one in keeper.children()).kill()
        watching = threading.Thread(target=watch)
        watching.start()

        def told(answers: Sequence[Answer]) -> float:
            watching.join()
            return back[0] - begun

        return told

    def swap(self, pages: Pages) -> None:
        self.changing.step()


class Peer(Server):
    """Another server, whose answers say which process they come from.

    Args:
        address: of it.
        process: that it began as.
        champion: file that says what it serves.
    """

    package, module = "", ""

    def __init__(self, address: str, process: int, champion: Path) -> None:
        super().__init__(address, process)
        self._champion = champion

    @classmethod
    def command(cls, python: Path, port: int) -> list[str]:
        """Return what starts it."""
        return [str(python), "-m", cls.module, str(port), str(REPLICAS)]

    def kill_one(self, pages: Pages) -> Callable[[Sequence[Answer]], float]:
        known = self._replicas(pages)
        os.kill(min(known), signal.SIGKILL)
        killed = time.perf_counter()

        def told(answers: Sequence[Answer]) -> float:
            others = [one.came for one in answers if one.good and facts(one.body)["replica"] not in known]
            return min(others, default=math.nan) - killed

        return told

    def swap(self, pages: Pages) -> None:
        """Tell its replicas to end, one after the other: what supervises them starts others, with the new champion."""
        self._next_version()
        known = self._replicas(pages)
        for replica in sorted(known):
            os.kill(replica, signal.SIGTERM)
            until = time.perf_counter() + 30
            while time.perf_counter() < until:
                answer = self.ask(pages)
                if answer is not None and answer["replica"] not in known:
                    known.add(answer["replica"])
                    break
                time.sleep(0.1)

    def _next_version(self) -> None:
        content = json.loads(self._champion.read_text(encoding="utf-8"))
        self._champion.write_text(json.dumps({**content, "version": content["version"] + 1}), encoding="utf-8")

    def _replicas(self, pages: Pages) -> set[int]:
        found: set[int] = set()
        for _ in range(100):
            answer = self.ask(pages)
            found |= {answer["replica"]} if answer else set()
            if len(found) == REPLICAS:
                break
        return found


class LitServe(Peer):
    path, package, module = "/predict", "litserve", "benchmarks.peers.litserve_server"


class RayServe(Peer):
    path, package, module = "/", "ray[serve]", "benchmarks.peers.ray_server"

    def swap(self, pages: Pages) -> None:
        self._next_version()
        os.kill(self.process, signal.SIGUSR1)


class BentoML(Peer):
    package, module = "bentoml", "benchmarks.peers.bentoml_server"

    @classmethod
    def command(cls, python: Path, port: int) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port)]
        return [str(python), "-m", "bentoml", "serve", f"{cls.module}:Pages", *where]

    def body(self, page: dict[str, Any]) -> Any:
        return {"pages": [page]}  # batches are joined along a list


PEERS: tuple[type[Peer], ...] = (LitServe, RayServe, BentoML)
OURS = "the scorer"


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return 0 when every target is met, else 1; a quick run only shows that it runs."""
    options = arguments("serving_peers", __doc__, argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what runs is ended, too
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = copied_home(folder)
        with Contest(folder, home, options.seed) as contest:
            rounds = run(contest, QUICK if options.quick else FULL)
    figures = compare(rounds)
    report("serving_peers", figures, options.json, beside=True)
    return 0 if options.quick or all(each.met is not False for each in figures) else 1


class Contest:
    """The servers that can be started here, by name.

    Args:
        folder: for files of this run.
        home: with a champion; labels and copies are written there.
        seed: of the pages.
    """

    def __init__(self, folder: Path, home: Path, seed: int) -> None:
        self._folder, self._home = folder, home
        self.pages = Pages(home, seed)
        self._champion = folder / "champion.json"
        # Nobody but the scorer labels anything ahead
        self._settings = {"TOURNAMENT_WARM_PAIRS": "0", "TOURNAMENT_REPLICAS": str(REPLICAS)}
        self.names = [OURS]
        self.pythons: dict[str, Path] = {}
        self.bare_s = 0.0
        self._log = (folder / "servers.log").open("w", encoding="utf-8")

    def __enter__(self) -> Contest:
        with running_scorer(self._home, self._settings):
            say("the scorer has its copy of the champion")
        self._write_champion()
        self.bare_s = self._bare_seconds()
        self.changing = Swaps(self._home)
        for peer in PEERS:
            python = environment(peer.package)
            if python is not None:
                self.names.append(peer.__name__)
                self.pythons[peer.__name__] = python
        return self

    def __exit__(self, *error: object) -> None:
        self._log.close()

    @contextmanager
    def server(self, name: str) -> Iterator[tuple[Server, float]]:
        """Start a server; yield it, and the seconds until it answered a page."""
        begun = time.perf_counter()
        if name == OURS:
            with running_scorer(self._home, self._settings) as (address, process):
                scorer = Scorer(address, process)
                scorer.changing = self.changing
                yield scorer, self._answers(scorer) - begun
            return
        kind = next(one for one in PEERS if one.__name__ == name)
        port = free_port()
        variables = {
            **os.environ,
            **{PLACE: str(self._champion), "REPLICAS": str(REPLICAS), "OMP_NUM_THREADS": "1"},
            **{"PYTHONPATH": str(_ROOT), "TOKENIZERS_PARALLELISM": "false", "HOME": str(self._folder)},
            **{"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0"},
        }
        started = subprocess.Popen(
            kind.command(self.pythons[name], port),
            env=variables,
            cwd=self._folder,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        try:
            peer = kind(f"http://127.0.0.1:{port}", started.pid, self._champion)
            yield peer, self._answers(peer) - begun
        finally:
            _end(started)

    def _answers(self, server: Server) -> float:
        """Wait until pages are answered; return when that was."""
        until = time.perf_counter() + _START_S
        while time.perf_counter() < until:
            if server.ask(self.pages) is not None:
                return time.perf_counter()
            time.sleep(0.05)
        raise RuntimeError(f"{type(server).__name__} answers no page within {_START_S:g} s; see {self._log.name}")

    def _write_champion(self) -> None:
        from esci_tournament.deployments.scorer.compute.loading import Job

        folder = next(next((self._home / "serving" / "champions").glob("*-*/ensemble")).iterdir())
        products = next((self._home / "stages").glob("load-*")) / "products.arrow"
        job = Job(folder, "cpu", None, 1, 512, products, "", self._home / "serving" / "vectors")
        self._champion.write_text(json.dumps({"version": 1, "job": job.to_json()}), encoding="utf-8")

    def _bare_seconds(self) -> float:
        """Return the time of a page in members and aggregator, with one thread and nothing around them."""
        os.environ[PLACE] = str(self._champion)
        champion, pages = Champion(), iter(self.pages)
        champion.answer([next(pages)])
        return median_seconds(lambda: champion.answer([next(pages)]), 40)


def environment(package: str) -> Path | None:
    """Return the Python of an environment that has a package and sees this one's packages; None if it can't be made."""
    folder = _ROOT / "build" / "peers" / package.partition("[")[0]
    python = folder / "bin" / "python"
    if (folder / ".installed").is_file():
        return python
    say(f"installing {package} into {folder.relative_to(_ROOT)}")
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
        site = next(folder.glob("lib/python*/site-packages"))
        seen = [path for path in sys.path if path.endswith("-packages") or path.endswith("editable")]
        (site / "layer.pth").write_text("\n".join(seen) + "\n", encoding="utf-8")
        subprocess.run([str(python), "-m", "pip", "install", package], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"{package} is left out: {error}")
        return None
    (folder / ".installed").touch()
    return python


def run(contest: Contest, size: Size) -> list[dict[str, Measures]]:
    """Return what was measured of each server in each round."""
    say(f"a page takes the members alone {1000 * contest.bare_s:.1f} ms")
    rounds: list[dict[str, Measures]] = []
    begun = time.monotonic()
    for number in range(size.rounds):
        if time.monotonic() - begun > _LATEST_S:
            break
        order = contest.names if number % 2 == 0 else contest.names[::-1]
        found = {}
        for name in order:
            with contest.server(name) as (server, ready_s):
                found[name] = {"start to the first page": (ready_s, "s")} | under_load(server, contest, size)
                if number == 0:
                    found[name] |= disturbed(server, contest, size)
            told = ", ".join(f"{what} {value:.4g} {unit}" for what, (value, unit) in found[name].items())
            say(f"round {number + 1}, {name}: {told}")
        rounds.append(found)
    return rounds


def under_load(server: Server, contest: Contest, size: Size) -> Measures:
    """Return what is measured while nothing happens: waiting at some rates, what it can do, what it takes."""
    found: Measures = {}
    fresh = server.requests(contest.pages)
    closed_loop(server.address, list(islice(fresh, 600)), 4, 2.0)
    most = REPLICAS / contest.bare_s
    for share in SHARES:
        moments = arrivals(share * most, size.seconds)
        before = server.processor_seconds()
        answers = trace(server.address, list(islice(fresh, len(moments))), moments)
        spent = server.processor_seconds() - before
        good = [one for one in answers if one.good]
        name = f"{share * most:.0f} pages a second"
        for percentile in (50, 99):
            found[f"{name}: p{percentile}"] = (milliseconds(answers, percentile), "ms")
        found[f"{name}: failed"] = (len(answers) - len(good), "requests")
        if share == SHARES[1]:
            found["processor time of a page"] = (1000 * spent / max(len(good), 1), "ms")
    load = closed_loop(server.address, list(islice(fresh, round(3 * most * size.seconds))), CLIENTS, size.seconds)
    found[f"pages a second, {CLIENTS} clients"] = (load.per_second, "pages/s")
    found["memory of all processes"] = (memory_mib(server.process), "MiB")
    return found


def disturbed(server: Server, contest: Contest, size: Size) -> Measures:
    """Return what becomes of requests in a burst, when a replica is killed, and when the champion changes."""
    found = burst(server, contest.pages, size.burst)
    rate = SHARES[1] * REPLICAS / contest.bare_s
    fresh = server.requests(contest.pages)

    back: list[Callable[[Sequence[Answer]], float]] = []
    moments = arrivals(rate, size.killed, seed=1)
    asked = list(islice(fresh, len(moments)))
    begun, answers = _while_loaded(server, asked, moments, lambda: back.append(server.kill_one(contest.pages)))
    since = [Answer(one.due + begun, one.came + begun, one.status, one.body) for one in answers]
    found["a replica is killed: failed"] = (sum(not one.good for one in answers), "requests")
    found["a replica is killed: until there are two again"] = (back[0](since), "s")
    found["a replica is killed: slowest answer"] = (milliseconds(answers, 100), "ms")

    told: list[float] = []

    def change() -> None:
        told.append(time.perf_counter())
        server.swap(contest.pages)

    moments = arrivals(rate, size.changed, seed=2)
    asked = list(islice(fresh, len(moments)))
    begun, answers = _while_loaded(server, asked, moments, change)
    versions = [facts(one.body)["champion"]["version"] for one in answers if one.good]
    old = [one.came for one in answers if one.good and facts(one.body)["champion"]["version"] == versions[0]]
    changed = len(set(versions)) > 1
    found["champion changes: failed"] = (sum(not one.good for one in answers), "requests")
    found["champion changes: until the old one is gone"] = (max(old) + begun - told[0] if changed else math.nan, "s")
    found["champion changes: p99"] = (milliseconds(answers, 99), "ms")
    return found


def burst(server: Server, pages: Pages, number: int) -> Measures:
    """Return what becomes of pages that come at once and are more than can be answered in time.

    Args:
        server: that is asked.
        pages: to ask for.
        number: of pages.
    """
    name = f"{number} pages at once"
    fresh = server.requests(pages)
    before = server.processor_seconds()
    time.sleep(1.0)
    idle = server.processor_seconds() - before
    asked, spent = list(islice(fresh, number)), []
    timer = threading.Timer(DEADLINE_S + 0.05, lambda: spent.append(server.processor_seconds()))
    timer.start()
    begun = time.perf_counter()
    answers = trace(server.address, asked, [0.0] * number, connections=number)
    after, ended = _until_idle(server, idle)
    late = after - spent[0] - idle * (ended - begun - DEADLINE_S)
    in_time = [facts(one.body) for one in answers if one.good and one.came <= DEADLINE_S + 0.05]
    partial = sum(not one.get("complete", True) for one in in_time)
    # Once more, with pages that come when the time of the others is up
    moments = [0.0] * number + np.arange(DEADLINE_S + 0.05, DEADLINE_S + 6, 0.1).tolist()
    probes = trace(server.address, list(islice(fresh, len(moments))), moments, connections=2 * number)[number:]
    first = next((one.due for one in probes if one.good), math.nan)
    _until_idle(server, idle)
    return {
        f"{name}: answered within the deadline": (len(in_time) - partial, "pages"),
        f"{name}: by some of the members, within the deadline": (partial, "pages"),
        f"{name}: last answer or refusal": (max(one.came for one in answers), "s"),
        f"{name}: processor time after the deadline": (max(late, 0), "s"),
        f"{name}: until new pages are answered, after the deadline": (first - DEADLINE_S, "s"),
    }


def facts(body: bytes) -> dict[str, Any]:
    """Return what an answer says; BentoML's is in a list."""
    content = json.loads(body)
    found: dict[str, Any] = content[0] if isinstance(content, list) else content
    return found


def milliseconds(answers: Sequence[Answer], percentile: float) -> float:
    """Return a percentile of the times of good answers, from when each was due."""
    times = [one.came - one.due for one in answers if one.good]
    return 1000 * float(np.percentile(times, percentile)) if times else math.nan


def compare(rounds: Sequence[dict[str, Measures]]) -> list[Figure]:
    """Return a figure for each measure and peer: the scorer's median over the rounds beside the peer's."""
    figures = []
    peers = [name for name in rounds[0] if name != OURS]
    for name, (_, unit) in rounds[0][OURS].items():
        target = "<= 0" if name in ("a replica is killed: failed", "champion changes: failed") else ""
        ours = _median(rounds, OURS, name)
        for peer in sorted(peers, key=[one.__name__ for one in PEERS].index) or [""]:
            value = _median(rounds, peer, name) if peer else None
            figures.append(figure(name, ours, unit, target, peer, value))
    return [*figures, figure("rounds", len(rounds), "rounds")]


def _median(rounds: Sequence[dict[str, Measures]], server: str, name: str) -> float:
    return statistics.median(one[server][name][0] for one in rounds if name in one[server])


def _while_loaded(
    server: Server, asked: Sequence[bytes], moments: Sequence[float], happens: Callable[[], None]
) -> tuple[float, list[Answer]]:
    """Send the load; two seconds after its beginning something happens. Return when it began, and the answers."""
    timer = threading.Timer(2.0, happens)
    timer.start()
    begun = time.perf_counter()
    answers = trace(server.address, asked, moments)
    timer.join()
    return begun, answers


def _until_idle(server: Server, idle: float) -> tuple[float, float]:
    """Wait until a server computes nothing but what it always does; return its processor seconds, and when that was."""
    known = server.processor_seconds()
    for _ in range(40):
        time.sleep(0.5)
        known, before = server.processor_seconds(), known
        if known - before < 0.5 * idle + 0.05:
            break
    return known, time.perf_counter()


def _end(process: subprocess.Popen) -> None:
    """End a peer and all processes below it."""
    tree = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    with suppress(ProcessLookupError):
        process.kill()
    process.wait(10)


if __name__ == "__main__":
    sys.exit(main())
