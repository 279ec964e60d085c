"""Choose the rows of behaviour logs that may be learnt from; count and describe those that are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.arrays import category, keys_of, rows_in, text
from esci_tournament.tasks.data.dataset import ACTIONS, LOCALES, LeftOut
from esci_tournament.tasks.data.fingerprint import ColumnFingerprint
from esci_tournament.tasks.data.layout import EDGES_FILE, EVENTS_COLUMNS, EVENTS_FILE, TABLE_RELATIONS, YEARS
from esci_tournament.tasks.data.ubi import UbiEvents
from esci_tournament.tasks.data.ubi_actions import IGNORED

# Reasons in the order in which they are looked for: a row is left out for the first that holds.
REASONS: dict[str, str] = {
    "ignored_action": "its action says nothing of a product",
    "other_action": "it is not known whether its action is an impression, click, add or purchase",
    "query_unknown": "no query is on record for it, so it is not known whether that query is held out",
    "locale_unknown": "it names no known locale, and its product is in several",
    "implausible_time": f"its time is not between {YEARS[0]} and {YEARS[1]}, so it may be in another unit",
    "after_cutoff": "it happened after the cut-off",
    "bot": "its client has more events than a customer can have",
    "product_unknown": "no catalogue of its locale has its product",
}
SHOWN = 5  # rows of each reason that are described
EXPECTED = ("ignored_action", "after_cutoff", "bot")  # reasons that rules or settings give on purpose


@dataclass(frozen=True)
class LogLimits:
    """Which rows of a log count.

    Attributes:
        cutoff: The last moment that counts, None for no limit; without a time zone it is UTC.
        bot_events: A client with more events than this in one log, up to the cut-off, is a bot.
        actions: What names of actions in UBI logs mean, beside those that are known; see
            :func:`esci_tournament.tasks.data.ubi_actions.action_of`.
    """

    cutoff: datetime | None = None
    bot_events: int = 5000
    actions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> LogLimits:
        """Return the limits that settings name: `behaviour_cutoff`, `bot_events` and `behaviour_actions`."""
        return cls(settings.behaviour_cutoff, settings.bot_events, settings.behaviour_actions)

    def after(self, times: pa.Array) -> np.ndarray:
        """Return which times are after the cut-off.

        Args:
            times: timestamp[us] (n,) in UTC, without a time zone and without missing values.

        Returns:
            bool (n,), all False without a cut-off.
        """
        if self.cutoff is None:
            return np.zeros(len(times), dtype=bool)
        moment = self.cutoff.astimezone(UTC).replace(tzinfo=None) if self.cutoff.tzinfo else self.cutoff
        return times.to_numpy(zero_copy_only=False) > np.datetime64(moment, "us")

    def bots(self, clients: pa.Array, counted: np.ndarray) -> np.ndarray:
        """Return which events are of a client with too many events.

        Args:
            clients: large_string (n,), the client of each event; "" is nobody's name and never a bot.
            counted: bool (n,), the events that are counted.

        Returns:
            bool (n,); all events of such a client, counted or not.
        """
        encoded = clients.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        events = np.bincount(codes[counted], minlength=len(encoded.dictionary))
        named = pc.not_equal(encoded.dictionary, "").to_numpy(zero_copy_only=False)
        return ((events > self.bot_events) & named)[codes]


def sift(
    file: str, wrong: Mapping[str, np.ndarray], place: Callable[[int], str], identity: pa.Array, value: pa.Array
) -> tuple[np.ndarray, list[LeftOut]]:
    """Decide which rows of a log are kept, and for which reason each of the others is left out.

    Args:
        file: Name of the file.
        wrong: Reason -> bool (n,); a row with several counts for the first in the order of :data:`REASONS`.
        place: Returns where a row stands in the file: "row 3", "line 7".
        identity: large_string (n,), whose row it is: a session, a query.
        value: large_string (n,), what to show of it.

    Returns:
        Which rows are kept, bool (n,), and what is left out: one entry per reason that occurs, with at most
        :data:`SHOWN` rows in words.
    """
    kept = np.ones(len(identity), dtype=bool)
    found = []
    for reason in REASONS:
        rows = np.flatnonzero(kept & wrong[reason]) if reason in wrong else np.empty(0, np.int64)
        if not len(rows):
            continue
        kept[rows] = False
        shown = tuple(f"{place(row)} ({identity[row].as_py()}): {value[row].as_py()!r}" for row in rows[:SHOWN])
        found.append(LeftOut(file, reason, len(rows), shown, len(kept)))
    return kept, found


class Logs:
    """The logs of a folder, of which unusable rows are left out as each log is added.

    Args:
        catalogue: large_string (n_products,), as :func:`esci_tournament.tasks.data.arrays.catalogue_keys` returns it.
        limits: Which rows count.

    Attributes:
        limits: Which rows count.
        left_out: What is left out so far.
        chosen: File name -> rows kept, bool (rows,), where limits rather than content alone decided: the data version
            depends on them.
    """

    def __init__(self, catalogue: pa.Array, limits: LogLimits) -> None:
        self.left_out: list[LeftOut] = []
        self.chosen: dict[str, np.ndarray] = {}
        self._catalogue, self.limits = catalogue, limits
        self._parts: list[dict[str, pa.Array]] = []

    def add_events(self, columns: dict[str, pa.Array]) -> None:
        """Take the rows of `behaviour_events.parquet` that count; all of them when a locale or an action is not known.

        Args:
            columns: Its columns (:data:`~esci_tournament.tasks.data.layout.EVENTS_COLUMNS`), large_string and
                timestamp[us] (n,), without missing values.
        """
        if _all_known(columns["locale"], LOCALES) and _all_known(columns["action"], ACTIONS):
            columns = self._sift(EVENTS_FILE, columns, {}, _row, "session_id")
        self._parts.append(columns)

    def add_ubi(self, ubi: UbiEvents) -> dict[str, str]:
        """Take the events of a UBI file that count.

        Args:
            ubi: The events; a locale that an event does not name is that of the only catalogue with its product.

        Returns:
            Column name -> fingerprint in hex, of all events as they were read.
        """
        said = ubi.columns["locale"]
        columns = {**ubi.columns, "locale": self._locale_of(ubi.columns["product_id"], said)}
        wrong = {
            "ignored_action": _is_in(columns["action"], (IGNORED,)),
            "other_action": ~_is_in(columns["action"], ACTIONS),
            "query_unknown": ~pc.match_substring_regex(columns["query"], r"\S").to_numpy(zero_copy_only=False),
            "locale_unknown": pc.equal(columns["locale"], "").to_numpy(zero_copy_only=False)
            | ~(_is_in(said, LOCALES) | pc.equal(said, "").to_numpy(zero_copy_only=False)),
        }
        before = len(self.left_out)
        self._parts.append(self._sift(ubi.file, columns, wrong, lambda row: f"{ubi.unit} {ubi.numbers[row]}", "query"))
        # Of actions that nobody knows, their names say more than the first rows do
        counted = pc.value_counts(ubi.columns["action"]).to_pylist()
        names = Counter({one["values"]: one["counts"] for one in counted if one["values"] not in (*ACTIONS, IGNORED)})
        shown = tuple(
            f"{name!r}: {count:,} {'event' if count == 1 else 'events'}" for name, count in names.most_common(SHOWN)
        )
        self.left_out[before:] = [
            replace(one, first_rows=shown) if one.reason == "other_action" else one for one in self.left_out[before:]
        ]
        return {name: _fingerprint(array) for name, array in ubi.columns.items()}

    def edges(self, columns: dict[str, pa.Array]) -> pd.DataFrame:
        """Return the edges of the table that count; all of them when a locale or a relation is not known.

        Args:
            columns: The table, :data:`~esci_tournament.tasks.data.layout.EDGES_COLUMNS`; large_string, double
                or timestamp[us] (n,), without missing values.

        Returns:
            Frame with the columns :data:`~esci_tournament.tasks.data.dataset.EDGE_COLUMNS`, in the order of the file.
        """
        between = pc.equal(columns["query"], "").to_numpy(zero_copy_only=False)
        if _all_known(columns["locale"], LOCALES) and _all_known(columns["relation"], TABLE_RELATIONS):
            source = rows_in(self._catalogue, columns["source_product_id"], columns["locale"])
            product = rows_in(self._catalogue, columns["product_id"], columns["locale"])
            named = pc.not_equal(columns["source_product_id"], "").to_numpy(zero_copy_only=False)
            wrong = {
                "implausible_time": _implausible(columns["timestamp"]),
                "after_cutoff": self.limits.after(columns["timestamp"]),
                "product_unknown": (product < 0) | (named & (source < 0)),
            }
            kept = self._record(EDGES_FILE, wrong, _row, columns, "relation")
            columns, between = _only(columns, kept), between[kept]
        source = rows_in(self._catalogue, columns["source_product_id"], columns["locale"])
        frame = {
            "time": columns["timestamp"].to_numpy(),
            "query": text(columns["query"]),
            "query_key": np.where(between, np.uint64(0), keys_of(columns["query"], columns["locale"])),
            "locale": category(columns["locale"], LOCALES),
            "source": source,
            "product": rows_in(self._catalogue, columns["product_id"], columns["locale"]),
            "relation": category(columns["relation"], TABLE_RELATIONS),
            "weight": columns["weight"].to_numpy(),
        }
        return pd.DataFrame(frame)

    def events(self) -> pd.DataFrame | None:
        """Return the events of all logs.

        Returns:
            Frame with the columns :data:`~esci_tournament.tasks.data.dataset.EVENT_COLUMNS`, log after log in the
            order of the calls that added them; None when none was added.
        """
        if not self._parts:
            return None
        return _events(
            {name: pa.concat_arrays([part[name] for part in self._parts]) for name in EVENTS_COLUMNS}, self._catalogue
        )

    def _sift(
        self,
        file: str,
        columns: dict[str, pa.Array],
        wrong: dict[str, np.ndarray],
        place: Callable[[int], str],
        identity: str,
    ) -> dict[str, pa.Array]:
        after = self.limits.after(columns["timestamp"])
        wrong |= {
            "implausible_time": _implausible(columns["timestamp"]),
            "after_cutoff": after,
            "bot": self.limits.bots(columns["client_id"], ~after),
            "product_unknown": rows_in(self._catalogue, columns["product_id"], columns["locale"]) < 0,
        }
        return _only(columns, self._record(file, wrong, place, columns, identity))

    def _record(
        self,
        file: str,
        wrong: dict[str, np.ndarray],
        place: Callable[[int], str],
        columns: dict[str, pa.Array],
        identity: str,
    ) -> np.ndarray:
        kept, found = sift(file, wrong, place, columns[identity], columns["product_id"])
        self.left_out += found
        if {one.reason for one in found} & {"after_cutoff", "bot"}:
            self.chosen[file] = kept
        return kept

    def _locale_of(self, product_ids: pa.Array, said: pa.Array) -> pa.Array:
        """Return the locale of each event: what it says, else the only one with the product, "" if there are several.

        A product that no catalogue has gets the first locale: it is left out for that, whatever its locale is.
        """
        number = len(product_ids)
        has = np.stack(
            [rows_in(self._catalogue, product_ids, pa.array([one] * number, pa.large_string())) for one in LOCALES]
        )
        found = np.where((has >= 0).sum(axis=0) > 1, "", np.asarray(LOCALES)[(has >= 0).argmax(axis=0)])
        return pc.if_else(pc.equal(said, ""), pa.array(found.astype(object), pa.large_string()), said)


def _implausible(times: pa.Array) -> np.ndarray:
    moments = times.to_numpy(zero_copy_only=False)
    first, last = (np.datetime64(str(year), "us") for year in YEARS)
    return (moments < first) | (moments >= last)


def _fingerprint(array: pa.Array) -> str:
    fingerprint = ColumnFingerprint()
    fingerprint.update(array)
    return fingerprint.hexdigest()


def _row(row: int) -> str:
    return f"row {row}"


def _is_in(array: pa.Array, known: Sequence[str]) -> np.ndarray:
    return pc.is_in(array, pa.array(known, pa.large_string())).to_numpy(zero_copy_only=False)


def _all_known(array: pa.Array, known: Sequence[str]) -> bool:
    return bool(_is_in(array, known).all())


def _only(columns: dict[str, pa.Array], kept: np.ndarray) -> dict[str, pa.Array]:
    mask = pa.array(kept)
    return columns if kept.all() else {name: array.filter(mask) for name, array in columns.items()}


def _events(columns: dict[str, pa.Array], catalogue: pa.Array) -> pd.DataFrame:
    frame = {
        "time": columns["timestamp"].to_numpy(),
        "client": text(columns["client_id"]),
        "session": text(columns["session_id"]),
        "query": text(columns["query"]),
        "query_key": keys_of(columns["query"], columns["locale"]),
        "locale": category(columns["locale"], LOCALES),
        "product": rows_in(catalogue, columns["product_id"], columns["locale"]),
        "action": category(columns["action"], ACTIONS),
    }
    return pd.DataFrame(frame)
