"""Crash test: candidates register, compete, are reviewed and promoted while every process is killed repeatedly.

A stack as `tournament up` runs it (Prefect server, MLflow server, worker, watcher; the ledger on PostgreSQL where its
programs are installed) on a small generated world. Candidates are score files, each a little better than the last, so
that nothing trains and there are many verdicts. Every few seconds one of worker, flow run, watcher, Prefect server,
MLflow server or database is killed with signal 9 and restarted at once. A script approves or refuses open reviews and
checks the champion all the time. At the end, when all candidates have competed, the ledger is checked.

    python -m benchmarks.lifecycle [--kills 100] [--minutes 24] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from benchmarks.harness import Figure, arguments, figure, report, say
from esci_tournament.deployments.stack import supervise
from esci_tournament.deployments.stack.access import name_server
from esci_tournament.deployments.stack.services import api_url
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.synthesize import synthesize

KILLS, QUICK_KILLS = 100, 8
CANDIDATES_A_KILL = 0.12
SETTLE_SHARE = 0.35  # of the time at most, after the last kill: whoever waits still has a turn


@dataclass
class Seen:
    """What was seen of the champion while processes died."""

    observations: int = 0
    none: int = 0  # MLflow had no champion, though there had been one
    unequal: int = 0  # alias and ledger differed, and no promotion was under way
    unreachable: int = 0
    aliases: set[int] = field(default_factory=set)
    kills: Counter[str] = field(default_factory=Counter)
    decisions: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    mine = argparse.ArgumentParser(add_help=False)
    mine.add_argument("--kills", type=int, help=f"processes to kill (default: {KILLS}, with --quick {QUICK_KILLS})")
    mine.add_argument("--minutes", type=float, default=24.0, help="the run ends after this time, whatever is left")
    own, rest = mine.parse_known_args(sys.argv[1:] if argv is None else argv)
    options = arguments("lifecycle", f"{__doc__}\n{mine.format_help()}", rest)
    kills = own.kills or (QUICK_KILLS if options.quick else KILLS)
    with tempfile.TemporaryDirectory(prefix="lifecycle-") as folder:
        figures = run(Path(folder), kills, 60 * own.minutes, options.seed)
    report("lifecycle", figures, options.json)
    return 0 if all(each.met is not False for each in figures) else 1


def run(folder: Path, kills: int, seconds: float, seed: int) -> list[Figure]:
    """Return the figures of one run in `folder`."""
    started, chance = time.monotonic(), random.Random(seed)
    data = synthesize(folder / "world", queries=120, seed=7, searches_per_query=2)
    database = Database.start(folder)
    settings = settings_of(folder, data, database)
    supervise.BACKOFF_S = (0.2,)  # type: ignore[assignment]  # a kill is no failure of the service: nothing to wait for
    stack = supervise.Supervisor(settings, say=say)
    healthy = threading.Event()
    thread = threading.Thread(target=stack.run, args=(lambda _: healthy.set(),), daemon=True)
    thread.start()
    try:
        if not healthy.wait(settings.startup_timeout_s):
            raise RuntimeError(f"the stack did not come up; its logs are in {settings.home / 'logs'}")
        name_server(settings.home, api_url(settings))
        workspace, seen = Workspace(settings), Seen()
        files = write_candidates(folder, data, max(4, round(kills * CANDIDATES_A_KILL)), seed)
        killing = seconds * (1 - SETTLE_SHARE)
        pause = max(1.0, (killing - (time.monotonic() - started)) / kills * 0.9)
        say(f"{len(files)} candidates, {kills} kills, one every {pause:.1f} s")
        ids: list[str] = []
        next_kill, names = time.monotonic() + 20.0, list(files)
        while time.monotonic() - started < seconds:
            observe(workspace, seen)
            decide(workspace, seen, chance)
            done = sum(seen.kills.values())
            if names and len(ids) <= done * len(files) / (0.8 * kills):
                with suppress(Exception):  # the registry may be down: the engineer tries again
                    ids.append(register(workspace, names[0], files[names[0]]))
                    names.pop(0)
            if done < kills and time.monotonic() >= next_kill:
                if victim := kill(stack, database, chance):
                    seen.kills[victim] += 1
                    if sum(seen.kills.values()) % 10 == 0:
                        say(f"{time.monotonic() - started:.0f} s: {dict(seen.kills)}, {len(ids)} registered")
                next_kill = time.monotonic() + chance.uniform(0.5, 1.5) * pause
            if done >= kills and not names and settled(workspace, ids):
                break
            time.sleep(0.3)
        return count(workspace, ids, seen, time.monotonic() - started)
    finally:
        stack.stop()
        thread.join(60)
        database.stop()


def settings_of(folder: Path, data: Path, database: Database) -> Settings:
    """Return the settings of the stack, all of them on loopback and in `folder`."""
    ports = {name: free_port() for name in ("prefect_port", "mlflow_port", "watcher_port")}
    return read_settings(
        home=folder / "home", data=str(data), ledger_url=database.url, device="cpu", watch_interval_s=2.0,
        share_tournament=3,
        full_look_s=60.0, lost_after_s=15.0, retry_s=2.0, dispatch_losses=200, keep_score_files=True, workers=1,
        minimum_test_queries=10, resamples=500, guardrail_margin=0.5, alpha=0.5, review="required", review_rounds=100,
        review_stuck_s=15.0, startup_timeout_s=180.0, selection="greedy", **ports,
    )  # fmt: skip


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def write_candidates(folder: Path, data: Path, count: int, seed: int) -> dict[str, Path]:
    """Write a score file for each candidate, the later the nearer to the truth; return them by name."""
    examples = pd.read_parquet(next(data.glob("*examples*.parquet")))
    truth = examples["esci_label"].map({"E": 0, "S": 1, "C": 2, "I": 3}).to_numpy()
    files = {}
    for number in range(count):
        random_numbers = np.random.default_rng([seed, number])
        strength = 0.4 + 2.0 * number / count
        logits = random_numbers.normal(size=(len(truth), 4)) + strength * np.eye(4)[truth]
        values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        frame = pd.DataFrame(values.astype(np.float32), columns=["E", "S", "C", "I"])
        frame.insert(0, "example_id", examples["example_id"].to_numpy())
        files[f"scores-{number:02d}"] = folder / f"scores-{number:02d}.parquet"
        frame.to_parquet(files[f"scores-{number:02d}"], index=False)
    return files


def register(workspace: Workspace, name: str, file: Path) -> str:
    """Register a candidate; the same one again is the same version."""
    from esci_tournament.registry.specs import parse_spec

    content = {"name": name, "family": "scores", "file": str(file), "trained_on": "other_queries"}
    provenance = "generated from the truth, for this benchmark"
    return workspace.models.register_candidate(parse_spec(content | {"provenance": provenance})).id


# What dies


@dataclass
class Database:
    """A PostgreSQL cluster of our own, or, where its programs are missing, SQLite, which has no process to kill."""

    url: str | None = None
    folder: Path = Path()
    programs: Path = Path()
    port: int = 0

    @classmethod
    def start(cls, folder: Path) -> Database:
        """Make and start a cluster on loopback."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        elsewhere = shutil.which("initdb")
        if not found and elsewhere is None:
            say("no PostgreSQL programs: the ledger is on SQLite, and no database is killed")
            return cls()
        place = Path(tempfile.mkdtemp(prefix="lifecycle-postgres-"))
        made = cls("", place, found[-1] if found else Path(str(elsewhere)).parent, free_port())
        if os.getuid() == 0:
            shutil.chown(place, "nobody", "nogroup")
        made._run("initdb", "-D", f"{place}/data", "-A", "trust", "-U", "tournament", "--no-sync")
        made.begin()
        made.url = f"postgresql+psycopg://tournament@127.0.0.1:{made.port}/postgres"
        return made

    def begin(self) -> None:
        """Start the cluster; after a kill it recovers by itself."""
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def kill(self) -> bool:
        """Kill the server and all that it has forked, and start it again."""
        if self.url is None:
            return False
        pid = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=10)
        self.begin()
        return True

    def stop(self) -> None:
        """End the cluster and remove it."""
        if self.url is not None:
            self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        command = [*prefix, str(self.programs / program), *words]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=120)


