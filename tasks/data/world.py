"""Generate a world: its products, what customers ask for, and the rule that labels a pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import LABELS
from esci_tournament.tasks.data import vocabulary as words

BRANDS_A_TYPE = 4
MISSES = 2000  # draws in a row without a new query, after which the search for queries ends

_TYPES = sum(map(len, words.GROUPS))
GROUP_OF_TYPE = np.array([next(g for g, members in enumerate(words.GROUPS) if t in members) for t in range(_TYPES)])
_PARTNER = {a: b for couple in words.COUPLES for a, b in (couple, couple[::-1])}
COMPLEMENT_OF_GROUP = np.array([_PARTNER[group] for group in range(len(words.GROUPS))])


@dataclass(frozen=True)
class Query:
    """A query and what it asks for, as indices into the words of its locale (`esci_tournament.tasks.data.vocabulary`).

    Attributes:
        text: What is typed, in lower case.
        type: Index into `TYPES`.
        brand: Index into `brands(locale)`, -1 when any will do.
        color: Index into `COLORS`, -1 when any will do.
        feature: Index into `FEATURES`, -1 when any will do.
    """

    text: str
    type: int
    brand: int
    color: int
    feature: int


def _skewed(options: int, rng: np.random.Generator) -> np.ndarray:
    """Return chances of `options` values, few of them frequent, so that attributes that are asked for do occur."""
    chances = 1.0 / np.arange(1, options + 1) ** 1.2
    return rng.permutation(chances / chances.sum())


def make_catalogue(locale: str, count: int, uninformative_share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return the products of a locale, at least four of each type.

    Args:
        locale: The locale.
        count: How many products; fewer than four of each type become four of each type.
        uninformative_share: Chance of a product, in [0, 1), to have a title that says nothing and no other text.
        rng: Source of all random numbers; it is advanced.

    Returns:
        Frame with one row per product: the official columns (text may be missing) and the truth behind them, `type`,
        `brand_number`, `color_number` and `feature`, all int64, and `uninformative` bool.
    """
    count = max(4 * _TYPES, count)
    kind = rng.permutation(np.arange(count) % _TYPES)
    brand, color, feature = (np.empty(count, dtype=np.int64) for _ in range(3))
    names, colors, features = words.brands(locale), len(words.COLORS[locale]), len(words.FEATURES[locale])
    for number in range(_TYPES):
        rows = np.flatnonzero(kind == number)
        makers = rng.choice(len(names), BRANDS_A_TYPE, replace=False)
        brand[rows] = makers[rng.choice(BRANDS_A_TYPE, len(rows), p=_skewed(BRANDS_A_TYPE, rng))]
        color[rows] = rng.choice(colors, len(rows), p=_skewed(colors, rng))
        feature[rows] = rng.choice(features, len(rows), p=_skewed(features, rng))
    hidden = rng.random(count) < uninformative_share
    article = rng.permutation(90_000)[:count] + 10_000
    frame = pd.DataFrame(
        {
            "product_id": [f"{locale.upper()}{number:08d}" for number in rng.permutation(10 * count)[:count]],
            **_texts(locale, kind, brand, color, feature, article),
            "product_locale": locale,
        }
    )
    frame.loc[rng.random(count) < 0.5, "product_description"] = None
    frame.loc[rng.random(count) < 0.15, "product_bullet_point"] = None
    frame.loc[hidden, "product_title"] = [words.UNINFORMATIVE[locale].format(number) for number in article[hidden]]
    frame.loc[hidden, ["product_description", "product_bullet_point", "product_brand", "product_color"]] = None
    truth = {"type": kind, "brand_number": brand, "color_number": color, "feature": feature, "uninformative": hidden}
    return frame.assign(**truth)


def _texts(
    locale: str, kind: np.ndarray, brand: np.ndarray, color: np.ndarray, feature: np.ndarray, article: np.ndarray
) -> dict[str, list[str]]:
    kinds = [words.TYPES[locale][number] for number in kind]
    makers = [words.brands(locale)[number] for number in brand]
    colors = [words.COLORS[locale][number] for number in color]
    features = [words.FEATURES[locale][number] for number in feature]
    order = {"us": "{brand} {color} {feature} {kind} {series}", "es": "{kind} {brand} {feature} {color} {series}"}
    title = order.get(locale, "{brand} {kind} {feature} {color} {series}")
    rows = list(zip(kinds, makers, colors, features, article, strict=True))
    return {
        "product_title": [
            title.format(kind=k, brand=b, color=c, feature=f, series=words.SERIES[number % len(words.SERIES)])
            for k, b, c, f, number in rows
        ],
        "product_description": [words.DESCRIPTIONS[locale].format(k, b) for k, b, _, _, _ in rows],
        "product_bullet_point": [words.BULLETS[locale].format(c, f) for _, _, c, f, _ in rows],
        "product_brand": makers,
        "product_color": colors,
    }


