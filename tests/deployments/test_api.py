"""The public API: it does the same as the command line, also inside the event loop of a notebook."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest

import esci_tournament as et

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
SPEC = {"name": "sage-clicks", "family": "graph_network", "architecture": "graphsage", "relation": "clicks"}


@pytest.mark.slow
def test_run_returns_what_the_command_line_shows_and_the_champion_answers(held) -> None:
    async def cell() -> et.Result:
        """Run as a cell of a notebook does: in a thread whose event loop is running."""
        return et.run(held.data, str(held.specs), home=held.home, progress=False, minimum_test_queries=10)

    result = asyncio.run(cell())
    assert result.unchanged
    assert result.summary.tournament == held.document["tournament"]
    assert result.verdict == held.document["verdict"]["outcome"]
    assert result.promoted is held.document["promoted"]
    board = result.leaderboard
    assert list(board["model"][:1]) == ["ensemble"]
    assert board["macro_f1"][0] == held.document["ensemble"]["macro_f1"]
    assert "<table" in result._repr_html_()
    members = [f"{model.name}/{model.version}" for model in result.summary.models if model.status == "member"]
    assert sorted(result.explanation.feature_names) == sorted(members)
    assert result.explanation[:, :, "Exact"].shape == (200, len(members))


@pytest.mark.slow
def test_the_guide_runs_as_it_stands_and_names_all_that_is_public(held, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tournament.toml").write_text("minimum_test_queries = 10\n")
    (tmp_path / "home").symlink_to(held.home)
    (tmp_path / "esci").symlink_to(held.data)
    shutil.copy(held.specs, "candidates.toml")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # the guide sets it, as MLflow does
    scope: dict = {}
    try:
        for code in re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL):
            exec(code, scope)
    finally:
        mlflow.set_tracking_uri(None)
    assert scope["model"].metadata.signature is not None
    assert scope["result"].unchanged
    assert scope["version"].id == "sage-clicks/1"
    listed = GUIDE[GUIDE.index("| name |") :]
    assert set(et.__all__) - {"__version__"} == set(re.findall(r"`(\w+)`", listed))


@pytest.mark.slow
def test_the_champion_answers_on_the_index_of_the_rows(held) -> None:
    champion = et.load_champion(held.home, device="cpu")
    rows = pd.DataFrame({"query": ["red lamp", "lámpara"], "product_locale": ["us", "es"]}, index=[7, 3])
    with pytest.raises(et.DataError, match="names no product"):
        champion.predict(rows)
    rows["product_title"] = "Velo"
    answer = champion.predict(rows)
    assert list(answer.index) == [7, 3]
    assert answer[list("ESCI")].sum(axis=1).to_numpy() == pytest.approx(1.0)
    members = {f"{one['name']}/{one['version']}" for one in held.document["models"] if one["status"] == "member"}
    assert set(champion.members) == members


def test_a_spec_is_registered_once_however_it_is_given(tmp_path: Path) -> None:
    first = et.register(SPEC, home=tmp_path)
    (tmp_path / "c.toml").write_text("[[candidate]]\n" + "".join(f'{key} = "{value}"\n' for key, value in SPEC.items()))
    assert [et.register(spec, home=tmp_path).id for spec in et.read_specs(tmp_path / "c.toml")] == [first.id]


def test_errors_are_those_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(et.NotFoundError, match="no champion yet"):
        et.load_champion(tmp_path)
    with pytest.raises(et.UsageError, match="setting sead"):
        et.run(tmp_path, home=tmp_path, sead=1)
    with pytest.raises(et.SpecError, match="architectur"):
        et.register({**SPEC, "architectur": "gcn"}, home=tmp_path)
