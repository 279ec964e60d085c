"""Rows of a table, as members read them."""

from __future__ import annotations

import pandas as pd
import pytest

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.ensemble.rows import pairs_and_products, problems_of, raise_for, rows_of


def rows(**columns: list[object]) -> pd.DataFrame:
    whole = {"query": ["red lamp", "red lamp", "taza"], "product_locale": ["us", "us", "es"]}
    whole |= {"product_id": ["B1", "B2", "B1"], "product_title": ["Velo lamp", "Blue mug", "Taza"]}
    return pd.DataFrame(whole | columns)


def read(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    found = rows_of(frame)
    raise_for(problems_of(found))
    return pairs_and_products(found)


def test_a_product_in_many_rows_is_read_once() -> None:
    pairs, products = read(rows(product_id=["B1", "B1", "B1"], product_title=["Lamp", "Lamp", "Lamp"]))
    assert pairs["product"].tolist() == [0, 0, 1]  # the same id in another locale is another product
    assert products["locale"].tolist() == ["us", "es"]


def test_the_same_product_with_another_text_is_another_product() -> None:
    pairs, products = read(rows(product_id=["B1", "B1", "B1"], product_locale=["us"] * 3))
    assert products["title"].iloc[pairs["product"]].tolist() == ["Velo lamp", "Blue mug", "Taza"]


def test_what_is_absent_or_missing_is_empty_text() -> None:
    pairs, products = read(pd.DataFrame({"query": ["lamp"], "product_locale": ["us"], "product_brand": [None]}))
    assert products.loc[0].to_dict() == {
        "product_id": "", "locale": "us", "title": "", "brand": "", "color": "", "bullets": "", "description": "",
    }  # fmt: skip
    assert pairs["query"].tolist() == ["lamp"]


@pytest.mark.parametrize("column", ["query", "product_locale", "product_title"])
def test_columns_may_be_categories(column: str) -> None:
    frame = rows()
    for one, other in zip(read(frame.astype({column: "category"})), read(frame), strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("column", ["query", "product_locale"])
def test_a_required_column_that_is_absent_is_named(column: str) -> None:
    with pytest.raises(
        DataError, match=f"a required column is absent; column: {column}; needed: .*the table has the columns"
    ):
        read(rows().drop(columns=column))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"query": ["lamp", "  ", None]}, r"the query is blank; first rows: 1, 2 \(2 in all\)"),
        ({"product_locale": ["us", "fr", "us"]}, r"the locale 'fr' is not one of us, es, jp; first rows: 1 \(1 in"),
    ],
)
def test_rows_that_cannot_be_read_are_named(columns: dict[str, list[object]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(rows(**columns))


def test_a_column_that_stands_twice_is_not_guessed() -> None:
    frame = pd.concat([rows(), rows()[["product_title"]]], axis=1)
    with pytest.raises(DataError, match="a column stands twice; column: product_title"):
        rows_of(frame)
