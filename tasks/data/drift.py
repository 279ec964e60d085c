"""Measure drift: how far newer data is from older data in class mix, text length, language and behaviour.

Each distribution is compared by its Jensen-Shannon distance (Lin, 1991), and a permutation test says whether the
distance is more than chance brings. Pairs of one query resemble one another, so queries (for texts of products:
products), not pairs, are permuted. Many distributions are tested at once, so their p-values are adjusted together
(Benjamini and Hochberg, 1995). A distribution has drifted when its distance reaches the limit and its adjusted p-value
does not exceed the level.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import jensenshannon
from scipy.stats import false_discovery_control

from esci_tournament.registry.labels import LABEL_NAMES
from esci_tournament.tasks.data.dataset import ACTIONS, LOCALES, Dataset, query_keys, salted_uniform
from esci_tournament.tasks.data.language import languages_of

RESULT = "drift.json"
MEASURE = "Jensen-Shannon distance"
PERMUTATIONS = 1999
FEWEST_QUERIES = 20  # of a scope in either version; a scope with fewer is not compared
BATCH = 100  # permutations at a time
RARE = 0.01  # a category with a smaller share in both versions is counted with "other"


@dataclass(frozen=True)
class DriftLimits:
    """When a distribution has drifted.

    Attributes:
        distance: Jensen-Shannon distance (base 2, in [0, 1]) that it has at least.
        level: False discovery rate of all distributions together, in [0, 1].
        queries: Queries of each version that are looked at, and as many products: those with the least hash under seed.
        seed: Seed of that choice and of the permutations.
    """

    distance: float = 0.1
    level: float = 0.05
    queries: int = 20_000
    seed: int = 0


@dataclass(frozen=True)
class DriftFinding:
    """How far one distribution is from what it was.

    Attributes:
        column: What is distributed: "class mix", "query length" and so on.
        scope: "all", or the locale that was looked at.
        measure: What `value` is, such as :data:`MEASURE`.
        value: The distance, in [0, 1].
        threshold: The least value that counts as drift.
        p_value: Chance of a value as large without any drift, adjusted for all distributions; None when the older or
            the newer data has nothing to compare.
        drifted: The verdict.
        words: The finding in one sentence.
    """

    column: str
    scope: str
    measure: str
    value: float
    threshold: float
    p_value: float | None
    drifted: bool
    words: str


@dataclass(frozen=True)
class DriftReport:
    """What has drifted between two data versions.

    Attributes:
        before: The older data version, as :attr:`Dataset.version <esci_tournament.tasks.data.dataset.Dataset>` has it.
        now: The newer one.
        queries: How many judged queries of the older and of the newer version were looked at.
        rows: One finding per distribution and scope, drifted or not.
    """

    before: str
    now: str
    queries: tuple[int, int]
    rows: tuple[DriftFinding, ...]

    @property
    def drifted(self) -> tuple[DriftFinding, ...]:
        """The findings of the distributions that have drifted."""
        return tuple(row for row in self.rows if row.drifted)

    @property
    def sentence(self) -> str:
        """The report in one sentence."""
        looked = f"{self.queries[0]:,} queries before and {self.queries[1]:,} now"
        if not self.drifted:
            return f"No drift in {len(self.rows)} distributions ({looked})."
        names = ", ".join(dict.fromkeys(row.column for row in self.drifted))
        return f"Drift in {len(self.drifted)} of {len(self.rows)} distributions: {names} ({looked})."

    def to_dict(self) -> dict[str, Any]:
        """Return the report as it is written: its fields, findings as dicts, and `sentence`; all of it JSON-able."""
        return {**asdict(self), "sentence": self.sentence}

    def write(self, folder: Path) -> None:
        """Write the report as `drift.json` into an existing folder; :func:`read_drift` reads it."""
        (folder / RESULT).write_text(json.dumps(self.to_dict(), allow_nan=False), encoding="utf-8")


def read_drift(folder: Path) -> dict[str, Any]:
    """Return the report in a folder, with the keys that :meth:`DriftReport.to_dict` gives."""
    facts: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return facts


@dataclass(frozen=True)
class _Column:
    """One distribution: how often each query falls into each bin, float32 (n_queries, bins), both versions stacked."""

    name: str
    bins: tuple[str, ...]
    counts: np.ndarray
    unit: str
    numbers: tuple[np.ndarray, np.ndarray] | None = None  # the numbers themselves, and the query of each


@dataclass(frozen=True)
class _Units:
    """Queries of both versions, one after the other, and what is counted of each."""

    locale: np.ndarray
    is_now: np.ndarray
    columns: tuple[_Column, ...]


def measure_drift(before: Dataset, now: Dataset, limits: DriftLimits | None = None) -> DriftReport:
    """Compare two data versions, over all queries and in each locale with enough of them.

    Actions are compared when both versions have events; when only one has, that alone is a drift. A scope with fewer
    than :data:`FEWEST_QUERIES` queries (or products) in either version is not looked at.

    Args:
        before: The older data version.
        now: The newer one.
        limits: When a distribution has drifted; default: :class:`DriftLimits`.

    Returns:
        The report, with a finding for each distribution and scope.
    """
    limits = limits or DriftLimits()
    sides = tuple(_sampled(dataset.pairs, limits) for dataset in (before, now))
    judged = _judged(sides, (before, now))
    rows = [*_compare(judged, limits), *_compare(_products(sides, (before, now), limits), limits)]
    if before.events is not None and now.events is not None:
        events = tuple(_sampled(dataset.events, limits) for dataset in (before, now))
        rows += _compare(_behaving(events), limits)
    elif (before.events is None) != (now.events is None):
        rows.append(_one_sided(now, limits))
    queries = tuple(int((judged.is_now == side).sum()) for side in (False, True))
    return DriftReport(before.version, now.version, (queries[0], queries[1]), tuple(_decided(rows, limits)))


def _sampled(rows: pd.DataFrame, limits: DriftLimits) -> pd.DataFrame:
    """Return the rows of a fixed sample of the queries: a query that is in both versions is in both samples or none."""
    keys = rows["query_key"].to_numpy()
    distinct = np.unique(keys)
    if len(distinct) <= limits.queries:
        return rows
    draws = salted_uniform(distinct, f"drift {limits.seed}")
    chosen = distinct[np.argpartition(draws, limits.queries)[: limits.queries]]
    return rows[np.isin(keys, chosen)]


def _judged(sides: Sequence[pd.DataFrame], datasets: Sequence[Dataset]) -> _Units:
    """Return what is known of each judged query: its text, its labels, whether there is behaviour for it."""
    pairs = pd.concat(sides, ignore_index=True)
    is_now = np.repeat([False, True], [len(side) for side in sides])
    unit, first, locale, now = _units(pairs, is_now)
    queries = pairs["query"].to_numpy(dtype=object)[first]
    columns = [
        _of_categories("class mix", np.asarray(LABEL_NAMES, object)[pairs["label"].to_numpy()], unit, "pairs"),
        _of_categories("locale mix", locale, np.arange(len(first)), "queries"),
        _of_numbers("query length", np.char.str_len(queries.astype(str)), np.arange(len(first)), now, "characters"),
        _of_numbers("pairs of a query", np.bincount(unit), np.arange(len(first)), now, "pairs"),
        _of_categories("language of queries", languages_of(queries), np.arange(len(first)), "queries"),
    ]
    events = [dataset.events for dataset in datasets if dataset.events is not None]
    if len(events) == len(datasets):
        keys, behaving = pairs["query_key"].to_numpy()[first], np.zeros(len(first), dtype=np.int64)
        for number, of_side in enumerate(events):
            here = now == bool(number)
            behaving[here] = np.isin(keys[here], of_side["query_key"].to_numpy())
        words = np.where(behaving == 1, "with behaviour", "without")
        columns.append(_of_categories("judged queries with behaviour", words, np.arange(len(first)), "queries"))
    return _Units(locale, now, tuple(columns))


def _products(sides: Sequence[pd.DataFrame], datasets: Sequence[Dataset], limits: DriftLimits) -> _Units:
    """Return the text of each product that was judged for a sampled query; a product is a unit, not its pairs."""
    chosen = []
    for side, dataset in zip(sides, datasets, strict=True):
        rows = np.unique(side["product"].to_numpy())
        rows = rows[rows >= 0]
        if len(rows) > limits.queries:
            names = query_keys(dataset.products["product_id"].iloc[rows], dataset.products["locale"].iloc[rows])
            rows = rows[
                np.argpartition(salted_uniform(names, f"drift {limits.seed}"), limits.queries)[: limits.queries]
            ]
        chosen.append(dataset.products.iloc[rows])
    now = np.repeat([False, True], [len(products) for products in chosen])
    products = pd.concat(chosen, ignore_index=True)
    unit = np.arange(len(products))
    titles = products["title"].str.len().to_numpy(dtype=np.int64)
    text = sum(products[name].str.len().to_numpy(dtype=np.int64) for name in ("title", "bullets", "description"))
    language = languages_of(products["title"].to_numpy(dtype=object))
    columns = (
        _of_numbers("title length", titles, unit, now, "characters"),
        _of_numbers("product text length", text, unit, now, "characters"),
        _of_categories("language of titles", language, unit, "products"),
    )
    return _Units(products["locale"].astype(str).to_numpy(dtype=object), now, columns)


def _behaving(sides: Sequence[pd.DataFrame]) -> _Units:
    """Return what customers did after each query: which actions, and how many."""
    events = pd.concat([side[["query_key", "locale", "action"]] for side in sides], ignore_index=True)
    is_now = np.repeat([False, True], [len(side) for side in sides])
    unit, first, locale, now = _units(events, is_now)
    columns = (
        _of_categories("actions", events["action"].astype(str).to_numpy(dtype=object), unit, "events"),
        _of_numbers("events of a query", np.bincount(unit), np.arange(len(first)), now, "events"),
    )
    return _Units(locale, now, columns)


def _units(rows: pd.DataFrame, is_now: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the query of each row as a number, and of each query its first row, its locale and its version."""
    code = rows["query_key"].to_numpy().astype(np.uint64)
    frame = pd.DataFrame({"key": code, "now": is_now})
    unit = frame.groupby(["now", "key"], sort=True).ngroup().to_numpy()
    _, first = np.unique(unit, return_index=True)
    return unit, first, rows["locale"].astype(str).to_numpy(dtype=object)[first], is_now[first]


