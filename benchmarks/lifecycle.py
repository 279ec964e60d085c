"""Crash test: candidates register, compete, are reviewed and promoted while everything is killed repeatedly.

A stack as `tournament up` runs it (Prefect server, MLflow server, worker, watcher) on a small generated world.
Candidates are score files, each a little better than the last, so that nothing trains and there are many verdicts. One
of worker, flow run, watcher, Prefect server, MLflow server or database is ended, by signal 9 or by SIGTERM, and
restarted at once. There are two rhythms in turn. In a lull, which ends with a tournament or after a minute or so, there
is one at random every six to twenty seconds, of a flow run half of the time: they hit each stage of a tournament. In a
storm thirty follow each other within half a second: they hit reviews and promotions, and then what is just starting.
After a storm comes an outage of some seconds: a full disk, a registry that hangs, or a ledger whose database does not
answer. A script approves or refuses open reviews and checks the champion all the time. All kills are made in the first
three fifths of the time of a part; what is left after the last one is for whoever still waits. The part ends when all
candidates have competed, and the ledger is checked.

The kills are divided among parts that add up, each with a home of its own, in turn with the ledger on SQLite and, where
its programs are installed, on PostgreSQL. With `--results FILE` parts that are in the file are not run again.

    python -m benchmarks.lifecycle [--kills 1000] [--minutes 60] [--results kills.json] [--part 2/8] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import Figure, arguments, figure, report, say
from benchmarks.hazards import Database, Disk, Outages, free_port, kill
from benchmarks.rhythm import Rhythm
from esci_tournament.deployments.stack import supervise
from esci_tournament.deployments.stack.access import name_server
from esci_tournament.deployments.stack.services import api_url
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.synthesize import synthesize

KILLS, QUICK_KILLS = 1000, 20
KILLS_A_PART = 125
CANDIDATES_A_KILL = 0.05
SETTLE_SHARE = 0.4  # of the time, after the last kill: whoever waits still has a turn

Counts = dict[str, Any]  # what a part came to: numbers that add up, and mappings of numbers


@dataclass
class Seen:
    """What was seen of the champion while processes died."""

    observations: int = 0
    none: int = 0  # MLflow had no champion, though there had been one
    unequal: int = 0  # alias and ledger differed, and no promotion was under way
    unreachable: int = 0
    aliases: set[int] = field(default_factory=set)
    kills: Counter[str] = field(default_factory=Counter)
    outages: Counter[str] = field(default_factory=Counter)
    decisions: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    mine = argparse.ArgumentParser(add_help=False)
    mine.add_argument("--kills", type=int, help=f"in all parts (default: {KILLS}, with --quick {QUICK_KILLS})")
    mine.add_argument("--minutes", type=float, default=60.0, help="for all parts: each ends in time, whatever is left")
    mine.add_argument("--part", help="such as 2/8: run this one of eight alone")
    mine.add_argument("--results", type=Path, help="JSON file that keeps what each part came to")
    own, rest = mine.parse_known_args(sys.argv[1:] if argv is None else argv)
    options = arguments("lifecycle", f"{__doc__}\n{mine.format_help()}", rest)
    kills = own.kills or (QUICK_KILLS if options.quick else KILLS)
    chosen, parts = parts_of(own.part, kills)
    known: dict[str, Counts] = json.loads(own.results.read_text()) if own.results and own.results.is_file() else {}
    began = time.monotonic()
    for place, number in enumerate(chosen, 1):
        name = f"{number}/{parts} of {kills} kills, seed {options.seed}"
        if name in known:
            say(f"part {name}: in {own.results}")
            continue
        with tempfile.TemporaryDirectory(prefix="lifecycle-", ignore_cleanup_errors=True) as folder:
            share = kills * number // parts - kills * (number - 1) // parts
            seconds = 60 * own.minutes / parts * place - (time.monotonic() - began)  # with what earlier ones have left
            seed = options.seed * 1000 + number
            known[name] = run(Path(folder), share, seconds, seed, on_postgres=number % 2 == 0)
        if own.results:
            own.results.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    wanted = [known[name] for name in known if f"/{parts} of {kills} kills, seed {options.seed}" in name]
    figures = figures_of(wanted, kills)
    report("lifecycle", figures, options.json)
    return 0 if all(each.met is not False for each in figures) else 1


def parts_of(said: str | None, kills: int) -> tuple[list[int], int]:
    """Return which parts are run, from 1, and how many there are.

    Without a wish there are as many as have about `KILLS_A_PART` kills each, an even number: half of them on each
    database.

    Example:
        >>> parts_of(None, 1000), parts_of("2/8", 1000), parts_of(None, 20)
        (([1, 2, 3, 4, 5, 6, 7, 8], 8), ([2], 8), ([1, 2], 2))
    """
    if said is None:
        parts = 2 * max(1, round(kills / KILLS_A_PART / 2))
        return list(range(1, parts + 1)), parts
    number, parts = map(int, said.split("/"))
    if not 1 <= number <= parts:
        raise SystemExit(f"--part {said}: the first number must be between 1 and the second")
    return [number], parts


def run(folder: Path, kills: int, seconds: float, seed: int, on_postgres: bool) -> Counts:
    """Run one part in `folder` and return what it came to."""
    started, chance = time.monotonic(), random.Random(seed)
    data = synthesize(folder / "world", queries=120, seed=7, searches_per_query=2)
    database, disk = Database.start() if on_postgres else Database(), Disk.mount(folder / "disk")
    settings = settings_of(disk.place, data, database)
    supervise.BACKOFF_S = (0.2,)  # type: ignore[assignment]  # a kill is no failure of the service: nothing to wait for
    stack = supervise.Supervisor(settings, say=lambda _: None)
    healthy = threading.Event()
    thread = threading.Thread(target=stack.run, args=(lambda _: healthy.set(),), daemon=True)
    thread.start()
    try:
        if not healthy.wait(settings.startup_timeout_s):
            raise RuntimeError(f"the stack did not come up; its logs are in {settings.home / 'logs'}")
        name_server(settings.home, api_url(settings))
        workspace, seen = Workspace(settings), Seen()
        files = write_candidates(folder, data, max(3, round(kills * CANDIDATES_A_KILL)), seed)
        outages = Outages(stack, database, disk, settings.home)
        say(f"{len(files)} candidates, {kills} kills, ledger on {'PostgreSQL' if database.url else 'SQLite'}")
        ids: list[str] = []
        held, names = 0, list(files)
        rhythm = Rhythm(kills, time.monotonic(), started + seconds * (1 - SETTLE_SHARE), chance)
        while time.monotonic() - started < seconds:
            observe(workspace, seen)
            decide(workspace, seen, chance)
            if names and len(ids) <= rhythm.done * len(files) / (0.8 * kills):
                with suppress(Exception):  # the registry may be down: the engineer tries again
                    ids.append(register(workspace, names[0], files[names[0]]))
                    names.pop(0)
            held = tournaments(workspace, held)
            if rhythm.is_time(time.monotonic(), held):
                rather = "flow run" if rhythm.is_calm and chance.random() < 0.5 else ""
                victim = kill(stack, database, chance, rather)
                seen.kills.update([victim] if victim else [])
                if rhythm.killed(time.monotonic(), one=bool(victim)):
                    seen.outages[outages.begin(chance)] += 1
                    say(
                        f"{time.monotonic() - started:.0f} s: {rhythm.done} kills, {len(ids)} registered, "
                        f"{held} tournaments"
                    )
            if rhythm.done >= kills and not names and settled(workspace, ids):
                break
            time.sleep(0.2)
        return count(workspace, ids, seen, time.monotonic() - started, "postgresql" if database.url else "sqlite")
    finally:
        stack.stop()
        thread.join(60)
        disk.unmount()
        database.stop()


def settings_of(folder: Path, data: Path, database: Database) -> Settings:
    """Return the settings of the stack, all of them on loopback and in `folder`."""
    ports = {name: free_port() for name in ("prefect_port", "mlflow_port", "watcher_port")}
    return read_settings(
        home=folder / "home", data=str(data), ledger_url=database.url, device="cpu", watch_interval_s=2.0,
        share_tournament=6,
        full_look_s=60.0, lost_after_s=15.0, retry_s=2.0, dispatch_losses=200, keep_score_files=True, workers=1,
        minimum_test_queries=10, resamples=500, guardrail_margin=0.5, alpha=0.5, review="required", review_rounds=100,
        review_stuck_s=15.0, startup_timeout_s=180.0, selection="greedy", **ports,
    )  # fmt: skip


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


def tournaments(workspace: Workspace, known: int) -> int:
    """Return how many tournaments have finished; `known` when the ledger cannot be read."""
    try:
        return len({event.tournament for event in workspace.ledger.events(kind="finished")})
    except Exception:
        return known


def count(workspace: Workspace, ids: Sequence[str], seen: Seen, seconds: float, database: str) -> Counts:
    """Return what the record says."""
    from esci_tournament.registry.queue import Queue
    from esci_tournament.registry.states import states

    ledger, ensemble = workspace.ledger, workspace.settings.ensemble_name
    queue, known = Queue(ledger), states(ledger, ensemble)
    for id in ids:
        say(f"{id}: {known[id].state if id in known else 'unknown'} {known[id].reason if id in known else ''}")
    late = [id for id in ids if id in known and known[id].state in ("queued", "training", "interrupted", "judged")]
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
    attempts = [attempt for one in queue.dispatches() for attempt in one.attempts]
    return {
        "kills": dict(seen.kills),
        "outages": dict(seen.outages),
        "databases": {database: sum(seen.kills.values())},
        "registered": len(ids),
        "lost": len(lost),
        "late": len(late),
        "twice": len(twice),
        "tournaments": len(finished),
        "broken attempts": sum(one.end in ("lost", "outage") for one in attempts),
        "looks": seen.observations,
        "unreachable": seen.unreachable,
        "none": seen.none,
        "unequal": seen.unequal,
        "decisions": seen.decisions,
        "promotions": len(chapters),
        "undone": sum(one.done_at is None for one in chapters),
        "undecided": sum(one.decision is None or bool(one.complaint) for one in chapters),
        "unknown": len(seen.aliases - {chapter.promotion.version for chapter in chapters}),
        "minutes": round(seconds / 60, 2),
    }


def added(parts: Sequence[Counts]) -> Counts:
    """Return the sums of what parts came to.

    Example:
        >>> added([{"lost": 0, "kills": {"worker": 2}}, {"lost": 1, "kills": {"worker": 1, "watcher": 3}}])
        {'lost': 1, 'kills': {'worker': 3, 'watcher': 3}}
    """
    total: Counts = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, dict):
                sums = total.setdefault(name, {})
                for key, number in value.items():
                    sums[key] = sums.get(key, 0) + number
            else:
                total[name] = total.get(name, 0) + value
    return total


def figures_of(parts: Sequence[Counts], kills: int) -> list[Figure]:
    """Return the figures of all parts together; `kills` is how many processes were to be ended in all of them."""
    total = added(parts)
    return [
        figure("processes ended", sum(total["kills"].values()), "kills", f">= {kills}"),
        *(figure(f"ended: {what}", number, "kills") for what, number in sorted(total["kills"].items())),
        *(figure(f"ended with the ledger on {one}", number, "kills") for one, number in total["databases"].items()),
        *(figure(f"outages: {what}", number, "") for what, number in sorted(total["outages"].items())),
        figure("candidates registered", total["registered"], "candidates"),
        figure("candidates lost", total["lost"], "candidates", "<= 0"),
        figure("candidates that still wait at the end", total["late"], "candidates", "<= 0"),
        figure("candidates entered twice", total["twice"], "candidates", "<= 0"),
        figure("tournaments held", total["tournaments"], "tournaments"),
        figure("attempts that were killed or met an outage", total["broken attempts"], ""),
        figure("looks at the champion", total["looks"], "looks"),
        figure("looks that met a database that was down", total["unreachable"], "looks"),
        figure("looks that found no champion, after the first", total["none"], "looks", "<= 0"),
        figure("looks where alias and ledger differed", total["unequal"], "looks", "<= 0"),
        figure("reviewer's decisions", total["decisions"], "decisions"),
        figure("promotions", total["promotions"], "promotions", ">= 1"),
        figure("promotions that are not done", total["undone"], "promotions", "<= 0"),
        figure("promotions without a valid decision", total["undecided"], "promotions", "<= 0"),
        figure("champions in MLflow that the ledger does not know", total["unknown"], "versions", "<= 0"),
        figure("time of all parts", total["minutes"], "min", "<= 62"),
    ]


if __name__ == "__main__":
    sys.exit(main())
