"""A small world in which challengers stand before a reviewer: real stores, real trials, scores made by a formula."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from esci_tournament.deployments.stack.services import environment_of
from esci_tournament.flows.competition import pairs_of
from esci_tournament.flows.held import Held, Roles, Source
from esci_tournament.flows.rejudge import what_judging_takes
from esci_tournament.flows.reports import write_report
from esci_tournament.registry.children import start_group
from esci_tournament.registry.models import Models
from esci_tournament.registry.reviews import Case, cases, champion_at
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.tournaments import Attempt
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.enter import Entrant, make_bout
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.plans import write_plans
from esci_tournament.tasks.data.split import assign_roles, fit_plans
from esci_tournament.tasks.data.store import digest_of_test, save_dataset
from esci_tournament.tasks.ensemble.aggregate import Aggregator, AggregatorParameters
from esci_tournament.tasks.ensemble.budget import Cost
from esci_tournament.tasks.ensemble.fitting import fit_aggregator
from esci_tournament.tasks.ensemble.scores import MemberScores, stack
from esci_tournament.tasks.ensemble.trial import Side, hold_trial
from esci_tournament.tasks.ensemble.worth import measure_worth
from esci_tournament.tasks.report.summarise import sides
from esci_tournament.tasks.report.summary import ModelSummary

# How much of the truth a member's scores show; what is not here shows 0.3 of it.
QUALITY = {"weak": 0.25, "good": 1.0, "best": 3.5, "sage-clicks": 0.8, "minilm-l6": 1.2, "e5-small": 3.5}
SPEC = {"family": "graph_network", "architecture": "graphsage", "relation": "clicks"}


def _summary_builder() -> Callable[..., Any]:
    path = Path(__file__).parents[1] / "tasks" / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("summaries", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build


build_summary = _summary_builder()


class World:
    """A home with one data version; `challenge` holds a tournament's end without its training."""

    def __init__(self, home: Path, dataset: Dataset, **settings: Any) -> None:
        self.dataset = dataset
        self.settings = {"home": home, "minimum_test_queries": 10, "resamples": 500, "review": "required"}
        self.settings |= {"guardrail_margin": 0.5} | settings  # a tiny test split says little of calibration
        stages = self.workspace.stages
        roles = assign_roles(dataset, "blend", 0.25, 0.1, 5)
        load = stages.key("load", version=dataset.version)
        split = stages.key("split", version=dataset.version)
        self.source = Source(stages.obtain(load, lambda empty: save_dataset(dataset, empty)), dataset.version, home)
        plans = fit_plans(dataset, roles, "blend", 0.1)
        self.roles = Roles(stages.obtain(split, lambda empty: write_plans(empty, roles, plans)), str(split))
        self.workspace.ledger.record_data_version(dataset.version)

    @property
    def workspace(self) -> Workspace:
        """A workspace of its own for each use, as each process has one."""
        return Workspace(read_settings(**self.settings))

    def entrant(self, name: str, role: str) -> Entrant:
        """Register a candidate, put its scores into the store, and return it."""
        work = self.workspace
        version = work.models.register_candidate(parse_spec({"name": name, **SPEC}))
        bout = make_bout(version, self.source.version, self.roles.key, 0, "cpu")
        work.ledger.record_candidate(version.id, version.digest, "graph_network")
        pairs = self.dataset.pairs
        noise = np.random.default_rng(sum(map(ord, name)))
        shown = np.eye(4)[pairs["label"].to_numpy()] * QUALITY.get(name, 0.3)
        raw = np.exp(shown + noise.normal(size=(len(pairs), 4)))
        work.scores.put(
            version.id,
            self.source.version,
            bout.recipe(),
            example_id=pairs["example_id"].to_numpy(),
            probabilities=(raw / raw.sum(axis=1, keepdims=True)).astype(np.float32),
            out_of_sample=np.ones(len(pairs), dtype=bool),
        )
        return Entrant(version, role, bout)  # type: ignore[arg-type]

    def challenge(self, tournament: str, members: Sequence[str], keeps_scores: bool = True) -> Case:
        """Fit a challenger, judge it against today's champion, register it, and finish the tournament."""
        work = self.workspace
        ledger, models, settings = work.ledger, work.models, work.settings
        standing = ledger.standing(settings.ensemble_name)
        champion = models.ensemble(standing.champion.version) if standing.champion else None
        incumbents = [member.split("/")[0] for member in champion.members] if champion else []
        entrants = [self.entrant(name, "member" if name in incumbents else "newcomer") for name in members]
        others = [self.entrant(name, "member") for name in incumbents if name not in members]
        attempt = Attempt(tournament, "new", standing.sequence, champion.version if champion else None)
        held = Held(attempt, self.source, self.roles, [*entrants, *others], champion=champion)
        payload = {"question": tournament, "against": attempt.against, "champion": attempt.champion}
        ledger.start_tournament(tournament, self.source.version, {one.id: one.role for one in held.entrants}, payload)

        scores = [self._scores(one) for one in held.entrants]
        ours = fit(scores[: len(entrants)], pairs_of(held, learns=True))
        pairs = pairs_of(held, learns=False)
        theirs = Side(Aggregator.load(models.download(champion) / "aggregator"), None) if champion else None
        split = digest_of_test(pairs)
        looks = len(ledger.looks(split))
        if champion:
            ledger.record_look(split, tournament, attempt.against)
        trial = hold_trial(pairs, scores, Side(ours, None), theirs, looks, settings)
        outcome = trial.verdict.outcome.replace("_", "-")
        verdict = ledger.record_verdict(tournament, outcome, trial.verdict.to_dict(), attempt.against)

        folder = settings.home / "ensembles" / tournament
        ours.save(folder / "aggregator")
        version = models.register_ensemble(folder, [one.id for one in entrants], tournament)
        takes = what_judging_takes(work, held, {one.id: Cost(10.0, 2.0, "cpu") for one in held.entrants})
        if not keeps_scores:
            takes["recipes"] = {one.id: "gone" for one in held.entrants}
        ledger.record_ensemble(
            tournament, version.name, version.version, {"members": [one.id for one in entrants]} | takes
        )
        summary = replace(
            build_summary(),
            tournament=tournament,
            models=members_of(entrants, scores, ours, pairs_of(held, learns=True)),
            settings=settings.model_dump(mode="json"),
            selection={"used": {"memory_mib": 10.0 * len(entrants), "latency_ms": 2.0 * len(entrants)}, "budget": {}},
            checks=[],
            champion_version=str(champion.version) if champion else "",
            decision={},
            promoted=False,
            awaits_review=True,
            ensemble_version=str(version.version),
            links={},
            **sides(trial),
        )
        write_report(work, summary)
        ledger.finish_tournament(tournament, {"sequence": standing.sequence})
        found = [case for case in cases(ledger, settings.ensemble_name) if case.id == verdict.id]
        assert found, verdict.payload["reason"]
        return found[0]

    def _scores(self, entrant: Entrant) -> MemberScores:
        stored = self.workspace.scores.get(entrant.id, self.source.version, entrant.bout.recipe())
        return MemberScores(entrant.id, stored.example_id, stored.probabilities, stored.out_of_sample)

    def case(self, id: int) -> Case:
        """Return a case as the ledger has it now."""
        work = self.workspace
        return next(case for case in cases(work.ledger, work.settings.ensemble_name) if case.id == id)

    def champion(self) -> int | None:
        """Return the champion by the ledger, which the alias must name as well."""
        work = self.workspace
        name = work.settings.ensemble_name
        version = champion_at(work.ledger, name, work.ledger.standing(name).sequence)
        assert work.models.alias("champion") == version
        return version


