"""Rows as the champion reads them: ids are looked up, and what cannot be answered says why."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from esci_tournament.deployments.labelling import read_rows
from esci_tournament.deployments.scorer.catalogue import ProductCatalogue
from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.store import write_frame
from esci_tournament.tasks.ensemble.rows import raise_for

PRODUCTS = pd.DataFrame(
    {
        "product_id": ["P1", "0065030834155", "P1"],
        "locale": ["us", "us", "jp"],
        "title": ["Velo lamp", "Norvik kettle", "ランプ"],
        "brand": ["Velo", "Norvik", ""],
        "color": "",
        "bullets": ["", "steel", ""],
        "description": "",
    }
)


@pytest.fixture
def catalogue(tmp_path: Path) -> ProductCatalogue:
    write_frame(PRODUCTS, tmp_path / "products.arrow")
    return ProductCatalogue.open(tmp_path / "products.arrow", tmp_path / "indices")


def test_products_without_text_are_looked_up_in_their_locale_and_others_keep_their_own(catalogue) -> None:
    frame = pd.DataFrame(
        {
            "query": ["lamp", "lamp", "kettle", "lamp"],
            "product_locale": ["us", "jp", "us", "us"],
            "product_id": ["P1", "P1", "0065030834155", "P1"],
            "product_title": [None, "", " ", "My own lamp"],
        },
        index=[5, 5, 5, 5],
    )
    rows = read_rows(frame, lambda: catalogue)
    assert rows.answerable.all()
    assert rows.frame["product_title"].tolist() == ["Velo lamp", "ランプ", "Norvik kettle", "My own lamp"]
    assert rows.frame["product_bullet_point"].tolist() == ["", "", "steel", ""]


def test_a_row_that_cannot_be_answered_says_why_and_no_other_row_suffers(catalogue) -> None:
    frame = pd.DataFrame(
        [
            (" ", "us", "P1"),
            ("lampe", "de", "P1"),
            ("lamp", "us", None),
            ("lamp", "es", "P1"),
            ("lamp", "us", "P1"),
            (None, None, None),
        ],
        columns=["query", "product_locale", "product_id"],
    )
    rows = read_rows(frame, lambda: catalogue)
    assert rows.problems.tolist() == [
        "the query is blank",
        "the locale 'de' is not one of us, es, jp",
        "the row names no product: it has neither a text nor a product_id",
        "product P1 has no text, here or in the catalogue of es",
        "",
        "the query is blank",
    ]
    with pytest.raises(DataError, match="the query is blank") as caught:
        raise_for(rows.problems)
    assert (caught.value.rows, caught.value.count) == ([0, 5], 5)


@pytest.mark.parametrize("kind", ["int64", "Int64", "float64", "object", "category", "string"])
def test_an_id_is_found_whatever_it_is_kept_as(kind: str, tmp_path: Path) -> None:
    write_frame(PRODUCTS.assign(product_id=["12345678901", "2", "3"]), tmp_path / "products.arrow")
    catalogue = ProductCatalogue.open(tmp_path / "products.arrow", tmp_path / "indices")
    ids = pd.Series([12345678901, 2]).astype(str if kind in ("category", "string") else kind)
    frame = pd.DataFrame({"query": "lamp", "product_locale": "us", "product_id": ids})
    if kind in ("category", "string"):
        frame["product_id"] = frame["product_id"].astype(kind)
    if kind == "object":  # as a column of floats with a missing value is read from Arrow
        frame["product_id"] = pd.Series([12345678901.0, 2.0], dtype=object)
    assert read_rows(frame, lambda: catalogue).answerable.all()


def test_without_a_catalogue_it_is_said_that_there_is_none() -> None:
    frame = pd.DataFrame({"query": ["lamp"], "product_locale": ["us"], "product_id": ["P1"]})
    (problem,) = read_rows(frame, ProductCatalogue.empty).problems
    assert "the champion's catalogue is not in this home" in problem


def test_the_catalogue_is_opened_only_for_rows_that_need_it() -> None:
    frame = pd.DataFrame({"query": ["lamp"], "product_locale": ["us"], "product_title": ["Lamp"]})
    assert read_rows(frame, lambda: pytest.fail("it was opened")).answerable.all()


def test_a_table_without_a_needed_column_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(DataError, match=r"required column is absent.*product_locale.*columns query, locale"):
        read_rows(pd.DataFrame({"query": ["lamp"], "locale": ["us"]}), ProductCatalogue.empty)
