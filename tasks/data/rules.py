"""Build the rules of the data as Great Expectations suites, each with a function that finds the rows that break it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data.dataset import LOCALES, Dataset
from esci_tournament.tasks.data.expectations import Offenders, Rule, gxe
from esci_tournament.tasks.data.layout import (
    EXAMPLES_FILE,
    PRODUCTS_FILE,
    SPLITS,
)
from esci_tournament.tasks.data.log_rules import log_rules
from esci_tournament.tasks.data.offenders import (
    no_rows,
    pairs_where,
    products_where,
    spelt_where,
    unknown_label,
)
from esci_tournament.tasks.data.rule_frames import columns_found
from esci_tournament.tasks.data.split import crossing_rows


@dataclass(frozen=True)
class Bounds:
    """What is usual; outside of it a warning is given, except for `crossing_*`, which bounds what is tolerated.

    Attributes:
        class_share: Label -> least and greatest share of it, in [0, 1]. The official large version has 65/22/3/10 %,
            the small one 44/34/5/17 % (E/S/C/I).
        rows_per_locale: Fewer judged pairs than this in a locale are too few to learn or to judge.
        title_share: Share of products, in [0, 1], that must have a title.
        crossing_share: Share of the train queries, in [0, 1], that may stand in the test split too; their train pairs
            are put in quarantine. The official release has such a query.
        crossing_least_queries: With fewer train queries than this, none is tolerated: there it is a mistake.
    """

    class_share: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"E": (0.2, 0.85), "S": (0.05, 0.5), "C": (0.005, 0.3), "I": (0.02, 0.5)}
    )
    rows_per_locale: int = 100
    title_share: float = 0.99
    crossing_share: float = 0.001
    crossing_least_queries: int = 20_000


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
        *_bounds_rules(bounds),
    ]
    return rules + log_rules(dataset)


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
    ) -> Rule:
        return Rule(name, table, expectation, True, EXAMPLES_FILE, column, expected, holds, broken, rows)

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
            f"one of {', '.join(LABELS)}",
            f"every label is one of {', '.join(LABELS)}",
            f"a label is not one of {', '.join(LABELS)}",
            rows=spelt_where(unknown_label, EXAMPLES_FILE, "esci_label", "example_id"),
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

    def rule(name: str, critical: bool, most: int, advice: str) -> Rule:
        return Rule(
            name=name,
            table="summary",
            expectation=gxe.ExpectColumnValuesToBeBetween(column="queries_in_both_splits", max_value=most),
            critical=critical,
            file=EXAMPLES_FILE,
            column="query, split",
            expected=f"at most {most} of {train} train queries" if most else "none",
            holds="no query is in both splits" if most == 0 else "next to no query is in both splits",
            broken="a query is in both splits",
            offenders=pairs_where(lambda pairs: pd.Series(crossing_rows(pairs), index=pairs.index), "query"),
            advice=advice,
        )

    rules = [rule("splits_apart", True, allowed, "give each query, by its text and by its query_id, one split")]
    if allowed:
        advice = "nothing to do: their train pairs are in quarantine and nothing learns from them"
        rules.append(rule("splits_strictly_apart", False, 0, advice))
    return rules


def _bounds_rules(bounds: Bounds) -> list[Rule]:
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
    for locale in LOCALES:
        told = (f"locale {locale} has enough pairs", f"locale {locale} has few pairs")
        least = bounds.rows_per_locale
        rules.append(
            rule(f"rows_{locale}", f"rows_{locale}", "product_locale", least, None, f"at least {least}", *told)
        )
    return rules