def kill(stack: supervise.Supervisor, database: Database, chance: random.Random) -> str:
    """Kill one process that runs, with signal 9, and return what it was; "" when there was none such."""
    what = chance.choice(["prefect", "mlflow", "worker", "watcher", "flow run", "flow run", "database"])
    if what == "database":
        return what if database.kill() else ""
    service = "worker" if what == "flow run" else what
    leaders = [one.process for one in stack._watched if one.service.name == service and one.process is not None]
    if not leaders:
        return ""
    try:
        family = psutil.Process(leaders[0].pid).children(recursive=True)
        if what == "flow run":  # the worker's children: flow runs, and the models that they fit
            family = [one for one in family if "esci_tournament.deployments.worker" not in one.cmdline()]
            if not family:
                return ""
            chance.choice(family).kill()
        else:
            os.killpg(leaders[0].pid, signal.SIGKILL)
    except (psutil.Error, ProcessLookupError):
        return ""
    return what


# Who looks on


def observe(workspace: Workspace, seen: Seen) -> None:
    """Look at the champion, in MLflow and in the ledger."""
    from esci_tournament.registry.models import CHAMPION
    from esci_tournament.registry.promotion import drift

    try:
        alias = workspace.models.alias(CHAMPION)
        wrong = drift(workspace.ledger, workspace.models)
    except Exception:  # the database is down
        seen.unreachable += 1
        return
    seen.observations += 1
    if alias is not None:
        seen.aliases.add(alias)
    elif seen.aliases:
        seen.none += 1
    seen.unequal += bool(wrong)


