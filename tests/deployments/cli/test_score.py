"""`tournament score`: the champion labels a file of pairs."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from esci_tournament.tasks.data.layout import EXAMPLES_FILE

ODD = """query,product_locale,product_id,product_title,label
red lamp,us,007,Velo red lamp,S
,us,NA,x,
NA,us,0065030834155,null modem,None
lampe,de,1e5,Lampe,
red lamp,us,GONE,,
=red lamp,us,-1,@SUM,
"""


@pytest.mark.slow
def test_a_row_in_is_a_row_out_with_its_cells_untouched(held, tournament, tmp_path):
    source, target = tmp_path / "pairs.csv", tmp_path / "out.csv"
    source.write_text(ODD, encoding="utf-8")
    asked = tournament("score", source, "--out", target, "--home", held.home, "--raw")
    assert asked.code == 0
    header, *rows = target.read_text(encoding="utf-8").splitlines()
    names = "query,product_locale,product_id,product_title,label"
    ours = ",".join(f"champion_{name}" for name in ("E", "S", "C", "I", "label", "problem"))
    assert header == f"{names},{ours}"
    assert [row.startswith(old) for row, old in zip(rows, ODD.splitlines()[1:], strict=True)] == [True] * 6
    frame = pd.read_csv(target, dtype=str, keep_default_na=False)
    assert [label in tuple("ESCI") for label in frame["champion_label"]] == [True, False, True, False, False, True]
    assert frame["champion_problem"].tolist()[1::3] == [
        "the query is blank",
        "product GONE has no text, here or in the catalogue of us",
    ]
    assert "1 of 6 rows have no answer (first: row 2): the query is blank" in asked.err
    assert "the file has columns of our names (label); ours begin with champion_" in asked.err
    assert tournament("score", source, "--out", target, "--home", held.home).code == 0
    assert "'=red lamp,us,-1,'@SUM" in target.read_text(encoding="utf-8")


@pytest.mark.slow
def test_products_are_looked_up_by_id_as_the_scorer_does(held, tournament, tmp_path, tiny_world):
    examples = pd.read_parquet(tiny_world / EXAMPLES_FILE)
    part = pd.concat([examples.head(3), examples.head(3)])  # as pd.concat leaves it: each index twice
    part.to_parquet(tmp_path / "pairs.parquet")
    found = json.loads(tournament("score", tmp_path / "pairs.parquet", "--home", held.home, "--json").out)
    assert [row["example_id"] for row in found["pairs"]] == part["example_id"].tolist()
    assert found["unanswered"] == 0
    assert len({(row["product_id"], row["E"]) for row in found["pairs"]}) == part["product_id"].nunique()


@pytest.mark.slow
def test_a_file_of_which_nothing_can_be_answered_is_an_error_with_the_reason(held, tournament, tmp_path):
    (tmp_path / "x.csv").write_text("query,product_locale,product_title\n,us,x\n", encoding="utf-8")
    asked = tournament("score", tmp_path / "x.csv", "--home", held.home)
    assert asked.code == 3
    assert "not a single row can be answered" in asked.err
    assert "the query is blank" in asked.err
