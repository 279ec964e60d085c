"""Build the rules of the data as Great Expectations suites, each with a function that finds the rows that break it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.bounds import Bounds
from esci_tournament.tasks.data.dataset import LOCALES, Dataset
from esci_tournament.tasks.data.expectations import Offenders, Rule, gxe
from esci_tournament.tasks.data.layout import EDGES_FILE, EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE, SPLITS
from esci_tournament.tasks.data.log_rules import log_rules
from esci_tournament.tasks.data.offenders import (
    SHOWN,
    no_rows,
    pairs_where,
    products_where,
    spelt_where,
    unknown_label,
)
from esci_tournament.tasks.data.reading import NUMBERED_LABELS
from esci_tournament.tasks.data.rule_frames import columns_found, locales_in, unread_files
from esci_tournament.tasks.data.split import copied_rows, crossing_rows
from esci_tournament.tasks.data.ubi_files import SHAPES, STEMS


def rules_for(dataset: Dataset, bounds: Bounds) -> list[Rule]:
    """Return every rule for a data set; those about logs only if it has any.

    Args:
        dataset: The data set; it decides which logs there are and how many crossing queries are tolerated.
        bounds: What is usual.

    Returns:
        The rules, in the order in which they are reported.
    """
    rules = [
        _columns_rule(),
        *_examples_rules(),
        *_products_rules(bounds),
        _product_exists(),
        *_crossing_rules(dataset, bounds),
        _test_rule(bounds),
        *_bounds_rules(dataset, bounds),
    ]
    return [*rules, *log_rules(dataset, bounds.behaviour_kept), _files_rule()]


def _columns_rule() -> Rule:
    def find(dataset: Dataset) -> tuple[list[str], int]:
        wrong = columns_found(dataset).query("found != expected")
        shown = [f"{row.file}, {row.column}: {row.found} for {row.expected}" for row in wrong.itertuples()]
        return shown, len(wrong)

    return Rule(
        "columns_and_types",
        "columns",
        gxe.ExpectColumnPairValuesToBeEqual(column_A="found", column_B="expected"),
        True,
        "",
        "",
        "the official columns and types",
        "every file has its columns, and no other, with their types",
        "a file has a wrong column or type",
        find,
    )


def _files_rule() -> Rule:
    def find(dataset: Dataset) -> tuple[list[str], int]:
        found = unread_files(dataset)
        return found[:SHOWN], len(found)

    return Rule(
        "files_known",
        "summary",
        gxe.ExpectColumnValuesToBeBetween(column="unread_files", max_value=0),
        False,
        "",
        "",
        "none",
        "every file of the folder that looks like data is read",
        "the folder has files that look like data and that nothing reads",
        find,
        f"nothing stops; behaviour is read from {EVENTS_FILE}, {EDGES_FILE}, and {', '.join(STEMS)} as "
        f"{', '.join(SHAPES)}, each also with .gz",
    )


def _examples_rules() -> list[Rule]:
    def rule(
        name: str,
        table: str,
        expectation: gxe.Expectation,
        column: str,
        expected: str,
        holds: str,
        broken: str,
        rows: Offenders,
        advice: str = "correct these rows or leave them out",
    ) -> Rule:
        return Rule(name, table, expectation, True, EXAMPLES_FILE, column, expected, holds, broken, rows, advice)

    triple = ["query_id", "product_id", "product_locale"]
    return [
        rule(
            "example_id_unique",
            "examples",
            gxe.ExpectColumnValuesToBeUnique(column="example_id"),
            "example_id",
            "no id twice",
            "every example_id stands once",
            "an example_id stands more than once",
            rows=pairs_where(lambda pairs: pairs["example_id"].duplicated(keep=False), "example_id"),
        ),
        rule(
            "judgement_unique",
            "examples",
            gxe.ExpectCompoundColumnsToBeUnique(column_list=triple),
            ", ".join(triple),
            "no pair judged twice",
            "every (query_id, product_id, locale) is judged once",
            "a (query_id, product_id, locale) is judged more than once",
            rows=pairs_where(
                lambda pairs: pairs.duplicated(["query_id", "product_id", "locale"], keep=False), "product_id"
            ),
        ),
        rule(
            "label_known",
            "examples",
            gxe.ExpectColumnValuesToBeInSet(column="esci_label", value_set=list(LABELS)),
            "esci_label",
            f"one of {', '.join(LABELS)}, or the word for it",
            f"every label is one of {', '.join(LABELS)}",
            f"a label is not one of {', '.join(LABELS)}",
            rows=spelt_where(unknown_label, EXAMPLES_FILE, "esci_label", "example_id"),
            advice=f"correct these rows or leave them out; where labels are numbers or other words, {NUMBERED_LABELS}",
        ),
        rule(
            "locale_known",
            "examples",
            gxe.ExpectColumnValuesToBeInSet(column="product_locale", value_set=list(LOCALES)),
            "product_locale",
            f"one of {', '.join(LOCALES)}",
            f"every locale of a pair is one of {', '.join(LOCALES)}",
            f"a locale of a pair is not one of {', '.join(LOCALES)}",
            rows=pairs_where(lambda pairs: ~pairs["locale"].isin(LOCALES), "locale"),
        ),
        rule(
            "split_known",
            "examples",
            gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS)),
            "split",
            f"one of {', '.join(SPLITS)}",
            f"every split is one of {', '.join(SPLITS)}",
            f"a split is not one of {', '.join(SPLITS)}",
            rows=pairs_where(lambda pairs: ~pairs["split"].isin(SPLITS), "split"),
        ),
        rule(
            "query_not_blank",
            "queries",
            gxe.ExpectColumnValuesToMatchRegex(column="query", regex=r"\S"),
            "query",
            "some text",
            "every query has text",
            "a query is blank",
            rows=pairs_where(lambda pairs: pairs["query"].str.strip() == "", "query"),
        ),
    ]


def _products_rules(bounds: Bounds) -> list[Rule]:
    def rule(
        name: str, expectation: gxe.Expectation, column: str, expected: str, holds: str, broken: str, rows: Offenders
    ) -> Rule:
        return Rule(name, "products", expectation, True, PRODUCTS_FILE, column, expected, holds, broken, rows)

    return [
        rule(
            "product_unique",
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["product_id", "product_locale"]),
            "product_id, product_locale",
            "no product twice",
            "every (product_id, locale) stands once in the catalogue",
            "a (product_id, locale) stands more than once in the catalogue",
            rows=products_where(
                lambda products: products.duplicated(["product_id", "locale"], keep=False), "product_id"
            ),
        ),
        rule(
            "product_id_present",
            gxe.ExpectColumnValueLengthsToBeBetween(column="product_id", min_value=1),
            "product_id",
            "some text",
            "every product has an id",
            "a product has no id",
            rows=products_where(lambda products: products["product_id"] == "", "product_id"),
        ),
        rule(
            "catalogue_locale_known",
            gxe.ExpectColumnValuesToBeInSet(column="product_locale", value_set=list(LOCALES)),
            "product_locale",
            f"one of {', '.join(LOCALES)}",
            f"every locale of a product is one of {', '.join(LOCALES)}",
            f"a locale of a product is not one of {', '.join(LOCALES)}",
            rows=products_where(lambda products: ~products["locale"].isin(LOCALES), "locale"),
        ),
        rule(
            "titles_present",
            gxe.ExpectColumnValuesToNotBeNull(column="product_title", mostly=bounds.title_share),
            "product_title",
            f"at least {bounds.title_share:.1%} with a title",
            "nearly every product has a title",
            "too many products have no title",
            rows=products_where(lambda products: products["title"].str.strip() == "", "title"),
        ),
    ]


def _product_exists() -> Rule:
    """Return the rule on missing products, which is reported after those on locales: a wrong locale breaks it too."""
    return Rule(
        "product_exists",
        "summary",
        gxe.ExpectColumnValuesToBeBetween(column="pairs_without_product", max_value=0),
        True,
        EXAMPLES_FILE,
        "product_id",
        "a row of its locale's catalogue",
        "every judged product is in the catalogue of its locale",
        "a judged product is not in the catalogue of its locale",
        pairs_where(lambda pairs: pairs["product"] < 0, "product_id"),
    )


def _crossing_rules(dataset: Dataset, bounds: Bounds) -> list[Rule]:
    train = dataset.pairs.loc[dataset.pairs["split"] == "train", "query_key"].nunique()
    allowed = int(train * bounds.crossing_share) if train >= bounds.crossing_least_queries else 0

    def rule(
        name: str,
        critical: bool,
        column: str,
        most: int,
        rows: Callable[[pd.DataFrame], np.ndarray],
        what: str,
        advice: str,
    ) -> Rule:
        return Rule(
            name=name,
            table="summary",
            expectation=gxe.ExpectColumnValuesToBeBetween(column=column, max_value=most),
            critical=critical,
            file=EXAMPLES_FILE,
            column="query, split",
            expected=f"at most {most} of {train} train queries" if most else "none",
            holds=f"no query is in both splits{what}" if most == 0 else f"next to no query is in both splits{what}",
            broken=f"a query is in both splits{what}",
            offenders=pairs_where(lambda pairs: pd.Series(rows(pairs), index=pairs.index), "query"),
            advice=advice,
        )

    give = "give each query, by its text and by its query_id, one split"
    nothing = "nothing to do: their train pairs are in quarantine and nothing learns from them"
    alike = ", however it is spelt"

    def copied(pairs: pd.DataFrame) -> np.ndarray:
        return copied_rows(pairs, crossing_rows(pairs))

    return [
        rule("splits_apart", True, "queries_copied_to_test", allowed, copied, "", give),
        rule("splits_strictly_apart", False, "queries_in_both_splits", 0, crossing_rows, alike, nothing),
    ]


def _test_rule(bounds: Bounds) -> Rule:
    advice = (
        "give some queries the split test, or set test_share = 0.2 in tournament.toml (TOURNAMENT_TEST_SHARE): then a "
        "fifth of the queries is kept for the test"
    )
    return Rule(
        name="test_pairs_present",
        table="summary",
        expectation=gxe.ExpectColumnValuesToBeBetween(column="test_pairs", min_value=0 if bounds.test_share else 1),
        critical=True,
        file=EXAMPLES_FILE,
        column="split",
        expected="any number: the setting test_share draws a test split where there is none"
        if bounds.test_share
        else "at least one pair of the test split",
        holds="there is a test split, or one is drawn" if bounds.test_share else "there are test pairs",
        broken="no pair is in the test split, so nothing can be measured",
        offenders=no_rows,
        advice=advice,
    )


def _bounds_rules(dataset: Dataset, bounds: Bounds) -> list[Rule]:
    def rule(
        name: str, column: str, of: str, low: float, high: float | None, expected: str, holds: str, broken: str
    ) -> Rule:
        expectation = gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)
        advice = "nothing stops; read the result with this in mind"
        return Rule(name, "summary", expectation, False, EXAMPLES_FILE, of, expected, holds, broken, no_rows, advice)

    rules = []
    for label, (low, high) in bounds.class_share.items():
        told = (f"the share of label {label} is usual", f"the share of label {label} is unusual")
        rules.append(
            rule(f"share_{label}", f"share_{label}", "esci_label", low, high, f"{low:.1%} to {high:.1%}", *told)
        )
    for locale in locales_in(dataset):
        told = (f"locale {locale} has enough pairs", f"locale {locale} has few pairs")
        least = bounds.rows_per_locale
        rules.append(
            rule(f"rows_{locale}", f"rows_{locale}", "product_locale", least, None, f"at least {least}", *told)
        )
    return rules
