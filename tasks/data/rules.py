"""The rules of the data: Great Expectations suites as code, and where to find the rows that break them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tasks.data.dataset import ACTIONS, LABELS, LOCALES, Dataset
from tasks.data.expectations import Offenders, Rule, gxe
from tasks.data.layout import (
    COLUMNS,
    EDGES_FILE,
    EVENTS_FILE,
    EXAMPLES_FILE,
    PANDAS_INDEX,
    PRODUCTS_FILE,
    SPLITS,
    TABLE_RELATIONS,
)
from tasks.data.load import is_of_kind, kind_of
from tasks.data.logs import REASONS
from tasks.data.offenders import (
    Mask,
    edges_where,
    events_where,
    left_out_for,
    no_rows,
    pairs_where,
    products_where,
    spelt_where,
    unknown_label,
)
from tasks.data.split import crossing_rows

PRODUCT_RELATIONS = ("bought_together", "same_session")
MOST_WEIGHT = 1e12  # of an edge


@dataclass(frozen=True)
class Bounds:
    """What is usual; outside of it a warning is given, except for `crossing_*`, which bounds what is tolerated.

    Attributes:
        class_share: Least and greatest share of each label. The official large version has 65/22/3/10 %, the small
            one 44/34/5/17 %.
        rows_per_locale: Fewer judged pairs than this in a locale are too few to learn or to judge.
        title_share: Share of products that must have a title.
        crossing_share: Share of the train queries that may stand in the test split too; their train pairs are put
            in quarantine. The official release has such a query: its own counts add up to one more than it has.
        crossing_least_queries: With fewer train queries than this, none is tolerated: there it is a mistake.
    """

    class_share: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"E": (0.2, 0.85), "S": (0.05, 0.5), "C": (0.005, 0.3), "I": (0.02, 0.5)}
    )
    rows_per_locale: int = 100
    title_share: float = 0.99
    crossing_share: float = 0.001
    crossing_least_queries: int = 20_000


def frames_of(dataset: Dataset) -> dict[str, pd.DataFrame]:
    """Return the frames that the rules are put to, under the official column names; large columns are not copied."""
    pairs, products = dataset.pairs, dataset.products
    label = pd.Categorical.from_codes(np.where(pairs["label"] < 0, len(LABELS), pairs["label"]), [*LABELS, "unknown"])
    title = products["title"].str.strip()
    frames = {
        "examples": pairs[["example_id", "query_id", "product_id"]].assign(
            product_locale=pairs["locale"], esci_label=label, split=pairs["split"]
        ),
        "queries": pairs[["query_key", "query"]].drop_duplicates("query_key"),
        "products": pd.DataFrame(
            {
                "product_id": products["product_id"],
                "product_locale": products["locale"],
                "product_title": title.mask(title == ""),
            }
        ),
        "summary": _summary(dataset),
        "columns": _columns(dataset),
    }
    if dataset.events is not None:
        frames["events"] = dataset.events[["locale", "action", "product"]]
    if dataset.edges is not None:
        frames["edges"] = _edges_frame(dataset.edges)
    if dataset.events is not None or dataset.edges is not None:
        count = {reason: sum(one.count for one in dataset.left_out if one.reason == reason) for reason in REASONS}
        frames["logs"] = pd.DataFrame([count])
    return frames


def _edges_frame(edges: pd.DataFrame) -> pd.DataFrame:
    has_query, has_source = edges["query"].str.strip() != "", edges["source"] >= 0
    fits = edges["relation"].isin(PRODUCT_RELATIONS).to_numpy() == has_source.to_numpy()
    # To Great Expectations a missing value breaks nothing.
    return edges[["locale", "relation"]].assign(
        weight=edges["weight"].fillna(-1), one_origin=(has_query ^ has_source) & fits
    )


def _columns(dataset: Dataset) -> pd.DataFrame:
    """Return one row a column of each file: what its footer says the column is, and what it must be."""
    rows = []
    for name, columns in COLUMNS.items():
        if not (dataset.source / name).is_file():
            continue
        schema = pq.read_schema(dataset.source / name)
        found = {column: kind_of(schema.field(column).type) for column in schema.names if column != PANDAS_INDEX}
        for column in dict.fromkeys([*columns, *found]):
            kind = columns.get(column, "no column")
            seen = found.get(column, "no column")
            rows.append((name, column, kind if is_of_kind(seen, kind) else seen, kind))
    return pd.DataFrame(rows, columns=["file", "column", "found", "expected"])


def _summary(dataset: Dataset) -> pd.DataFrame:
    """Return the rules that span tables or groups as one row of counts and shares."""
    pairs = dataset.pairs
    row: dict[str, float] = {
        "pairs_without_product": int((pairs["product"] < 0).sum()),
        "queries_in_both_splits": pairs.loc[crossing_rows(pairs), "query_key"].nunique(),
    }
    row |= {f"share_{label}": float((pairs["label"] == code).mean()) for code, label in enumerate(LABELS)}
    row |= {f"rows_{locale}": int((pairs["locale"] == locale).sum()) for locale in LOCALES}
    return pd.DataFrame([row])


def rules_for(dataset: Dataset, bounds: Bounds) -> list[Rule]:
    """Return every rule for a data set; those about logs only if it has any."""
    rules = [
        _columns_rule(),
        *_examples_rules(),
        *_products_rules(bounds),
        _product_exists(),
        *_crossing_rules(dataset, bounds),
        *_bounds_rules(bounds),
    ]
    if dataset.events is not None:
        rules += _events_rules()
    if dataset.edges is not None:
        rules += _edges_rules()
    return rules + (_logs_rules(dataset) if dataset.events is not None or dataset.edges is not None else [])


def _columns_rule() -> Rule:
    def find(dataset: Dataset) -> tuple[list[str], int]:
        wrong = _columns(dataset).query("found != expected")
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
    """Return the rule that stands after those on which it depends: a wrong locale makes orphans too."""
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


def _events_rules() -> list[Rule]:
    def rule(
        name: str,
        expectation: gxe.Expectation,
        critical: bool,
        column: str,
        expected: str,
        holds: str,
        broken: str,
        rows: Offenders,
    ) -> Rule:
        return Rule(name, "events", expectation, critical, EVENTS_FILE, column, expected, holds, broken, rows)

    return [
        rule(
            "action_known",
            gxe.ExpectColumnValuesToBeInSet(column="action", value_set=list(ACTIONS)),
            True,
            "action",
            f"one of {', '.join(ACTIONS)}",
            f"every action is one of {', '.join(ACTIONS)}",
            f"an action is not one of {', '.join(ACTIONS)}",
            rows=events_where(lambda events: ~events["action"].isin(ACTIONS), "action"),
        ),
        rule(
            "event_locale_known",
            gxe.ExpectColumnValuesToBeInSet(column="locale", value_set=list(LOCALES)),
            True,
            "locale",
            f"one of {', '.join(LOCALES)}",
            f"every locale of an event is one of {', '.join(LOCALES)}",
            f"a locale of an event is not one of {', '.join(LOCALES)}",
            rows=events_where(lambda events: ~events["locale"].isin(LOCALES), "locale"),
        ),
    ]


def _edges_rules() -> list[Rule]:
    def rule(
        name: str, expectation: gxe.Expectation, column: str, expected: str, holds: str, broken: str, mask: Mask
    ) -> Rule:
        rows = edges_where(mask, column.partition(",")[0])
        return Rule(name, "edges", expectation, True, EDGES_FILE, column, expected, holds, broken, rows)

    listed = ", ".join(TABLE_RELATIONS)
    return [
        rule(
            "edge_relation_known",
            gxe.ExpectColumnValuesToBeInSet(column="relation", value_set=list(TABLE_RELATIONS)),
            "relation",
            f"one of {listed}",
            f"every relation of an edge is one of {listed}",
            f"a relation of an edge is not one of {listed}",
            lambda edges: ~edges["relation"].isin(TABLE_RELATIONS),
        ),
        rule(
            "edge_locale_known",
            gxe.ExpectColumnValuesToBeInSet(column="locale", value_set=list(LOCALES)),
            "locale",
            f"one of {', '.join(LOCALES)}",
            f"every locale of an edge is one of {', '.join(LOCALES)}",
            f"a locale of an edge is not one of {', '.join(LOCALES)}",
            lambda edges: ~edges["locale"].isin(LOCALES),
        ),
        rule(
            "edge_weight_positive",
            gxe.ExpectColumnValuesToBeBetween(column="weight", min_value=0, strict_min=True, max_value=MOST_WEIGHT),
            "weight",
            "a positive number",
            "every edge has a weight above 0",
            f"an edge's weight is not above 0 and at most {MOST_WEIGHT:g}",
            lambda edges: ~((edges["weight"] > 0) & (edges["weight"] <= MOST_WEIGHT)),
        ),
        rule(
            "edge_origin",
            gxe.ExpectColumnValuesToBeInSet(column="one_origin", value_set=[True]),
            "query, source_product_id",
            "a query, or a product where the relation is between products",
            "every edge starts at what its relation starts at, a query or a product",
            "an edge starts at none, at both, or not at what its relation starts at",
            lambda edges: ~_edges_frame(edges)["one_origin"],
        ),
    ]


_CHECK_OF = {
    "after_cutoff": "behaviour_before_cutoff",
    "bot": "behaviour_of_customers",
    "product_unknown": "event_product_exists",
    "query_unknown": "event_query_exists",
    "locale_unknown": "event_locale_clear",
}


def _logs_rules(dataset: Dataset) -> list[Rule]:
    """Return one warning a reason for which rows of logs are left out.

    An event of another action, such as a filter that was set, is nothing to be warned of.
    """
    rules = []
    for reason, name in _CHECK_OF.items():
        files = [one.file for one in dataset.left_out if one.reason == reason]
        rules.append(
            Rule(
                name,
                "logs",
                gxe.ExpectColumnValuesToBeBetween(column=reason, max_value=0),
                False,
                ", ".join(files),
                "",
                "none",
                f"no row of a log is left out because {REASONS[reason]}",
                f"rows of logs are left out, each because {REASONS[reason]}",
                left_out_for(reason),
                "nothing stops; see whether the log, the catalogue and the settings are those you mean",
            )
        )
    return rules
