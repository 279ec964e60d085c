"""What becomes of a champion, its members and newcomers when somebody edits or deletes them in MLflow.

Every edit is tried on one home, and then every command: each goes on by the ledger, tells the edit, and no model is
trained anew under its old name. The ids in the docstrings are rows of the table of inputs that were tried.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.deployments.champion import load_champion
from esci_tournament.deployments.cli import main
from esci_tournament.flows import competition, conclusion, preparation
from esci_tournament.flows.context import Checked, TournamentContext
from esci_tournament.flows.differences import AGREES, DIFFERS
from esci_tournament.flows.rejudge import judge_again
from esci_tournament.flows.review_runs import describe
from esci_tournament.flows.watch import Watch
from esci_tournament.registry.chronicle import chronicle
from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.models import Models
from esci_tournament.registry.promotion import rollback
from esci_tournament.registry.reviews import Case, find_case
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.versions import SPEC_TAG
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.families.score_file.spec import ScoresSpec
from tests.flows.conftest import SPEC, World, copy_into, say

ENSEMBLE = "esci-ensemble"
LAZY = json.dumps({**SPEC, "recipe": {"epochs": 1, "learning_rate": 1e-9}})

Edit = Callable[[Models], object]


def tag(name: str, key: str, value: str | None) -> Edit:
    return lambda models: models.set_tags(f"{name}/1", {key: value})


def delete_run(name: str) -> Edit:
    def edit(models: Models) -> None:
        client = models.tracking.client
        client.delete_run(client.get_model_version(name, "1").run_id)

    return edit


def archive(name: str) -> Edit:
    return lambda models: models.tracking.client.transition_model_version_stage(name, "1", "Archived")


EDITS: dict[str, tuple[Edit, str]] = {  # and what is told of it; "" where nothing of the record is touched
    "R7.1 spec 'gone'": (tag("weak", SPEC_TAG, "gone"), "weak/1"),
    "R7.3 spec that learns nothing": (tag("weak", SPEC_TAG, LAZY), "weak/1"),
    "spec tag removed": (tag("weak", SPEC_TAG, None), "weak/1"),
    "spec and digest": (
        lambda models: models.set_tags(
            "weak/1",
            {SPEC_TAG: LAZY, "tournament.digest": parse_spec({**json.loads(LAZY), "name": "weak"}).digest()},
        ),
        "weak/1",
    ),
    "digest": (tag("weak", "tournament.digest", "0" * 64), "weak/1"),
    "family": (tag("weak", "tournament.family", "oracle"), "weak/1"),
    "entered": (tag("weak", "tournament.entered", "when?"), ""),
    "weights": (tag("weak", "tournament.weights", "../../etc"), ""),
    "run": (tag("weak", "tournament.run", "f" * 32), ""),
    "R7.2 version deleted": (lambda models: models.tracking.client.delete_model_version("weak", "1"), "weak/1"),
    "registered model deleted": (lambda models: models.tracking.client.delete_registered_model("weak"), "weak/1"),
    "run deleted": (delete_run("weak"), ""),
    "archived": (archive("weak"), ""),
    "R6.4 members": (tag(ENSEMBLE, "tournament.members", '["nobody/7"]'), f"{ENSEMBLE}/1"),
    "members, no JSON": (tag(ENSEMBLE, "tournament.members", "["), f"{ENSEMBLE}/1"),
    "members removed": (tag(ENSEMBLE, "tournament.members", None), f"{ENSEMBLE}/1"),
    "tournament": (tag(ENSEMBLE, "tournament.id", "t-another"), f"{ENSEMBLE}/1"),
    "run of the ensemble": (tag(ENSEMBLE, "tournament.run", "f" * 32), ""),
    "ensemble deleted": (lambda models: models.tracking.client.delete_model_version(ENSEMBLE, "1"), f"{ENSEMBLE}/1"),
    "all ensembles deleted": (
        lambda models: models.tracking.client.delete_registered_model(ENSEMBLE),
        f"{ENSEMBLE}/1",
    ),
    "run of the ensemble deleted": (delete_run(ENSEMBLE), ""),
    "ensemble archived": (archive(ENSEMBLE), ""),
}

# Those after which a whole tournament is held; after the others it is enough to see who enters, with which models.
HELD = {
    *("R7.1 spec 'gone'", "R7.3 spec that learns nothing", "run", "registered model deleted", "run deleted"),
    *("R6.4 members", "all ensembles deleted", "run of the ensemble deleted"),
}


@dataclass(frozen=True)
class Home:
    """A world with the champion of `weak`, a challenger of `weak` and `good` that waits, and the newcomer `best`."""

    world: World
    case: Case

    @property
    def candidate(self) -> ScoresSpec:
        return ScoresSpec(
            name="best",
            file=str(self.world.files / "best.parquet"),
            trained_on="other_queries",
            provenance="made by a formula",
        )


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, tiny_dataset: Dataset, score_files: Path
) -> Home:
    place = tmp_path_factory.mktemp("record") / "home"
    place.mkdir()
    shutil.copy(mlflow_template, place / "mlflow.db")
    world = World(place, tiny_dataset, shutil.copytree(score_files, place.parent / "files"))
    say(world, world.challenge("t-first", ["weak"]), reason="the first")
    case = world.challenge("t-second", ["weak", "good"])
    world.entrant("best", "newcomer")
    for name in ("mlflow.db", "ledger.db"):
        copy_into(place / name, place.parent / name)
    return Home(world, case)


@pytest.fixture
def home(template: Home) -> Iterator[Home]:
    """The home as it was made; what a test does to its databases is undone."""
    yield template
    place = template.world.settings["home"]
    for name in ("mlflow.db", "ledger.db"):
        copy_into(place.parent / name, place / name)


def enter(home: Home, again: bool = False, versions: tuple[str, ...] = ()) -> TournamentContext:
    world = home.world
    work = Workspace(world.workspace.settings.model_copy(update={"refit": again}))  # the bench has no older models here
    return preparation.enter.fn(work, world.source, world.roles, [], versions, again)


def hold(home: Home, context: TournamentContext) -> tuple[Any, Any]:
    """Hold the tournament; nothing is trained, because all scores are in the store."""
    work = home.world.workspace
    reasons = [competition.train.fn(work, context, entrant) for entrant in context.entrants]
    left = competition.survivors.fn(work, context, reasons)
    costs = competition.profile.fn(work, context, left)
    challenge = competition.build.fn(work, context, left, costs)
    trial = competition.judge.fn(work, context, left, costs, challenge)
    summary = conclusion.summarise.fn(work, context, Checked([], Path("docs")), left, costs, challenge, trial)
    version = conclusion.register.fn(work, context, challenge, trial, summary)
    conclusion.close(work, context, summary, version, None, None)
    return summary, version


def models_of(home: Home) -> set[str]:
    return {path.name for path in (home.world.settings["home"] / "stages").glob("train-*")}


def command(home: Home, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main([*arguments, "--home", str(home.world.settings["home"])])
    said = capfd.readouterr()
    return code, said.out + said.err


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_champion_or_member_is_told_and_stops_no_command(
    home: Home, edit: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """R6.4, R7.1, R7.2, R7.3 and their kind."""
    world, work, before = home.world, home.world.workspace, models_of(home)
    change, told = EDITS[edit]
    recipes = {one.id: one.inputs.digest() for one in enter(home).entrants}
    change(work.models)

    watch = Watch(world.workspace)
    swept = watch.sweep()
    assert swept.errors == []
    assert sum(told in words and "MLflow" in words for words in swept.done if told) == bool(told)
    assert watch.sweep().done == [], "it is told once"
    assert {event.subject for event in work.ledger.events(kind=DIFFERS)} == ({told} if told else set())

    assert command(home, capfd, "champion", "history")[0] == 0
    assert chronicle(work)[0]["members"] == ["weak/1"]
    code, shown = command(home, capfd, "champion", "show")
    assert (code, "weak/1" in shown, "nobody" in shown.split("warning")[0]) == (0, True, False)
    assert (f"warning:  {told}" in shown or f"warning:  candidate {told}" in shown) == bool(told)
    code, listed = command(home, capfd, "candidates")
    assert (code, "good/1" in listed, "weak/1" in listed) == (0, True, True)
    rows = listed.partition("\nhome ")[0]  # the last line says which MLflow was asked
    assert ("MLflow" in rows) == told.startswith("weak")
    code, checked = command(home, capfd, "doctor")
    assert ("FAIL  record" in checked) == bool(told)
    assert told in checked

    assert load_champion(work).members == ("weak/1",)
    assert "weak" in describe(work, home.case)
    assert judge_again(work, home.case).payload["metrics"]
    case = find_case(work.ledger, ENSEMBLE, home.case.id)
    assert case.ensemble.payload["members"] == ["weak/1", "good/1"]

    again = enter(home, again=True)
    assert {one.id: one.role for one in again.entrants} == {"weak/1": "member", "good/1": "bench"}
    context = enter(home)
    assert {one.id: one.inputs.digest() for one in context.entrants} == recipes
    assert [id for id in context.differences if context.differences[id]] == ([told] if told else [])
    if edit not in HELD:
        return
    summary, version = hold(home, context)
    assert {model.name: model.entry for model in summary.models} == {"weak": "incumbent", "best": "candidate"}
    assert summary.verdict["metrics"], "champion and challenger were compared"
    assert version is None or version.version > 2
    assert list(summary.differences) == ([told] if told else [])
    assert models_of(home) == before, "nobody was trained anew"


@pytest.mark.parametrize("edit", ["replaced", "deleted"])
def test_a_member_whose_files_are_changed_goes_on_with_its_model(home: Home, edit: str) -> None:
    """R7.3, by its file: it is not scored anew under its old name."""
    world, file = home.world, home.world.files / "best.parquet"
    _, version = hold(home, enter(home))
    case = find_case(world.workspace.ledger, ENSEMBLE, version.tournament)
    assert "is champion" in say(world, case)
    before = models_of(home)
    recipes = {one.id: one.inputs.digest() for one in enter(home, versions=("good/1",)).entrants}
    content = file.read_bytes()
    file.unlink() if edit == "deleted" else shutil.copy(world.files / "weak.parquet", file)
    try:
        context = enter(home, versions=("good/1",))
        assert {one.id: one.inputs.digest() for one in context.entrants} == recipes
        assert "its stored model goes on" in context.differences["files of best/1"]
        hold(home, context)
    finally:
        file.write_bytes(content)
    assert models_of(home) == before


def test_a_difference_that_is_over_is_told_too(home: Home) -> None:
    work = home.world.workspace
    was = work.models.tags("weak/1")[SPEC_TAG]
    watch = Watch(work)
    for value, kind in (("gone", DIFFERS), (was, AGREES), ("gone", DIFFERS)):
        work.models.set_tags("weak/1", {SPEC_TAG: value})
        watch.sweep()
        assert work.ledger.events(kind=kind)[-1].subject == "weak/1"
    assert len(work.ledger.events(kind=DIFFERS)) == 2


@pytest.mark.parametrize("how", ["deleted", "edited"])
def test_a_member_without_any_copy_is_left_out_and_the_others_compete(home: Home, how: str) -> None:
    """R7.2: its version, or the spec that an older release left to the tag, and its model are gone."""
    work = home.world.workspace
    keep = find_case(work.ledger, ENSEMBLE, home.case.id)
    assert keep.id == home.case.id
    [weak] = [one for one in enter(home).entrants if one.id == "weak/1"]
    if how == "deleted":
        work.models.tracking.client.delete_model_version("weak", "1")
        moved = weak.inputs.model_folder(work.stages)
        moved.rename(moved.with_name("away"))
    else:
        forget_specs(home)
        work.models.set_tags("weak/1", {SPEC_TAG: LAZY})
    try:
        context = enter(home)
        assert [one.id for one in context.entrants] == ["best/1"]
        assert "weak/1" in context.refused
        summary, _ = hold(home, context)
    finally:
        if how == "deleted":
            moved.with_name("away").rename(moved)
    assert {model.name: model.status for model in summary.models} == {"best": "member", "weak": "failed"}
    assert summary.champion is not None, "the champion is compared on the scores that are stored"
    assert summary.verdict["outcome"] != "not_evaluable"


def forget_specs(home: Home) -> None:
    """Make the ledger one of a release that recorded no specs."""
    place = home.world.settings["home"] / "ledger.db"
    with sqlite3.connect(place) as ledger:
        triggers = ledger.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            ledger.execute(f"DROP TRIGGER {name}")
        ledger.execute("UPDATE candidates SET payload = '{}'")
        for _, sql in triggers:
            ledger.execute(sql)
    ledger.close()


def test_an_older_ledger_goes_by_the_tag_as_long_as_it_is_the_spec_of_record(home: Home) -> None:
    forget_specs(home)
    assert {one.id for one in enter(home).entrants} == {"weak/1", "best/1"}


def test_a_newcomer_whose_spec_was_replaced_after_arrival_is_refused(home: Home) -> None:
    """R5.1: the digest tag is left alone, or edited as well; the others compete."""
    models = home.world.workspace.models
    for more in ({}, {"tournament.digest": "0" * 64}, {SPEC_TAG: "gone"}, {SPEC_TAG: None}):
        models.set_tags("best/1", {SPEC_TAG: LAZY} | more)
        for context in (enter(home), enter(home, versions=("best/1",))):
            assert "its spec is another one than when it entered" in context.refused["best/1"]
            assert [one.id for one in context.entrants] == ["weak/1"]


def test_a_newcomer_that_was_deleted_keeps_nobody_from_competing(home: Home) -> None:
    home.world.workspace.models.tracking.client.delete_model_version("best", "1")
    named = enter(home, versions=("best/1", "good/1"))
    assert list(named.refused) == ["best/1"]
    assert "deleted from MLflow" in named.refused["best/1"]
    assert [one.id for one in named.entrants] == ["weak/1", "good/1"]
    assert [one.id for one in enter(home).entrants] == ["weak/1"]
    hold(home, named)
    with pytest.raises(NotFoundError, match="nobody/7"):
        enter(home, versions=("nobody/7",))


def test_who_is_on_record_is_found_again_by_its_spec_and_numbers_are_not_given_twice(home: Home) -> None:
    """A registered model that is deleted begins anew at version 1, which another candidate is on record with."""
    work = home.world.workspace
    changed = home.candidate.model_copy(update={"seed": 7})
    work.models.set_tags("best/1", {SPEC_TAG: changed.model_dump_json(), "tournament.digest": changed.digest()})
    assert work.roll.register(home.candidate).id == "best/1"
    assert work.roll.register(changed).id == "best/2"
    work.models.tracking.client.delete_registered_model("best")
    assert work.roll.register(changed).id == "best/2"
    assert work.roll.candidate("best/1").gone
    assert work.roll.register(home.candidate).id == "best/3"


def test_a_rollback_to_a_deleted_version_is_refused_and_a_promotion_over_one_is_finished(home: Home) -> None:
    world, client = home.world, home.world.workspace.models.tracking.client
    client.delete_model_version(ENSEMBLE, "1")
    assert "is champion" in say(world, home.case)
    assert world.champion() == 2
    work = world.workspace
    assert work.ledger.pending(ENSEMBLE) == []
    with pytest.raises(NotFoundError, match="no version 1"):
        rollback(work.ledger, work.models, "back")
    assert world.champion() == 2


def test_an_approval_of_a_deleted_challenger_is_closed_in_words(home: Home) -> None:
    home.world.workspace.models.tracking.client.delete_model_version(ENSEMBLE, "2")
    assert "stays out: no version 2" in say(home.world, home.case)
    assert home.world.champion() == 1
    assert Watch(home.world.workspace).sweep().errors == []
