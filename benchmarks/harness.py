"""Shared by all benchmarks: options, machine, and figures with their targets, as a table or as one JSON document."""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_PACKAGES = ("numpy", "lightgbm", "shap", "torch")
_MET = {True: "yes", False: "NO", None: ""}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name, value, unit: what was measured.
        target: "<= 0.05" or ">= 5", or "" when it is printed for information.
        peer, peer_value: what it stands beside, measured in the same run.
        met: whether the target is met; None without a target.
    """

    name: str
    value: float
    unit: str
    target: str = ""
    peer: str = ""
    peer_value: float | None = None
    met: bool | None = None


def figure(
    name: str, value: float, unit: str, target: str = "", peer: str = "", peer_value: float | None = None
) -> Figure:
    """Return a figure with `met` worked out from its target, such as ">= 5"."""
    met = None
    if target:
        comparison, bound = target.split()
        met = bool(_COMPARISONS[comparison](value, float(bound)))
    return Figure(name, float(value), unit, target, peer, None if peer_value is None else float(peer_value), met)


def arguments(
    subject: str, description: str | None, argv: Sequence[str] | None = None, parts: Sequence[str] = ()
) -> argparse.Namespace:
    """Read the options that all benchmarks have: `--json`, `--quick`, `--seed`, and `--only` where there are parts."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{subject}", description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--quick", action="store_true", help="a smaller size, for CI: targets are for the full size")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is generated")
    if parts:
        parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="parts that are run; default: all")
    return parser.parse_args(argv)


def in_processes(work: Callable[[Any], Any], tasks: Iterable[Any], what: str, processes: int = 2) -> list[Any]:
    """Return the result of each task, worked out in new processes, and say now and then how many are done."""
    tasks, results = list(tasks), []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done, result in enumerate(pool.map(work, tasks, chunksize=1 + len(tasks) // 100), 1):
            results.append(result)
            if done % max(len(tasks) // 4, 1) == 0:
                say(f"{done} of {len(tasks)} {what}")
    return results


def report(subject: str, figures: Sequence[Figure], as_json: bool, beside: bool = False) -> None:
    """Print the figures on standard output.

    Args:
        subject: of the benchmark.
        figures: what was measured.
        as_json: as one JSON document.
        beside: figures of one name, each with another peer, are one line of the table.
    """
    if as_json:
        document = {"subject": subject, "machine": machine(), "figures": [asdict(each) for each in figures]}
        print(json.dumps(document, indent=2))
        return
    if beside:
        _print_beside(subject, figures)
        return
    table = Table(title=f"{subject}, {_machine_line()}", title_justify="left")
    for heading in ("figure", "value", "unit", "target", "met", "peer", "peer's value"):
        table.add_column(heading, justify="right" if "value" in heading else "left", overflow="fold")
    for each in figures:
        peer = "" if each.peer_value is None else _short(each.peer_value)
        table.add_row(each.name, _short(each.value), each.unit, each.target, _MET[each.met], each.peer, peer)
    _print(table)


def _print_beside(subject: str, figures: Sequence[Figure]) -> None:
    peers = list(dict.fromkeys(each.peer for each in figures if each.peer))
    table = Table(title=f"{subject}, {_machine_line()}", title_justify="left")
    for heading in ("figure", "unit", "target", "met", "value", *peers):
        table.add_column(heading, justify="right" if heading in ("value", *peers) else "left", overflow="fold")
    for name in dict.fromkeys(each.name for each in figures):
        lines = [each for each in figures if each.name == name]
        values = {each.peer: _short(each.peer_value) for each in lines if each.peer_value is not None}
        known = [values.get(peer, "") for peer in peers]
        first = lines[0]
        table.add_row(name, first.unit, first.target, _MET[first.met], _short(first.value), *known)
    _print(table)


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def say(text: str) -> None:
    """Report progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def median_seconds(work: Callable[[], Any], runs: int) -> float:
    """Return the median wall time of `runs` calls."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES if _installed(name)},
    }


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _machine_line() -> str:
    facts = machine()
    return f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, Python {facts['python']}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _short(value: float) -> str:
    if value == 0 or 0.001 <= abs(value) < 1e6:
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return f"{value:.2e}"