def _of_categories(name: str, values: np.ndarray, unit: np.ndarray, what: str) -> _Column:
    """Return the distribution of words; rare ones are counted together."""
    codes, words = pd.factorize(values, sort=True)
    counts = _counted(codes, unit, len(words))
    order = [*LABEL_NAMES, *LOCALES, *ACTIONS]
    rare = (counts.sum(axis=0) < RARE * counts.sum()) & ~np.isin(words, order)
    if rare.sum() > 1:
        counts = np.column_stack([counts[:, ~rare], counts[:, rare].sum(axis=1)])
        words = np.append(words[~rare], "other")
    return _Column(name, tuple(map(str, words)), counts, what)


def _of_numbers(name: str, values: np.ndarray, unit: np.ndarray, now: np.ndarray, what: str) -> _Column:
    """Return the distribution of numbers in bins that hold a tenth of the older data each."""
    older = values[~now]
    edges = np.unique(np.quantile(older, np.linspace(0.1, 0.9, 9))) if len(older) else np.zeros(1)
    place = np.searchsorted(edges, values, side="left")
    bins = (*(f"<= {edge:g}" for edge in edges), f"> {edges[-1]:g}")
    return _Column(name, bins, _counted(place, unit, len(bins)), what, (values, unit))


def _counted(place: np.ndarray, unit: np.ndarray, bins: int) -> np.ndarray:
    total = int(unit.max(initial=-1)) + 1
    flat = np.bincount(unit * bins + place, minlength=total * bins)
    return flat.reshape(total, bins).astype(np.float32)


