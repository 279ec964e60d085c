"""`tournament data served` and its like: what scorers use, in words and as a document, and who may say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployments.conftest import Tournament, refused


def test_without_a_champion_nothing_is_served_and_nothing_can_be_undone(tournament: Tournament, tmp_path: Path) -> None:
    home = tmp_path / "home"
    answer = tournament("data", "served", "--home", home, "--json")
    where = {"home": str(home), "tracking_uri": f"sqlite:///{home / 'mlflow.db'}"}
    assert (answer.code, answer.document) == (0, where | {"serves": None, "before": [], "waits": []})
    refused(tournament("data", "undo", "--reason", "x", "--home", tmp_path / "home"), 10, "there is no champion")


def test_data_that_is_not_on_record_is_not_served(tournament: Tournament, tmp_path: Path) -> None:
    answer = tournament("data", "serve", "abcdef", "--reason", "x", "--home", tmp_path / "home")
    refused(answer, 10, "none begins with 'abcdef'", "tournament data served")


@pytest.mark.slow
def test_newer_data_waits_for_a_reviewer_and_is_taken_back(held, tournament, grown_world, tmp_path) -> None:
    import shutil

    home = tmp_path / "home"
    shutil.copytree(held.home, home, symlinks=True)
    asked = {"TOURNAMENT_REFRESH_SERVED": "review"}
    refreshed = tournament("champion", "refresh", "--data", grown_world, "--home", home, "--json", **asked)
    assert refreshed.code == 0, refreshed.err
    newer = refreshed.document["data_version"]
    assert "waits for a reviewer" in refreshed.err
    known = tournament("data", "served", "--home", home, "--json").document
    assert [one["data_version"] for one in known["waits"]] == [newer]
    old = known["serves"]["data_version"]
    assert old == held.document["data"]["version"]
    bare = tournament("data", "serve", newer[:8], "--home", home)
    assert bare.code == 2  # a reason is needed
    said = tournament("data", "serve", newer[:8], "--reason", "looks right", "--reviewer", "ana", "--home", home)
    assert said.code == 0, said.err
    now = tournament("data", "served", "--home", home, "--json").document
    assert (now["serves"]["data_version"], now["serves"]["by"], now["waits"]) == (newer, "ana", [])
    assert isinstance(now["serves"]["products"], int)
    undone = tournament("data", "undo", "--reason", "prices are wrong", "--home", home, "--json")
    assert undone.document["data_version"] == old
    shown = tournament("data", "served", "--home", home)
    assert "serves now" in shown.out
    assert "prices are wrong" in shown.out
