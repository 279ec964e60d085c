"""`tournament score`: the champion labels a file of pairs."""

from __future__ import annotations

import pandas as pd
import pytest

from esci_tournament.deployments.cli.score import read_table, write_table
from esci_tournament.registry.errors import DataError


def test_a_spreadsheet_finds_no_formula_in_what_was_labelled(tmp_path):
    """X4.3: a query `=HYPERLINK` and a title `@SUM` came out as they were."""
    texts = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\n=1", " =1", "\uff1d1", "lamp", "", None]
    frame = pd.DataFrame({"query": texts, "=title": pd.Categorical(texts), "E": [-0.5] * len(texts)})
    write_table(frame, tmp_path / "x.csv", raw=False)
    found = pd.read_csv(tmp_path / "x.csv", keep_default_na=False)
    assert list(found.columns) == ["query", "'=title", "E"]
    for column in ("query", "'=title"):
        assert [text.startswith("'") for text in found[column]] == [True] * 9 + [False] * 3
    assert (found["E"] == -0.5).all()
    write_table(frame, tmp_path / "raw.csv", raw=True)
    assert pd.read_csv(tmp_path / "raw.csv")["query"][0] == "=HYPERLINK(1)"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"PAR1" + b"\xff" * 40 + b"PAR1", b'a,b\n"1'])
def test_a_file_that_cannot_be_read_is_a_data_error(content, tmp_path):
    for name in ("x.parquet", "x.csv"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError):
            print(read_table(tmp_path / name))


@pytest.mark.slow
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
    source.write_text("query,product_locale,product_title\n=red lamp,us,@SUM\n", encoding="utf-8")
    for raw, begin in ((["--raw"], "=red lamp,us,@SUM"), ([], "'=red lamp,us,'@SUM")):
        assert tournament("score", source, "--out", target, "--home", held.home, *raw).code == 0
        assert target.read_text(encoding="utf-8").splitlines()[1].startswith(begin)
