"""`tournament score`: the champion labels a file of pairs."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_scoring_a_file_gives_every_row_a_label(held, tournament, tmp_path):
    source, target = tmp_path / "pairs.csv", tmp_path / "out.csv"
    source.write_text("query,product_locale,product_title\nred lamp,us,Velo red lamp\n,us,x\n", encoding="utf-8")
    refused = tournament("score", source, "--out", target, "--home", held.home)
    assert refused.code == 3
    assert "query is blank" in refused.err
    assert not target.exists()
    source.write_text("query,product_locale,product_title\nred lamp,us,Velo red lamp\n", encoding="utf-8")
    assert tournament("score", source, "--out", target, "--home", held.home).code == 0
    assert target.read_text(encoding="utf-8").splitlines()[0].endswith("E,S,C,I,label")