def decide(workspace: Workspace, seen: Seen, chance: random.Random) -> None:
    """Approve, or now and then refuse, what waits for a reviewer."""
    from esci_tournament.flows.decision import answer
    from esci_tournament.registry.reviewers import Answer
    from esci_tournament.registry.reviews import waiting

    with suppress(Exception):  # a server is down: the reviewer tries again
        for case in waiting(workspace.ledger, workspace.settings.ensemble_name):
            if case.reviews:
                outcome = "refuse" if chance.random() < 0.2 else "approve"
                given = Answer(outcome, "reviewer", "by the benchmark", "command line", f"mark-{case.id}")
                answer(workspace, case, given)
                seen.decisions += 1


def settled(workspace: Workspace, ids: Sequence[str]) -> bool:
    """Return whether everybody has had a turn and nothing is open."""
    from esci_tournament.registry.states import states

    try:
        known = states(workspace.ledger, workspace.settings.ensemble_name)
        over = all(known[id].state in ("member", "benched", "failed", "refused") for id in ids if id in known)
        return over and set(ids) <= set(known) and not workspace.ledger.pending(workspace.settings.ensemble_name)
    except Exception:
        return False


def count(workspace: Workspace, ids: Sequence[str], seen: Seen, seconds: float) -> list[Figure]:
    """Return what the record says."""
    from esci_tournament.registry.queue import Queue
    from esci_tournament.registry.states import states

    ledger, ensemble = workspace.ledger, workspace.settings.ensemble_name
    queue, known = Queue(ledger), states(ledger, ensemble)
    for id in ids:
        say(f"{id}: {known[id].state if id in known else 'unknown'} {known[id].reason if id in known else ''}")
    late = [id for id in ids if id in known and known[id].state in ("queued", "training", "judged")]
    settled_in_a_tournament = queue.tried(list(ids))
    lost = [id for id in ids if id not in late and id not in settled_in_a_tournament]
    arrivals = Counter(row.candidate for row in queue.arrivals() if row.outcome == "queued")
    sent = Counter(candidate for one in queue.dispatches() for candidate in one.candidates)
    finished = {event.tournament for event in ledger.events(kind="finished")}
    entered = Counter(
        row.candidate for row in ledger.entries() if row.role == "newcomer" and row.tournament in finished
    )
    twice = [id for id in ids if max(arrivals[id], sent[id], entered[id]) > 1]
    chapters = ledger.history(ensemble)
    promoted = {chapter.promotion.version for chapter in chapters}
    attempts = [attempt for one in queue.dispatches() for attempt in one.attempts]
    figures = [figure(f"kills: {what}", number, "kills") for what, number in sorted(seen.kills.items())]
    return [
        figure("processes killed", sum(seen.kills.values()), "kills", f">= {KILLS}"),
        *figures,
        figure("candidates registered", len(ids), "candidates"),
        figure("candidates lost", len(lost), "candidates", "<= 0"),
        figure("candidates that still wait when the time is up", len(late), "candidates", "<= 0"),
        figure("candidates entered twice", len(twice), "candidates", "<= 0"),
        figure("tournaments held", len(finished), "tournaments"),
        figure(
            "attempts that were killed or met an outage", sum(one.end in ("lost", "outage") for one in attempts), ""
        ),
        figure("looks at the champion", seen.observations, "looks"),
        figure("looks that met a database that was down", seen.unreachable, "looks"),
        figure("looks that found no champion, after the first", seen.none, "looks", "<= 0"),
        figure("looks where alias and ledger differed", seen.unequal, "looks", "<= 0"),
        figure("reviewer's decisions", seen.decisions, "decisions"),
        figure("promotions", len(chapters), "promotions", ">= 1"),
        figure("promotions that are not done", sum(one.done_at is None for one in chapters), "promotions", "<= 0"),
        figure("champions in MLflow that the ledger does not know", len(seen.aliases - promoted), "versions", "<= 0"),
        figure("time", seconds / 60, "min", "<= 25"),
    ]


if __name__ == "__main__":
    sys.exit(main())