def _compare(units: _Units, limits: DriftLimits) -> Iterator[DriftFinding]:
    """Yield the distance and the raw p-value of every distribution, over all queries and in each locale."""
    for scope in ("all", *LOCALES):
        rows = np.flatnonzero(np.ones(len(units.locale), bool) if scope == "all" else units.locale == scope)
        now = units.is_now[rows]
        if min(now.sum(), (~now).sum()) < FEWEST_QUERIES:
            continue
        columns = [column for column in units.columns if scope == "all" or column.name != "locale mix"]
        values, chances = _permuted([column.counts[rows] for column in columns], now, limits.seed)
        for column, value, chance in zip(columns, values, chances, strict=True):
            words = _in_words(column, rows, now, scope)
            yield DriftFinding(column.name, scope, MEASURE, value, limits.distance, chance, False, words)


def _permuted(counts: Sequence[np.ndarray], now: np.ndarray, seed: int) -> tuple[list[float], list[float]]:
    """Return the distances, and the share of random assignments of queries to versions whose distance is as large."""
    together = np.concatenate(counts, axis=1)
    total = together.sum(axis=0, dtype=np.float64)
    borders = np.cumsum([part.shape[1] for part in counts])[:-1]

    def distances(picked: np.ndarray) -> np.ndarray:
        """Return the distance of each column for each choice of the newer queries, float64 (choices, columns)."""
        newer = (picked.astype(np.float32) @ together).astype(np.float64)
        parts = zip(np.split(newer, borders, axis=1), np.split(total - newer, borders, axis=1), strict=True)
        return np.column_stack([np.nan_to_num(jensenshannon(a, b, base=2, axis=1)) for a, b in parts])

    observed, share = distances(now[None, :])[0], now.mean()
    random = np.random.default_rng(seed)
    as_large = np.zeros(len(counts))
    for start in range(0, PERMUTATIONS, BATCH):
        size = min(BATCH, PERMUTATIONS - start)
        # Each version gets about as many as it has: drawn one by one, which is much faster than to shuffle them.
        picked = random.random((size, len(now)), dtype=np.float32) < share
        as_large += (distances(picked) >= observed - 1e-12).sum(axis=0)
    return observed.tolist(), ((as_large + 1) / (PERMUTATIONS + 1)).tolist()


