"""Worker processes: a candidate's failure is recorded with its cause and does not affect the others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.scores import ScoreStore
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.steps import FULL, CandidateInputs, content_digest, train
from esci_tournament.tasks.candidates.supervise import Step, supervise
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.plans import write_plans
from esci_tournament.tasks.data.split import FitPlan, assign_roles, fit_plans
from esci_tournament.tasks.data.store import save_dataset

GRAPH = {"epochs": 1, "hidden_size": 16, "text_dimensions": 16, "layers": 1}
TEXT = {"epochs": 1, "hidden_size": 16, "heads": 2, "layers": 1, "max_length": 16, "vocabulary": 400}

# What a fit may end with, whatever it asked for.
GRIEFS = {
    "memory-error": ("MemoryError", "Unable to allocate 9.09 TiB for an array"),
    "raises": ("RuntimeError", "shapes do not fit"),
}

# What libraries may print: JSON of their own at the very beginning, and half a line in the middle of the work. And what
# they may raise, here when the folder of a fit is made: recipes that ask for so much are refused long before.
NOISE = """
import builtins, sys
print(5)
print('[1, 2]', flush=True)
def hear(event, arguments):
    if event == "import" and arguments[0] == "esci_tournament.tasks.candidates.steps":
        print("half a line", end="", flush=True)
    if event == "os.mkdir":
        for stage, (kind, words) in {griefs}.items():
            if stage in str(arguments[0]):
                raise getattr(builtins, kind)(words)
sys.addaudithook(hear)
"""


def graph(name: str, **recipe: object) -> CandidateSpec:
    content = {"name": name, "family": "graph_network", "architecture": "graphsage"}
    return parse_spec(content | {"recipe": GRAPH | recipe})


def text(name: str, checkpoint: Path | None = None, **recipe: object) -> CandidateSpec:
    origin = {"checkpoint": str(checkpoint)} if checkpoint else {"architecture": "bert"}
    return parse_spec({"name": name, "family": "language_model", **origin, "recipe": TEXT | recipe})


@dataclass
class Arena:
    """Where candidates compete: data and stores on disk, and how to send them through a stage."""

    root: Path
    dataset: Dataset
    plans: list[FitPlan]

    @property
    def stages(self) -> StageStore:
        return StageStore(self.root / "stages")

    @property
    def scores(self) -> ScoreStore:
        return ScoreStore(self.root / "scores")

    @property
    def log(self) -> Path:
        return self.root / "logs" / "job.log"

    def inputs(self, spec: CandidateSpec) -> CandidateInputs:
        return CandidateInputs(f"{spec.name}/1", spec, content_digest(spec), self.dataset.version, "roles", 0, "cpu")

    def scored(self, spec: CandidateSpec) -> bool:
        inputs = self.inputs(spec)
        return self.scores.has(inputs.candidate, inputs.data_version, inputs.digest())

    def supervise(self, *steps: Step, **more: Any) -> dict[str, str]:
        return supervise(
            steps,
            dataset=self.root / "dataset",
            roles=self.root / "roles",
            stages=self.stages,
            scores=self.root / "scores",
            log=self.log,
            threads=1,
            **more,
        )


@pytest.fixture(scope="module")
def arena(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Arena:
    root = tmp_path_factory.mktemp("arena")
    roles = assign_roles(tiny_dataset, "blend", 0.25, 0.1, 2)
    plans = fit_plans(tiny_dataset, roles, "blend", 0.1)
    for name in ("dataset", "roles"):
        (root / name).mkdir()
    save_dataset(tiny_dataset, root / "dataset")
    write_plans(root / "roles", roles, plans)
    return Arena(root, tiny_dataset, plans)


def fill_with_nan(file: Path) -> None:
    """Let every weight of a safetensors file be NaN."""
    weights = {name: torch.full_like(value, float("nan")) for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def interpreter(folder: Path, script: str) -> str:
    """Return a program that stands in for the Python of a worker: `script` before, or around, the real one."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nPYTHON="{sys.executable}"\n{script}\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
    return found


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@dataclass(frozen=True)
class Job:
    """What became of one job of six candidates, five of which come to grief, each in its own way."""

    failures: dict[str, str]
    good: CandidateSpec
    heard: list[float]
    workers: list[int]


