"""The stored report of a tournament: here, or in MLflow for who held it elsewhere."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from esci_tournament.flows.report_files import log_report, read_summary, reports_folder, stored_summary, write_report
from esci_tournament.registry.errors import NotFoundError
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report.sealing import published
from tests.tasks.report.conftest import build

SUMMARY = build(tournament="t-1")


@pytest.fixture
def version(workspace: Workspace, tmp_path: Path) -> EnsembleVersion:
    """An ensemble that the tournament has registered."""
    folder = tmp_path / "ensemble"
    folder.mkdir()
    (folder / "anything").write_text("x", encoding="utf-8")
    return workspace.models.register_ensemble(folder, ["a/1"], "t-1")


def test_a_report_is_written_again_with_its_figures_left_alone(workspace: Workspace) -> None:
    page = write_report(workspace, SUMMARY, with_figures=False)
    assert page == reports_folder(workspace, "t-1") / "report.html"
    assert not (page.parent / "figures").exists()
    (page.parent / "figures").mkdir()
    (page.parent / "figures" / "drawn.svg").touch()
    write_report(workspace, replace(SUMMARY, decision={"decision": "refuse", "by": "ana", "reason": "too dear"}), False)
    assert "too dear" in page.read_text(encoding="utf-8")
    assert (page.parent / "figures" / "drawn.svg").exists()


def test_figures_of_numbers_that_are_sealed_by_now_are_removed(workspace: Workspace) -> None:
    figures = write_report(workspace, SUMMARY).parent / "figures"
    assert {"confusion_matrix.svg", "reliability.svg"} < {path.name for path in figures.iterdir()}
    write_report(workspace, published(SUMMARY, may_serve=False))
    learnt_from = {
        f"{name}.svg" for name in ("utility", "shap_bar", "shap_beeswarm", "budget_curve", "learning_curves")
    }
    assert {path.name for path in figures.iterdir()} == learnt_from


def test_a_summary_is_read_from_this_home_first_and_from_mlflow_when_it_was_held_elsewhere(
    workspace: Workspace, version: EnsembleVersion
) -> None:
    write_report(workspace, SUMMARY, with_figures=False)
    log_report(workspace, "t-1")
    newer = replace(SUMMARY, seconds=1.0)
    write_report(workspace, newer, with_figures=False)
    assert read_summary(workspace, "t-1", version) == newer
    shutil.rmtree(reports_folder(workspace, "t-1"))
    assert read_summary(workspace, "t-1", version) == SUMMARY


def test_a_summary_of_a_moved_home_has_the_addresses_of_this_one(workspace: Workspace) -> None:
    home = workspace.settings.home
    links = {"MLflow": "sqlite:////old/place/mlflow.db", "ledger": "postgresql://u:***@db/ledger"}
    told = replace(
        SUMMARY, settings={"home": "/old/place"}, links=links, data_docs="/old/place/stages/v/docs/index.html"
    )
    write_report(workspace, told, with_figures=False)
    read = stored_summary(workspace, "t-1")
    assert read.links == {"MLflow": f"sqlite:///{home / 'mlflow.db'}", "ledger": links["ledger"]}
    assert (read.data_docs, read.settings) == (f"{home / 'stages/v/docs/index.html'}", told.settings)


def test_a_summary_that_nobody_has_is_not_found(workspace: Workspace, version: EnsembleVersion) -> None:
    with pytest.raises(NotFoundError):
        read_summary(workspace, "t-1", version)
