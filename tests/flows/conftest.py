"""A small world with challengers that wait for review: real stores and stages, scores made by a formula."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking._tracking_service import utils
from prefect.settings import PREFECT_API_URL, temporary_settings

from esci_tournament.flows import competition, conclusion
from esci_tournament.flows.context import Checked, Roles, Source, TournamentContext
from esci_tournament.flows.decision import answer
from esci_tournament.flows.intake import put_on_record
from esci_tournament.flows.judging import recipes_of
from esci_tournament.flows.watch import Watch
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.policies import record_policy
from esci_tournament.registry.policy import Policy
from esci_tournament.registry.reviewers import Answer
from esci_tournament.registry.reviews import Case, cases, champion_at, waiting
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.tournaments import Attempt, tournament_facts
from esci_tournament.registry.versions import REFUSED_TAG, SPEC_TAG, STATE_TAG
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.candidates.enter import Entrant, Role, make_inputs
from esci_tournament.tasks.candidates.profile import MeasuredCost
from esci_tournament.tasks.candidates.steps import score
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.plans import write_plans
from esci_tournament.tasks.data.split import assign_roles, fit_plans
from esci_tournament.tasks.data.store import save_dataset
from esci_tournament.tasks.families.score_file.spec import ScoresSpec
from esci_tournament.tasks.report.summary import Summary
from tests.harness import PrefectServer, answers

SPEC = {"family": "graph_network", "architecture": "gcn"}
# How much of the truth a candidate's scores show.
QUALITY = {"weak": 0.25, "good": 1.0, "best": 3.5, "sage-clicks": 0.8, "minilm-l6": 1.2, "e5-small": 3.5}
COST = MeasuredCost("cpu (made up)", "cpu", 0, 10.0, 2.0, 2.0, 0, 0.0)


@dataclass(frozen=True)
class Held:
    """A tournament that was held."""

    context: TournamentContext
    summary: Summary
    report: Path


class World:
    """A home with one data version; `challenge` holds a tournament whose candidates were trained elsewhere.

    Args:
        home: an empty home, but for MLflow's database.
        dataset: its data.
        files: a folder with the scores of each candidate.
        settings: settings that differ from those of this world.
    """

    def __init__(self, home: Path, dataset: Dataset, files: Path, **settings: Any) -> None:
        self.dataset, self.files = dataset, files
        self.settings = {"home": home, "minimum_test_queries": 10, "resamples": 500, "review": "required"}
        self.settings |= {"keep_score_files": True}
        self.settings |= {"guardrail_margin": 0.5} | settings  # a tiny test split says little of calibration
        stages = self.workspace.stages
        roles = assign_roles(dataset, "blend", 0.25, 0.1, 5)
        load = stages.key("load", version=dataset.version)
        split = stages.key("split", version=dataset.version)
        self.source = Source(stages.obtain(load, lambda empty: save_dataset(dataset, empty)), dataset.version, home)
        self.plans = fit_plans(dataset, roles, "blend", 0.1)
        self.roles = Roles(stages.obtain(split, lambda empty: write_plans(empty, roles, self.plans)), str(split))
        self.workspace.ledger.record_data_version(dataset.version)

    @property
    def workspace(self) -> Workspace:
        """A workspace of its own for each use, as each process has one."""
        return Workspace(read_settings(**self.settings))

    def entrant(self, name: str, role: Role) -> Entrant:
        """Register a candidate, score it in this process, say what it costs, and return it."""
        work = self.workspace
        version = work.models.register_candidate(
            ScoresSpec(
                name=name,
                file=str(self.files / f"{name}.parquet"),
                trained_on="other_queries",
                provenance="made by a formula",
            )
        )
        inputs = make_inputs(version, self.source.version, self.roles.key, 0, "cpu")
        if version.id not in {one.candidate for one in work.ledger.candidates()}:
            put_on_record(work, version)
        score(inputs, self.plans, self.dataset, work.stages, work.scores)
        work.stages.obtain(
            inputs.profile_key(work.stages), lambda folder: (folder / "cost.json").write_text(COST.to_json())
        )
        return Entrant(version, role, inputs)

    def challenge(self, tournament: str, members: Sequence[str], keeps_scores: bool = True) -> Case:
        """Hold a tournament of these and the champion's members; these are kept, and the review is not yet open."""
        held = self.hold(tournament, members)
        assert not held.summary.sealed, held.summary.verdict["reason"]
        if not keeps_scores:
            for one in held.context.entrants[: len(members)]:
                shutil.rmtree(self.workspace.scores.folder(one.id, self.source.version, one.inputs.digest()))
        ledger, name = self.workspace.ledger, self.workspace.settings.ensemble_name
        return next(one for one in cases(ledger, name) if one.tournament == tournament)

    def hold(self, tournament: str, members: Sequence[str], fails: Sequence[str] = ()) -> Held:
        """Hold a tournament of these and the champion's members, whatever its verdict; these are kept.

        Args:
            tournament: its id.
            members: names of candidates.
            fails: names of newcomers whose training fails.
        """
        standing = self.workspace.ledger.standing(self.workspace.settings.ensemble_name)
        champion = self.workspace.models.ensemble(standing.champion.version) if standing.champion else None
        incumbents = [member.split("/")[0] for member in champion.members] if champion else []
        others = [name for name in incumbents if name not in members]
        work = Workspace(read_settings(**self.settings, must_keep=tuple(members), must_drop=tuple(others)))
        entrants = [self.entrant(name, "member" if name in incumbents else "newcomer") for name in [*members, *others]]
        entrants += [self.entrant(name, "newcomer") for name in fails]
        attempt = Attempt(tournament, "new", standing.sequence, champion.version if champion else None)
        payload = {"question": tournament, "against": attempt.against, "champion": attempt.champion}
        payload |= tournament_facts(recipes_of(entrants), {}, work.settings.model_dump(mode="json"))
        row = work.ledger.start_tournament(
            tournament, self.source.version, {one.id: one.role for one in entrants}, payload
        )
        context = TournamentContext(attempt, self.source, self.roles, entrants, champion=champion, started=row.at)

        checked = Checked([], Path("docs"))
        reasons = ["out of memory" if one.version.name in fails else "" for one in entrants]
        left = competition.survivors.fn(work, context, reasons)
        costs = competition.profile.fn(work, context, left)
        challenge = competition.build.fn(work, context, left, costs)
        trial = competition.judge.fn(work, context, left, costs, challenge)
        summary = conclusion.summarise.fn(work, context, checked, left, costs, challenge, trial)
        version = conclusion.register.fn(work, context, challenge, trial, summary)
        decision = conclusion.decide.fn(work, context, trial, version)
        assert decision is None
        outcome = conclusion.close(work, context, summary, version, None, None)
        return Held(context, outcome.summary, outcome.report)

    def case(self, id: int) -> Case:
        """Return a case as the ledger has it now."""
        work = self.workspace
        return next(case for case in cases(work.ledger, work.settings.ensemble_name) if case.id == id)

    def waiting(self) -> Case:
        """Return the only case that waits for a reviewer."""
        work = self.workspace
        [case] = waiting(work.ledger, work.settings.ensemble_name)
        return case

    def champion(self) -> int | None:
        """Return the champion by the ledger, which the alias must name as well."""
        work = self.workspace
        name = work.settings.ensemble_name
        version = champion_at(work.ledger, name, work.ledger.standing(name).sequence)
        assert work.models.alias("champion") == version
        return version


