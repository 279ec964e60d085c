"""What serves is what was approved: files of a champion that are changed after the decision, and before it.

Each test is named after what is tried; the ids in the docstrings are rows of the table in docs/security.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest

from esci_tournament.deployments.champion import load_champion
from esci_tournament.deployments.scorer.champion import Card
from esci_tournament.deployments.scorer.copies import Copies
from esci_tournament.flows.review_runs import describe
from esci_tournament.flows.watch import Watch
from esci_tournament.registry import tables
from esci_tournament.registry.attestation import DIFFERS, attest, attested, champion_in_words
from esci_tournament.registry.errors import IntegrityError, PolicyError, StoreError, UsageError
from esci_tournament.registry.manifests import FILE
from esci_tournament.registry.versions import MANIFEST_TAG
from tests.flows.conftest import say, sweep

pytestmark = pytest.mark.slow


def files_of(world: Any, version: int = 1) -> Path:
    """Return the folder with the files of an ensemble in MLflow's store."""
    models = world.workspace.models
    return models.files(models.ensemble(version))


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def pointed_at(world: Any, data: str) -> None:
    """Let the `MLmodel` of the champion name another folder."""
    path = files_of(world) / "MLmodel"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(f"    data: {data}" if "data:" in line else line for line in lines))


def forgotten(world: Any) -> None:
    """Make the champion one from before manifests were kept, in the ledger and in MLflow."""
    with world.workspace.ledger._database.writing() as connection:
        for table in ("ensembles", "decisions", "approvals"):
            connection.exec_driver_sql(f"DROP TRIGGER {table}_no_update")
            rows = connection.execute(tables.metadata.tables[table].select()).mappings().all()
            for row in rows:
                older = {key: value for key, value in row["payload"].items() if not key.startswith("manifest")}
                this = tables.metadata.tables[table]
                connection.execute(this.update().where(this.c.id == row["id"]).values(payload=older))
    (files_of(world) / FILE).unlink()


# After the decision

CHANGES: dict[str, Callable[[Path], object]] = {
    "a bit of a member": lambda data: flip(next(data.glob("members/*/spec.json"))),
    "the aggregator": lambda data: flip(next((data / "aggregator").iterdir())),
    "the list of members": lambda data: (data / "ensemble.json").write_text('{"members": []}'),
    "a file more": lambda data: (data / "members" / "more.bin").touch(),
    "a file less": lambda data: (data / "early_exit.json").unlink(),
    "what MLflow goes by": lambda data: flip(data.parents[1] / "MLmodel"),
    "a link to the same bytes": lambda data: linked(data / "ensemble.json"),
    "a folder that is a link": lambda data: linked(data / "aggregator"),
}


def linked(path: Path) -> None:
    elsewhere = path.parents[3] / f"elsewhere {path.name}"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def test_files_that_are_changed_after_the_approval_are_served_by_nobody(champion: Any, tmp_path: Path) -> None:
    """A1: what MLflow's store holds of the approved champion is changed, in one way after the other."""
    work, root = champion.workspace, files_of(champion)
    before = load_champion(work)
    assert (before.version, before.warnings) == (1, ())
    known = attested(work.ledger, "esci-ensemble", 1)
    card = Card("esci-ensemble", 1, "t-1", "data", ("weak/1",), manifest=known.digest)
    copies, watch = Copies(tmp_path / "copies", lambda card: known.manifest), Watch(work)
    sweep(watch)
    shutil.copytree(root, tmp_path / "as approved")
    for number, (change, make) in enumerate(CHANGES.items(), 1):
        make(work.models.download(work.models.ensemble(1)))
        with pytest.raises(IntegrityError, match="differs from manifest"):
            load_champion(work)
        with pytest.raises(IntegrityError):
            champion_in_words(work)
        with pytest.raises(IntegrityError):
            copies.fetch(work.models, card)
        assert list(copies.folder.iterdir()) == [], change
        told = work.ledger.events(kind=DIFFERS)
        assert len(told) == number, "once for each difference"
        assert sweep(watch) == [told[-1].payload["text"]], "the watcher announces it"
        assert sweep(watch) == [], "once"
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "as approved", root)
    assert load_champion(work).warnings == ()
    assert copies.fetch(work.models, card) == copies.checked(card)