def ask(locale: str, target: tuple[int, int, int, int], rng: np.random.Generator) -> Query:
    """Return a query of a customer who has a product in mind and names its type and up to two of its attributes.

    Args:
        locale: The locale.
        target: Type, brand, color and feature of the product, as :func:`targets_of` has them.
        rng: Source of all random numbers; it is advanced.

    Returns:
        The query.
    """
    kind, brand, color, feature = target
    named = rng.choice(3, size=rng.choice(3, p=[0.3, 0.5, 0.2]), replace=False)
    brand, color, feature = (value if place in named else -1 for place, value in enumerate((brand, color, feature)))
    kinds = words.TYPES[locale][kind]
    parts = [
        words.MODIFIERS[locale][rng.integers(len(words.MODIFIERS[locale]))] if rng.random() < 0.15 else "",
        words.brands(locale)[brand] if brand >= 0 else "",
        words.COLORS[locale][color] if color >= 0 else "",
        words.FEATURES[locale][feature] if feature >= 0 else "",
    ]
    ordered = [parts[0], kinds, *parts[1:]] if locale == "es" else [*parts, kinds]
    return Query(" ".join(part for part in ordered if part).lower(), kind, brand, color, feature)


def targets_of(catalogue: pd.DataFrame) -> np.ndarray:
    """Return type, brand, color and feature of every product.

    Args:
        catalogue: Frame as :func:`make_catalogue` returns it.

    Returns:
        int64 (n_products, 4), in the order of the catalogue.
    """
    return catalogue[["type", "brand_number", "color_number", "feature"]].to_numpy()


def distinct_queries(locale: str, count: int, catalogue: pd.DataFrame, rng: np.random.Generator) -> list[Query]:
    """Return queries of different text, each for a random product of the catalogue.

    Args:
        locale: The locale.
        count: How many.
        catalogue: Frame as :func:`make_catalogue` returns it.
        rng: Source of all random numbers; it is advanced.

    Returns:
        `count` queries, in the order in which they were found.

    Raises:
        UsageError: If the world has not so many.
    """
    found: dict[str, Query] = {}
    targets = targets_of(catalogue)
    misses = 0
    while len(found) < count and misses < MISSES:
        asked = ask(locale, tuple(targets[rng.integers(len(targets))]), rng)
        misses = misses + 1 if asked.text in found else 0
        found.setdefault(asked.text, asked)
    if len(found) < count:
        raise UsageError(
            f"cannot synthesize: locale {locale} has words for {len(found)} distinct queries, {count} were asked for; "
            "ask for fewer queries or more products_per_query"
        )
    return list(found.values())


def true_labels(asked: Query, catalogue: pd.DataFrame) -> np.ndarray:
    """Return the label of every product of a catalogue for one query by the rule of the world.

    Args:
        asked: The query.
        catalogue: Frame as :func:`make_catalogue` returns it, of the query's locale.

    Returns:
        int8 (n_products,), indices into `registry.labels.LABELS`, in the order of the catalogue.
    """
    kind = catalogue["type"].to_numpy()
    matches = np.ones(len(catalogue), dtype=bool)
    for attribute in ("brand_number", "color_number", "feature"):
        wanted = getattr(asked, attribute.removesuffix("_number"))
        if wanted >= 0:
            matches &= catalogue[attribute].to_numpy() == wanted
    labels = np.full(len(catalogue), LABELS.index("I"), dtype=np.int8)
    labels[GROUP_OF_TYPE[kind] == COMPLEMENT_OF_GROUP[GROUP_OF_TYPE[asked.type]]] = LABELS.index("C")
    labels[GROUP_OF_TYPE[kind] == GROUP_OF_TYPE[asked.type]] = LABELS.index("S")
    labels[(kind == asked.type) & matches] = LABELS.index("E")
    return labels