@pytest.fixture(scope="module")
def job(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    donor = train(arena.inputs(text("donor")), arena.plans[0], arena.dataset, arena.stages)
    checkpoint = shutil.copytree(donor, folder / "checkpoint")
    fill_with_nan(checkpoint / "model.safetensors")

    # Trained well, and its weights are spoilt before they score.
    spoilt = arena.inputs(text("nan-scores", label_smoothing=0.1))
    with arena.stages.make(spoilt.train_key(arena.stages, FULL)) as trained:
        shutil.copytree(donor, trained, ignore=shutil.ignore_patterns("stage.json"), dirs_exist_ok=True)
        fill_with_nan(trained / "head.safetensors")

    killed, good = text("killed", epochs=1000), graph("good")
    griefs = {name: arena.inputs(graph(name, dropout=0.2 + number / 10)) for number, name in enumerate(GRIEFS)}
    steps = [
        (arena.inputs(killed), "train"),
        *((one, "train") for one in griefs.values()),
        (arena.inputs(text("nan-checkpoint", checkpoint)), "train"),
        (spoilt, "train"),
        (arena.inputs(good), "train"),
        (arena.inputs(good), "train"),
        (arena.inputs(good), "profile"),
    ]
    pids, heard, ended = folder / "pids", [], set()

    def progress(share: float, doing: str) -> None:
        heard.append(share)
        pid = int(pids.read_text().split()[-1])
        if len(ended) < 2 and pid not in ended:  # the first candidate has begun, and begun again
            ended.add(pid)
            os.kill(pid, signal.SIGKILL)

    marks = {inputs.train_key(arena.stages, FULL): GRIEFS[name] for name, inputs in griefs.items()}
    (folder / "sitecustomize.py").write_text(NOISE.replace("{griefs}", repr(marks)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
        patch.setattr(sys, "executable", interpreter(folder, f'echo $$ >> "{pids}"\nexec "$PYTHON" "$@"'))
        failures = arena.supervise(*steps, progress=progress)
    return Job(failures, good, heard, [int(line) for line in pids.read_text().split()])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ("killed/1", ["ended by SIGKILL", "out of memory?", "job.log"]),
        ("memory-error/1", ["out of memory; choose a smaller"]),
        ("raises/1", ["RuntimeError: "]),
        ("nan-checkpoint/1", ["the loss is nan", "step 1"]),
        ("nan-scores/1", ["scores that are not finite"]),
    ],
)
def test_who_comes_to_grief_loses_with_a_reason(job: Job, candidate: str, words: list[str]) -> None:
    assert [word for word in words if word not in job.failures[candidate]] == [], job.failures[candidate]


@pytest.mark.slow
def test_the_other_candidates_of_the_job_go_on(job: Job, arena: Arena) -> None:
    assert f"{job.good.name}/1" not in job.failures
    assert arena.scored(job.good)


@pytest.mark.slow
def test_who_failed_leaves_no_scores(job: Job, arena: Arena) -> None:
    left = {row["candidate"] for row in arena.scores.list()}
    assert left.isdisjoint(job.failures)


@pytest.mark.slow
def test_only_a_death_needs_another_worker(job: Job) -> None:
    assert len(job.workers) == 3
    assert not any(map(is_alive, job.workers))


@pytest.mark.slow
def test_what_a_library_prints_is_no_message_and_stands_in_the_log(job: Job, arena: Arena) -> None:
    assert "half a line" in arena.log.read_text(encoding="utf-8")
    assert all(0 <= share <= 1 for share in job.heard)


@pytest.mark.slow
def test_the_cost_is_measured_in_a_step_of_its_own(job: Job, arena: Arena) -> None:
    assert arena.stages.find(arena.inputs(job.good).profile_key(arena.stages)) is not None


@pytest.mark.parametrize(("number", "is_again"), [(9, True), (15, True), (11, False)])
def test_who_was_ended_by_somebody_else_has_one_more_try(
    arena: Arena, tmp_path: Path, monkeypatch, number: int, is_again: bool
) -> None:
    mark = tmp_path / "tried"
    script = f"""test -e "{mark}" && exec echo '{{"step": 0, "done": true}}'\ntouch "{mark}"\nkill -{number} $$"""
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, script))
    failures = arena.supervise((arena.inputs(graph("unlucky")), "train"))
    assert list(failures) == ([] if is_again else ["unlucky/1"])