def test_mlflow_loads_what_the_ledger_knows_and_nothing_else(champion: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A1: through `mlflow.pyfunc.load_model`, with a ledger, with a digest, and with neither."""
    work, home = champion.workspace, champion.settings["home"]
    folder, digest = str(files_of(champion)), attested(work.ledger, "esci-ensemble", 1).digest
    monkeypatch.chdir(home)
    monkeypatch.setenv("TOURNAMENT_HOME", str(home))
    assert mlflow.pyfunc.load_model(folder) is not None
    monkeypatch.setenv("TOURNAMENT_HOME", str(home / "elsewhere"))
    with pytest.warns(UserWarning, match="Who made that manifest is not known here"):
        mlflow.pyfunc.load_model(folder)
    monkeypatch.setenv("TOURNAMENT_MANIFEST_DIGEST", digest)
    assert mlflow.pyfunc.load_model(folder) is not None
    monkeypatch.setenv("TOURNAMENT_MANIFEST_DIGEST", "0" * 64)
    with pytest.raises(IntegrityError, match="the setting manifest_digest says 000000000000"):
        mlflow.pyfunc.load_model(folder)
    monkeypatch.delenv("TOURNAMENT_MANIFEST_DIGEST")
    flip(next(files_of(champion).glob("data/*/members/*/spec.json")))
    for place in (home / "elsewhere", home):
        monkeypatch.setenv("TOURNAMENT_HOME", str(place))
        with pytest.raises(IntegrityError, match="differs from manifest"):
            mlflow.pyfunc.load_model(folder)
    # A manifest that fits the changed files is not the ledger's
    (files_of(champion) / FILE).unlink()
    with pytest.raises(IntegrityError):
        mlflow.pyfunc.load_model(folder)


# What the MLmodel says


OUTSIDE = ("{outside}", "data/../../outside", "link", "''", ".", "../outside")


@pytest.mark.parametrize("has_manifest", [True, False], ids=["with a manifest", "from before manifests"])
def test_the_data_of_an_mlmodel_stays_in_its_folder(champion: Any, has_manifest: bool, tmp_path: Path) -> None:
    """A2: `data:` is an absolute path, goes up, or leads through a link; the folder there was moved, then deleted."""
    if not has_manifest:
        forgotten(champion)
    work, root = champion.workspace, files_of(champion)
    outside = root.parent / "outside"
    shutil.copytree(work.models.download(work.models.ensemble(1)), outside)
    count = len(list(outside.rglob("*")))
    assert count > 3
    (root / "link").symlink_to(outside)
    known = attested(work.ledger, "esci-ensemble", 1)
    assert (known.manifest is not None) is has_manifest
    copies = Copies(tmp_path / "copies", lambda card: known.manifest)
    for data in OUTSIDE:
        pointed_at(champion, data.format(outside=outside))
        with pytest.raises(IntegrityError):
            load_champion(work)
        with pytest.raises(IntegrityError):
            copies.fetch(work.models, Card("esci-ensemble", 1, "t-1", "data", ("weak/1",), manifest=known.digest))
        assert len(list(outside.rglob("*"))) == count, data
        assert list(copies.folder.iterdir()) == []


# Before the decision


def test_weights_that_were_damaged_after_scoring_are_not_registered(world: Any) -> None:
    """F2: a bit of a stored model is flipped between its scores and the end of the tournament."""
    stages = world.workspace.stages
    inputs = world.entrant("weak", "newcomer").inputs
    flip(next(inputs.model_folder(stages).glob("spec.json")))
    with pytest.raises(StoreError, match="is damaged"):
        world.challenge("t-1", ["weak"])
    assert world.workspace.models.ensembles() == []
    assert world.champion() is None


def test_an_ensemble_that_was_damaged_before_it_is_registered_is_not(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F2: the assembled ensemble is changed after its manifest was made."""
    from esci_tournament.flows import conclusion

    def package(folder: Path, empty: Path, facts: Any, **more: Any) -> Any:
        made = packaged(folder, empty, facts, **more)
        flip(folder / "ensemble.json")
        return made

    packaged = conclusion.package_ensemble
    monkeypatch.setattr(conclusion, "package_ensemble", package)
    with pytest.raises(IntegrityError, match=r"ensemble\.json has another content"):
        world.challenge("t-1", ["weak"])
    assert world.workspace.models.ensembles() == []


# The decision


def test_decision_and_approvals_name_the_manifest_that_the_reviewer_was_shown(asked: Any) -> None:
    world, case = asked, asked.waiting()
    digest = case.ensemble.manifest_digest
    assert f"manifest `{digest[:12]}`" in describe(world.workspace, case)
    say(world, case)
    ledger = world.workspace.ledger
    assert [one.payload["manifest_digest"] for one in [*ledger.decisions(), *ledger.approvals()]] == [digest, digest]
    assert world.workspace.models.tags("esci-ensemble/1")[MANIFEST_TAG] == digest
    facts = attested(ledger, "esci-ensemble", 1).manifest.facts
    assert (facts["tournament"], facts["data"], set(facts["members"])) == ("t-1", world.source.version, {"weak/1"})


def test_a_decision_on_other_files_promotes_nobody(asked: Any) -> None:
    """L1.2: the whole decision is there, and it is not about these files."""
    named = {"manifest_digest": "0" * 64}
    world, case = asked, asked.waiting()
    ledger = world.workspace.ledger
    ledger.record_approval(case.id, "ana", "ana", "better", {"proof": "process"})
    decision = ledger.record_decision(case.id, "approve", "ana", "better", named)
    with pytest.raises(PolicyError, match="its decision names manifest"):
        ledger.record_promotion("esci-ensemble", "promote", 1, 0, "better", decision.id)
    assert world.champion() is None


def test_a_forged_ensemble_without_a_manifest_is_no_champion(champion: Any) -> None:
    """L1.2: rows for a whole tournament are inserted, up to the promotion of a version that nobody built."""
    work = champion.workspace
    ledger = work.ledger
    ledger.start_tournament("t-forged", champion.source.version)
    settings = ledger.ensembles("t-1")[0].payload["settings"]
    ledger.record_ensemble("t-forged", "esci-ensemble", 2, {"members": ["weak/1"], "settings": settings})
    verdict = ledger.record_verdict("t-forged", "promote", {}, against=1)
    ledger.record_approval(verdict.id, "ana", "ana", "better", {"proof": "process"})
    decision = ledger.record_decision(verdict.id, "approve", "ana", "better")
    row = asdict(ledger.standing("esci-ensemble").champion) | {"sequence": 2, "version": 2, "decision": decision.id}
    with ledger._database.writing() as connection:
        connection.execute(tables.promotions.insert().values({key: row[key] for key in row if key != "id"}))
    [invalid] = ledger.standing("esci-ensemble").invalid
    assert "its ensemble has no manifest, though ensembles before it have one" in str(invalid)
    assert load_champion(work).version == 1


# Champions from before manifests were kept


def test_a_champion_from_before_is_served_told_and_can_be_attested(champion: Any) -> None:
    forgotten(champion)
    work = champion.workspace
    loaded = load_champion(work)
    assert loaded.version == 1
    assert "was promoted before manifests were kept" in loaded.warnings[0]
    assert "was promoted before manifests were kept" in champion_in_words(work)
    with pytest.raises(UsageError, match="needs a reason"):
        attest(work, work.models.ensemble(1), " ")
    manifest = attest(work, work.models.ensemble(1), "compared with the backup of the day")
    assert load_champion(work).warnings == ()
    assert manifest.digest[:12] in champion_in_words(work)
    with pytest.raises(UsageError, match="never changes"):
        attest(work, work.models.ensemble(1), "again")
    flip(next(files_of(champion).glob("data/*/members/*/spec.json")))
    with pytest.raises(IntegrityError):
        load_champion(work)
