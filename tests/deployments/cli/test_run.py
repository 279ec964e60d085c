"""`tournament run`: what ends it in words, and what it shows of a tournament."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from esci_tournament.deployments.cli.common import Output, typed
from esci_tournament.deployments.cli.run import show
from esci_tournament.flows.context import TournamentOutcome
from tests.deployments.conftest import refused
from tests.tasks.report.conftest import build


@pytest.mark.slow
def test_broken_data_ends_the_run_and_json_has_one_error_document(tournament, tiny_world, specs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_world, data)
    products = data / "shopping_queries_dataset_products.parquet"
    products.write_bytes(products.read_bytes()[:1000])
    answer = tournament("run", "--home", tmp_path / "home", "--data", data, "--candidates", specs, "--json")
    refused(answer, 3, products.name)
    assert json.loads(answer.out)["exit_code"] == 3


@pytest.mark.slow
def test_budget_that_nobody_fits_says_what_the_smallest_needs(tournament, held):
    answer = tournament(
        "run", "--home", held.home, "--data", held.data, "--candidates", held.specs, "--budget-latency-ms", 0.001
    )
    refused(answer, 7, "no ensemble fits the budget")


@pytest.mark.slow
def test_second_tournament_in_the_same_home_is_told_who_holds_it(tournament, held):
    from esci_tournament.registry.locks import tournament_lock

    with tournament_lock(held.home, "a test"):
        answer = tournament("run", "--home", held.home, "--data", held.data, "--candidates", held.specs)
    refused(answer, 9, str(os.getpid()))


@pytest.mark.slow
def test_home_that_cannot_be_made_is_named(tournament, tiny_world, specs, tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder", encoding="utf-8")
    answer = tournament("run", "--home", file / "home", "--data", tiny_world, "--candidates", specs)
    refused(answer, 8, str(Path(file)))


def shown(outcome: TournamentOutcome, capfd: pytest.CaptureFixture[str], as_json: bool = False) -> str:
    """Return what people read of an outcome, or the document of machines."""
    with closing(Output(as_json)) as output:
        show(outcome, output)
    return capfd.readouterr().out


def test_a_tournament_that_was_held_before_is_said_to_be_one(capfd):
    for unchanged in (False, True):
        said = shown(TournamentOutcome(build(), Path("report.html"), unchanged), capfd)
        assert ("nothing was trained" in said) is unchanged
        assert "minilm-l6" in said
        assert "report: report.html" in said


def test_a_challenger_that_waits_comes_with_the_command_that_shows_it(capfd):
    for waits in (False, True):
        said = shown(TournamentOutcome(build(awaits_review=waits), Path("report.html")), capfd)
        assert ("tournament review list" in said) is waits


def test_the_document_is_the_summary_with_report_and_novelty(capfd):
    summary = build()
    document = json.loads(shown(TournamentOutcome(summary, Path("report.html"), unchanged=True), capfd, as_json=True))
    versions = (document["champion_version"], document["ensemble_version"], document["models"][0]["version"])
    assert versions == (int(summary.champion_version), int(summary.ensemble_version), int(summary.models[0].version))
    assert document == typed(json.loads(summary.to_json())) | {"report": "report.html", "unchanged": True}