def test_a_worker_that_hangs_is_ended_after_its_time(arena: Arena, tmp_path: Path, monkeypatch) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, f'echo $$ > "{pid}"\nexec "$PYTHON" "$@"'))

    def stop() -> None:
        os.kill(int(wait_for(lambda: pid.is_file() and pid.read_text().strip())), signal.SIGSTOP)

    stopper = threading.Thread(target=stop)
    stopper.start()
    failures = arena.supervise((arena.inputs(graph("hangs")), "train"), timeout_s=1.5)
    stopper.join()
    assert "no result within 2 s (setting candidate_timeout_s)" in failures["hangs/1"]
    assert not is_alive(int(pid.read_text()))


def test_a_worker_that_exits_early_costs_each_candidate_its_own_step(arena: Arena, tmp_path: Path, monkeypatch) -> None:
    # Standard input ends at once, as it does when the supervisor has gone
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, 'true | "$PYTHON" "$@"'))
    steps = [(arena.inputs(graph(name, epochs=900)), "train") for name in ("first", "second")]
    failures = arena.supervise(*steps)
    assert list(failures) == ["first/1", "second/1"]
    for reason in failures.values():
        assert "ended with exit code 3 before it was done" in reason


@pytest.mark.slow
def test_a_worker_ends_when_its_supervisor_is_killed(arena: Arena, tmp_path: Path) -> None:
    pid, begun = tmp_path / "pid", tmp_path / "begun"
    python = interpreter(tmp_path, f'echo $$ > "{pid}"\nexec "$PYTHON" "$@"')
    script = f"""
import sys
from pathlib import Path
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.stages import StageStore
from esci_tournament.tasks.candidates.steps import CandidateInputs
from esci_tournament.tasks.candidates.supervise import supervise
sys.executable = {python!r}
root, spec = Path({str(arena.root)!r}), parse_spec({text("orphan", epochs=1000).model_dump(mode="json")!r})
supervise(
    [(CandidateInputs("orphan/1", spec, "", {arena.dataset.version!r}, "roles", 0, "cpu"), "train")],
    dataset=root / "dataset", roles=root / "roles", stages=StageStore(root / "stages"), scores=root / "scores",
    log=root / "logs" / "orphan.log", threads=1, progress=lambda *_: Path({str(begun)!r}).touch(),
)
"""
    supervisor = subprocess.Popen([sys.executable, "-c", script])
    wait_for(begun.is_file, 120)
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not is_running(int(pid.read_text())), 20)


def is_running(process: int) -> bool:
    """Return whether a process runs; one that has ended and waits for its new parent to notice does not."""
    state = Path(f"/proc/{process}/stat")
    if not state.parent.is_dir():
        return is_alive(process) if sys.platform != "linux" else False
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_who_is_to_stop_is_ended_within_seconds_and_the_next_one_goes_on(arena: Arena) -> None:
    endless, quick = text("endless", epochs=1000), graph("after-the-endless")
    trains, asked = threading.Event(), list[float]()

    def tell(share: float, doing: str) -> None:
        if "epoch" in doing:
            trains.set()

    def stopped(candidate: str) -> str:
        if candidate != "endless/1" or not trains.is_set():
            return ""
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise StoreError("the ledger is locked for a moment")
        return "cancelled by ann: it diverges"

    steps = [(arena.inputs(endless), "train"), (arena.inputs(quick), "train")]
    assert arena.supervise(*steps, progress=tell, stopped=stopped) == {"endless/1": "cancelled by ann: it diverges"}
    assert len(asked) == 2, "it is not run once more, as one whose worker somebody else has ended"
    assert arena.scored(quick)