def fit(scores: Sequence[MemberScores], pairs: Any) -> Aggregator:
    columns = stack(scores, pairs["example_id"].to_numpy())
    labels, groups = pairs["label"].to_numpy(), pairs["query_key"].to_numpy()
    names = [one.member for one in scores]
    parameters = AggregatorParameters(seed=0)
    return fit_aggregator(columns, labels, groups, names, parameters)


def members_of(
    entrants: Sequence[Entrant], scores: Sequence[MemberScores], fitted: Aggregator, pairs: Any
) -> list[ModelSummary]:
    """Return the members with what each is worth, most useful first."""
    columns = stack(scores[: len(entrants)], pairs["example_id"].to_numpy())
    worth = measure_worth(
        fitted, columns, pairs["query_key"].to_numpy(), pairs["locale"].astype(str).to_numpy(), resamples=200
    )
    known = {one.id: one for one in entrants}
    cost = {"kind": "cpu", "memory_mib": 10.0, "milliseconds_per_page_p50": 2.0}
    return [
        ModelSummary(
            name=known[one.member].version.name,
            version="1",
            family="graph_network",
            detail="graphsage on clicks",
            entry="incumbent" if known[one.member].role == "member" else "candidate",
            status="member",
            cost=cost,
            utility=one.utility,
            utility_low=one.low,
            utility_high=one.high,
        )
        for one in worth.members
    ]


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its schema and nothing in it, made once because the first migration takes seconds."""
    home = tmp_path_factory.mktemp("mlflow-template")
    assert Models(f"sqlite:///{home / 'mlflow.db'}", home).champion() is None
    return home / "mlflow.db"


@pytest.fixture
def make_world(tmp_path: Path, mlflow_template: Path, tiny_dataset: Dataset) -> Iterator[Callable[..., World]]:
    """Return a world in a home of its own; settings may be given."""

    def make(home: Path = tmp_path / "home", **settings: Any) -> World:
        home.mkdir()
        shutil.copy(mlflow_template, home / "mlflow.db")
        return World(home, tiny_dataset, **settings)

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


class Prefect:
    """A Prefect server and a worker of ours that may be ended and started again on the same database."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.api = f"http://127.0.0.1:{self.port}/api"
        clean = {name: text for name, text in os.environ.items() if not name.startswith(("TOURNAMENT_", "PREFECT_"))}
        self.environment = (
            clean
            | environment_of(read_settings(**settings))
            | {
                "PREFECT_HOME": str(folder / "prefect"),
                "PREFECT_API_URL": self.api,
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
                "PREFECT_RUNNER_POLL_FREQUENCY": "1",
                "DO_NOT_TRACK": "1",
            }
        )
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_server(self) -> None:
        command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        self._start("server", [*command, "--analytics-off"])
        self._until(lambda: httpx.get(f"{self.api}/health", timeout=2).status_code == 200, "the server", 120)

    def start_worker(self) -> None:
        # As deployments.worker does it, without the flows that need torch, which takes long to import.
        self._start("worker", ["-c", "from esci_tournament.flows.review import review; review.serve(name='review')"])
        here = f"{self.api}/deployments/name/review/review"
        self._until(lambda: httpx.get(here, timeout=2).status_code == 200, "the deployment", 90)

    def end(self, name: str) -> None:
        """Kill a process and all that it started, as a power failure would."""
        process = self.processes.pop(name, None)
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)

    def _start(self, name: str, arguments: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = start_group(
                [sys.executable, *arguments],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def _until(self, good: Callable[[], bool], what: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(httpx.HTTPError):
                if good():
                    return
            time.sleep(0.2)
        logs = "\n".join(path.read_text(errors="replace")[-3000:] for path in self.folder.glob("*.log"))
        raise AssertionError(f"{what} did not come within {seconds:g} s:\n{logs}")


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, tiny_dataset: Dataset
) -> Iterator[tuple[World, Prefect]]:
    """A world, and the Prefect server and worker that serve it; challengers of all tests stand in its one ledger."""
    folder = tmp_path_factory.mktemp("served")
    home = folder / "home"
    home.mkdir()
    shutil.copy(mlflow_template, home / "mlflow.db")
    world = World(home, tiny_dataset, mlflow_ui="http://127.0.0.1:5000")
    prefect = Prefect(folder, world.settings)
    try:
        prefect.start_server()
        prefect.start_worker()
        with temporary_settings({PREFECT_API_URL: prefect.api}):
            yield world, prefect
    finally:
        for name in ("worker", "server"):
            prefect.end(name)