def _in_words(column: _Column, rows: np.ndarray, now: np.ndarray, scope: str) -> str:
    where = "" if scope == "all" else f" in {scope}"
    counts = column.counts[rows]
    if column.numbers is not None:
        values, unit = column.numbers
        older, newer = (np.median(values[np.isin(unit, rows[now == side])]) for side in (False, True))
        return f"{column.name}{where}: the median was {older:g} {column.unit}, it is {newer:g} now"
    shares = [counts[now == side].sum(axis=0) / max(counts[now == side].sum(), 1) for side in (False, True)]
    most = int(np.abs(shares[1] - shares[0]).argmax())
    return (
        f"{column.name}{where}: {column.bins[most]} {shares[0][most]:.1%} of {column.unit} before, "
        f"{shares[1][most]:.1%} now"
    )


def _decided(rows: Sequence[DriftFinding], limits: DriftLimits) -> Iterator[DriftFinding]:
    """Yield the rows with adjusted p-values and the verdict on each."""
    raw = [row.p_value for row in rows if row.p_value is not None]
    adjusted = iter(false_discovery_control(raw).tolist() if raw else ())
    for row in rows:
        if row.p_value is None:
            yield row
            continue
        chance = next(adjusted)
        drifted = row.value >= limits.distance and chance <= limits.level
        yield replace(row, p_value=chance, drifted=drifted)


def _one_sided(now: Dataset, limits: DriftLimits) -> DriftFinding:
    words = "behaviour: there were events before, there are none now"
    if now.events is not None:
        words = f"behaviour: there were no events before, there are {len(now.events):,} now"
    return DriftFinding("actions", "all", MEASURE, 1.0, limits.distance, None, True, words)
