"""Run candidates' steps in a worker process and report which of them failed, and why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from esci_tournament.registry.children import OUTSIDE, start_child
from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.processes import module_path, patient_threads, python_module
from esci_tournament.registry.secrecy import hide_process
from esci_tournament.registry.settings import Settings
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.memory import GIB, memory_watch
from esci_tournament.tasks.candidates.steps import CandidateInputs
from esci_tournament.tasks.families.loading import candidate_class
from esci_tournament.tasks.families.protocol import Progress, silent

_running: set[subprocess.Popen[bytes]] = set()
_no_more = threading.Event()

LOOK_S = 1.0  # between two questions whether a candidate is to stop

Step = tuple[CandidateInputs, str]  # a candidate, and its stage: "train" (which scores too) or "profile"


def supervise(
    steps: Sequence[Step],
    *,
    dataset: Path,
    roles: Path,
    stages: StageStore,
    scores: Path,
    log: Path,
    threads: int,
    timeout_s: float | None = None,
    memory_gib: float | None = None,
    environment: Mapping[str, str] | None = None,
    progress: Progress = silent,
    stopped: Callable[[str], str] = lambda _candidate: "",
) -> dict[str, str]:
    """Run the steps in one worker process, another one after each death, and return the failures.

    A step whose worker was ended by somebody else is run once more before it has failed: that may say nothing about the
    candidate.

    Args:
        steps: Candidates and stages, run in this order.
        dataset: Folder of the stage that loaded the data.
        roles: Folder of the stage that gave the pairs their roles.
        stages: The stage store, which receives models and costs.
        scores: Folder of the score store.
        log: File that receives what the candidates print; it is appended to.
        threads: Threads of each worker.
        timeout_s: Seconds that one worker process may take; None for no limit.
        memory_gib: Resident memory that one worker process and what it starts may hold, GiB; None for no limit.
        environment: More variables of each worker, such as :func:`worker_environment`.
        progress: Called with the share of a worker's steps that is done, in [0, 1], and what is being done.
        stopped: Asked every second with the id of the candidate at work. When it returns a reason, the worker is ended,
            the candidate has failed for that reason, and the others go on.

    Returns:
        Candidate id -> reason, for the candidates that failed.
    """
    hide_process()  # a candidate's own code may run below this process
    left, failures, again = list(steps), dict[str, str](), set[tuple[str, str]]()
    log.parent.mkdir(parents=True, exist_ok=True)
    while left:
        if why := stopped(left[0][0].candidate):
            failures[left[0][0].candidate] = why
            left = left[1:]
            continue
        job = {
            "dataset": str(dataset),
            "roles_folder": str(roles),
            "stages": str(stages.root),
            "scores": str(scores),
            "threads": threads,
            "steps": [{"stage": stage, "inputs": _as_json(inputs)} for inputs, stage in left],
        }
        outcomes, death, from_outside, why = _run(
            job, log, threads, timeout_s, memory_gib, environment or {}, progress, stopped
        )
        for number, reason in outcomes.items():
            if reason:
                failures[left[number][0].candidate] = reason
        if len(outcomes) == len(left):
            break
        broken = len(outcomes)  # steps run in turn: the first without an outcome is the one that broke the worker
        step = left[broken][0].candidate, left[broken][1]
        if from_outside and step not in again:
            again.add(step)
            left = left[broken:]
            continue
        failures[step[0]] = why or f"{death}; what it printed is in {log}"
        left = left[broken + 1 :]
    return failures


def end_workers() -> None:
    """End all workers of this process and let no further one start, because this process is about to end.

    Their steps have no outcome then: the threads that wait for them get KeyboardInterrupt.
    """
    _no_more.set()
    for worker in list(_running):
        worker.kill()


def _as_json(inputs: CandidateInputs) -> dict[str, Any]:
    fields = {name: getattr(inputs, name) for name in inputs.__dataclass_fields__}
    fitted = inputs.fitted and asdict(inputs.fitted)
    return fields | {"spec": inputs.spec.model_dump(mode="json"), "fitted": fitted}


def worker_environment(settings: Settings, families: Iterable[str]) -> dict[str, str]:
    """Return the settings that the worker process of some candidates reads, as environment variables.

    Args:
        settings: Those in force.
        families: Families of the candidates.

    Returns:
        Name of the variable -> value; what is no text is JSON.
    """
    variables = {"TOURNAMENT_HOME": str(settings.home), "TOURNAMENT_MLFLOW_URI": settings.tracking_uri}
    values = settings.model_dump(mode="json")
    for name in {name for family in families for name in candidate_class(family).reads_settings}:
        value = values[name]
        variables[f"TOURNAMENT_{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
    return variables


def _run(
    job: dict[str, Any],
    log: Path,
    threads: int,
    timeout_s: float | None,
    memory_gib: float | None,
    more: Mapping[str, str],
    progress: Progress,
    stopped: Callable[[str], str],
) -> tuple[dict[int, str], str, bool, str]:
    """Run one worker.

    Returns:
        What became of each step it finished ("" for done), how the worker ended, whether somebody else ended it, and
        why the step at work was to stop, "" when it was not.

    Raises:
        KeyboardInterrupt: If this process is about to end.
    """
    environment = (
        os.environ
        | patient_threads()
        | module_path()
        | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "TRANSFORMERS_VERBOSITY": "error",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PYTHONHASHSEED": "0",
            **more,
        }
    )
    with tempfile.TemporaryDirectory() as scratch, log.open("ab") as stderr:
        job_file = Path(scratch, "job.json")
        job_file.write_text(json.dumps(job), encoding="utf-8")
        worker = start_child(
            python_module("esci_tournament.tasks.candidates.worker", str(job_file)),
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
        )
        _running.add(worker)
        if _no_more.is_set():  # it started just now
            worker.kill()
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            worker.kill()

        timer = threading.Timer(timeout_s, expire) if timeout_s else None
        if timer:
            timer.start()
        outcomes: dict[int, str] = {}
        names = [step["inputs"]["candidate"] for step in job["steps"]]
        over, asked = threading.Event(), list[str]()

        def ask() -> None:
            while not over.wait(LOOK_S):
                at_work = len(outcomes)
                if (
                    at_work < len(job["steps"])
                    and (why := _answer(stopped, names[at_work]))
                    and at_work == len(outcomes)
                ):
                    asked.append(why)
                    worker.kill()
                    return

        asking = threading.Thread(target=ask, daemon=True, name="is it to stop?")
        asking.start()
        try:
            assert worker.stdout is not None
            limit = None if memory_gib is None else memory_gib * GIB
            with memory_watch(worker.pid, limit, worker.kill) as exceeded:
                for line in worker.stdout:
                    _hear(line, outcomes, len(job["steps"]), progress)
        finally:
            over.set()
            if timer:
                timer.cancel()
            if worker.poll() is None and sys.exc_info()[0]:
                worker.kill()
            worker.wait()
            _running.discard(worker)
            asking.join()
    if _no_more.is_set() and worker.returncode:
        raise KeyboardInterrupt
    if exceeded.is_set():
        return (
            outcomes,
            (
                f"out of memory: it took more than {memory_gib:g} GiB (setting candidate_memory_gib); its process was "
                "ended. Choose a smaller batch_size, max_length or model"
            ),
            False,
            "",
        )
    from_outside = not expired.is_set() and not asked and -worker.returncode in OUTSIDE
    death = _death(worker.returncode, timeout_s if expired.is_set() else None)
    return outcomes, death, from_outside, asked[0] if asked else ""


def _answer(stopped: Callable[[str], str], candidate: str) -> str:
    try:
        return stopped(candidate)
    except StoreError:  # the ledger does not answer now: it is asked again
        return ""


def _hear(line: bytes, outcomes: dict[int, str], steps: int, progress: Progress) -> None:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict) or "step" not in message:  # a library that prints to standard output
        return
    if "done" in message:
        outcomes[message["step"]] = ""
    elif "failed" in message:
        outcomes[message["step"]] = message["failed"]
    elif "share" in message:
        progress((message["step"] + message["share"]) / steps, message["doing"])


def _death(code: int, timeout_s: float | None) -> str:
    if timeout_s is not None:
        return f"no result within {timeout_s:.0f} s (setting candidate_timeout_s); its process was ended"
    if code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{hint}"
    return f"its process ended with exit code {code} before it was done"