@pytest.fixture(scope="session")
def score_files(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a score file for each candidate, which shows more or less of the truth."""
    folder = tmp_path_factory.mktemp("scores")
    pairs = tiny_dataset.pairs
    for name, quality in QUALITY.items():
        noise = np.random.default_rng(sum(map(ord, name)))
        raw = np.exp(np.eye(4)[pairs["label"].to_numpy()] * quality + noise.normal(size=(len(pairs), 4)))
        frame = pd.DataFrame(raw / raw.sum(axis=1, keepdims=True), columns=list(LABELS))
        frame.insert(0, "example_id", pairs["example_id"].to_numpy())
        frame.to_parquet(folder / f"{name}.parquet", index=False)
    return folder


def govern(world: World) -> None:
    """Let the ledger have the policy that the world's settings describe, as its first flow does."""
    record_policy(world.workspace.ledger, Policy.of(world.workspace.settings), "a test", 0)


def ask_under_policy(world: World) -> None:
    govern(world)
    world.challenge("t-1", ["weak"])


def ask_twice(world: World) -> None:
    for name in ("good", "best"):
        world.challenge(f"t-{name}", ["weak", name])


REVIEWERS = {"reviewers": ("ana", "ben")}  # neither of whom is the user of this process
# Where many tests begin: what a start follows on, what is held then, and its settings. Each is held once and copied.
STARTS: dict[str, tuple[str, Callable[[World], object], dict[str, Any]]] = {
    "asked": ("", lambda world: world.challenge("t-1", ["weak"]), {}),
    "asked under policy": ("", ask_under_policy, REVIEWERS),
    "champion": ("asked", lambda world: say(world, world.waiting(), reason="the first"), {}),
    "challenged": ("champion", lambda world: world.challenge("t-2", ["weak", "good"]), {}),
    "challenged twice": ("champion", ask_twice, {}),
}


def copy_home(home: Path, copy: Path) -> None:
    """Copy a home whose databases may be open; the copy stands in a folder that is made or empty."""
    shutil.copytree(home, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.db", "*.db-*"))
    for database in home.glob("*.db"):
        copy_into(database, copy / database.name)


def copy_into(source: Path, target: Path) -> None:
    """Put a database's content into another that may be open."""
    with closing(sqlite3.connect(source)) as before, closing(sqlite3.connect(target)) as now:
        before.backup(now)


@pytest.fixture(scope="session")
def start(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, tiny_dataset: Dataset, score_files: Path
) -> Callable[[str, Path], None]:
    """Return what puts the home of a start, a key of :data:`STARTS` or "", into an empty folder."""
    homes: dict[str, Path] = {}

    def put(name: str, home: Path) -> None:
        if not name:
            shutil.copy(mlflow_template, home / "mlflow.db")
            return
        if name not in homes:
            made = tmp_path_factory.mktemp(name.replace(" ", "-")) / "home"
            made.mkdir()
            before, go_on, settings = STARTS[name]
            put(before, made)
            go_on(World(made, tiny_dataset, score_files, **settings))
            homes[name] = made
        copy_home(homes[name], home)
        utils._artifact_repos_cache.clear()  # by id of the run, and runs of a copy have the ids of its original

    return put


@pytest.fixture
def make_world(
    tmp_path: Path, start: Callable[[str, Path], None], tiny_dataset: Dataset, score_files: Path
) -> Callable[..., World]:
    """Return a world in a home of its own; what it starts with and settings may be given."""

    def make(home: Path = tmp_path / "home", begin: str = "", **settings: Any) -> World:
        home.mkdir()
        start(begin, home)
        return World(home, tiny_dataset, score_files, **settings)

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


class Prefect(PrefectServer):
    """A Prefect server, and a worker of ours for it."""

    def start_worker(self) -> None:
        # As deployments.worker does it, without the flows that need torch, which takes long to import.
        script = "from esci_tournament.flows.review import review; review.serve(name='review')"
        here = f"{self.api}/deployments/name/review/review"
        self.start("worker", [sys.executable, "-c", script], answers(here, self.auth))


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, tiny_dataset: Dataset, score_files: Path
) -> Iterator[tuple[World, Prefect]]:
    """A world, and the Prefect server and worker that serve it; challengers of all tests stand in its one ledger."""
    folder = tmp_path_factory.mktemp("served")
    home = folder / "home"
    home.mkdir()
    shutil.copy(mlflow_template, home / "mlflow.db")
    world = World(home, tiny_dataset, score_files, mlflow_ui="http://127.0.0.1:5000")
    prefect = Prefect(folder, **world.settings)
    prefect.environment |= {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    try:
        prefect.start_server()
        prefect.start_worker()
        yield world, prefect
    finally:
        prefect.end_all()


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with an error."""

    def log_message(self, *_: object) -> None: ...


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on loopback while the block runs, and yield the address at which Prefect would look for its API."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


@pytest.fixture
def announced() -> Iterator[list[dict[str, Any]]]:
    """The events that a server of Prefect's is sent while the test runs, as they arrive."""
    taken: list[dict[str, Any]] = []

    class Handler(Refusing):
        def do_POST(self) -> None:
            taken.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def do_GET(self) -> None:  # whether it wants a token, which it does not
            self.send_response(404)
            self.end_headers()

    with http_server(Handler) as address, temporary_settings({PREFECT_API_URL: address}):
        yield taken


@pytest.fixture
def broken_api() -> Iterator[str]:
    """The address of a Prefect server that answers every request with an error."""
    with http_server(Refusing) as address:
        yield address


@pytest.fixture(autouse=True)
def _api_of_served(request: pytest.FixtureRequest) -> Iterator[None]:
    """Point Prefect at that server for the tests that use it, and at none for those that run beside them."""
    if "served" not in request.fixturenames:
        yield
        return
    _, prefect = request.getfixturevalue("served")
    with prefect.connected():
        yield


def say(world: Any, case: Case, outcome: str = "approve", reviewer: str = "ana", reason: str = "it is better") -> str:
    """Answer a case as the command line does, and return what came of it."""
    mark = f"{case.id} {reviewer} {reason}"
    return answer(world.workspace, case, Answer(outcome, reviewer, reason, "command line", mark))


def summary(world: Any, tournament: str) -> dict[str, Any]:
    """Return the stored summary of a tournament."""
    return json.loads((world.settings["home"] / "tournaments" / tournament / "summary.json").read_text())


@pytest.fixture
def asked(make_world: Callable[..., World]) -> World:
    """A world whose first challenger, of the one member `weak`, waits for its reviewer."""
    return make_world(begin="asked")


@pytest.fixture
def champion(make_world: Callable[..., World]) -> World:
    """A world whose champion has the one member `weak`."""
    return make_world(begin="champion")


@pytest.fixture
def challenged(make_world: Callable[..., World]) -> World:
    """A world whose champion has the one member `weak`; a challenger of `weak` and `good` waits for its reviewer."""
    return make_world(begin="challenged")


@pytest.fixture
def challenged_twice(make_world: Callable[..., World]) -> World:
    """A world whose champion has the one member `weak`; `weak` with `good`, and `weak` with `best`, wait both."""
    return make_world(begin="challenged twice")


@pytest.fixture
def workspace(tmp_path: Path, empty_mlflow: bytes) -> Workspace:
    """The stores of an empty home."""
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow)
    return Workspace(read_settings(home=tmp_path, review="none"))


def plain(workspace: Workspace, name: str, tag: str) -> str:
    """Register a version by plain MLflow, and return its id."""
    client = workspace.models.tracking.client
    client.create_registered_model(name)
    client.create_model_version(name, "file:///nowhere", tags={SPEC_TAG: tag})
    return f"{name}/1"


def state(workspace: Workspace, candidate: str) -> tuple[str | None, str]:
    """Return what the tags of a candidate say: its state, and why it was refused."""
    tags = workspace.models.tags(candidate)
    return tags.get(STATE_TAG), tags.get(REFUSED_TAG, "")


def sweep(watch: Watch, *named: str) -> list[str]:
    """Let a watcher look once, and return in words what it did."""
    swept = watch.sweep(named)
    assert swept.errors == []
    return swept.done
