"""Verifying the ledger's hash chain, and checkpoints of it that an operator keeps elsewhere.

What :func:`verify` notices, of what somebody may do who can write to the database and switch off its triggers:

- a row that was changed, removed, inserted by hand, or renumbered, in any table;
- an entry of the chain that was changed, removed or inserted, other than at its end;
- a trigger that is missing, changed or switched off, and one that is not the ledger's; a missing constraint or index.

What the chain alone cannot tell, and a checkpoint can, which :func:`checkpoint` returns and which has to be kept where
that person cannot write:

- that rows were removed at the end together with their entries;
- that rows were changed and all entries from there to the end were computed anew, or the whole chain was.

What neither tells: what happened before the chain began (schema 4; entries of rows from before say so), changes of rows
that are younger than the checkpoint with their entries computed anew, and rows that were appended by the product's own
code by somebody who may append. Those stay on record, signed with user and host as that process gave them.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, Table, func, inspect, select
from sqlalchemy.exc import DatabaseError

from esci_tournament.registry import tables, triggers
from esci_tournament.registry.database import REPAIRED
from esci_tournament.registry.errors import ChainError, UsageError
from esci_tournament.registry.files import disk_in_words, write_atomically
from esci_tournament.registry.ledger import Ledger
from esci_tournament.registry.links import BATCH, BEFORE, digest_of_row, hash_of_entry
from esci_tournament.registry.rows import Rows

SHOWN = 100  # findings that a report holds; the others are counted
ADVICE = (
    "The database was changed without the ledger. Keep a copy of it for the investigation, and restore the last backup "
    "that verifies; `tournament ledger repair --reason WHY` restores triggers, but cannot repair rows"
)
_UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError)  # what values that were put in by hand raise


@dataclass(frozen=True)
class Checkpoint:
    """How far the chain had come at a moment.

    Attributes:
        ledger: 64 hexadecimal digits that name the ledger, drawn when its chain began.
        entries: How many entries the chain had.
        head: Hash of the last one.
        at: When it was taken (UTC, ISO 8601).
    """

    ledger: str
    entries: int
    head: str
    at: str

    def to_json(self) -> str:
        """Return the text of a file that holds it."""
        return json.dumps({"format": 1, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "checkpoint") -> Checkpoint:
        """Return the checkpoint that a text holds.

        Args:
            text: What :meth:`to_json` returned.
            name: What the text is, for the error.

        Returns:
            The checkpoint.

        Raises:
            UsageError: If the text is none.
        """
        complaint = UsageError(f"{name} is no checkpoint of a ledger; `tournament ledger checkpoint` makes one")
        try:
            content = json.loads(text)
            found = cls(**{key: content[key] for key in ("ledger", "entries", "head", "at")})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise complaint from error
        is_one = content.get("format") == 1 and type(found.entries) is int and found.entries > 0
        if not is_one or not all(isinstance(one, str) for one in (found.ledger, found.head, found.at)):
            raise complaint
        return found


@dataclass
class Report:
    """What a verification saw.

    Attributes:
        entries: Entries of the chain.
        before: How many of them are for rows from before the chain began.
        head: Hash of the last entry, "" without one.
        ledger: Name of the ledger, see :class:`Checkpoint`.
        findings: What is wrong, a sentence each, at most `SHOWN`.
        count: How many findings there are in all.
        notes: When triggers were put back, and what was not compared, a sentence each.
    """

    entries: int = 0
    before: int = 0
    head: str = ""
    ledger: str = ""
    findings: list[str] = field(default_factory=list)
    count: int = 0
    notes: list[str] = field(default_factory=list)

    def tell(self, words: str) -> None:
        """Add a finding."""
        self.count += 1
        if len(self.findings) < SHOWN:
            self.findings.append(words)

    def complaint(self, most: int = 3) -> str:
        """Return the first findings in one line, "" when there are none."""
        more = self.count - min(most, len(self.findings))
        return "; ".join(self.findings[:most]) + (f"; and {more} more" if more else "")

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint of what was verified.

        Raises:
            ChainError: If something is wrong.
        """
        if self.count:
            raise ChainError(f"the ledger does not verify: {self.complaint()}. {ADVICE}")
        return Checkpoint(self.ledger, self.entries, self.head, dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))


def verify(ledger: Ledger, checkpoints: Iterable[Checkpoint] = ()) -> Report:
    """Compare every row, every entry of the chain and every trigger with what they have to be.

    All of it is read in one transaction, `BATCH` rows at a time, so that memory is bounded and writers go on.

    Args:
        ledger: The ledger.
        checkpoints: What the chain has to contain.

    Returns:
        The findings.
    """
    with ledger.reading() as rows:
        return _verify(rows, list(checkpoints))


def checkpoint(ledger: Ledger) -> Checkpoint:
    """Verify the ledger and return a checkpoint of it.

    Args:
        ledger: The ledger.

    Returns:
        The checkpoint.

    Raises:
        ChainError: If it does not verify.
    """
    return verify(ledger).checkpoint()


def repair(ledger: Ledger, reason: str) -> dict[str, str]:
    """Put triggers back and record that they were not in force.

    Args:
        ledger: The ledger, opened by a role that owns its tables.
        reason: Why; it stays on record.

    Returns:
        Name of each trigger that was put back -> what was wrong with it; {} when all were in force.

    Raises:
        UsageError: If the reason is blank.
    """
    if not reason.strip():
        raise UsageError("a repair needs a reason; it stays in the ledger")
    with ledger.writing() as rows:
        found = triggers.put_in_place(rows.connection)
        if found:
            event = {"tournament": None, "kind": REPAIRED, "subject": "triggers"}
            rows.insert(tables.events, event, {"faults": found, "reason": reason.strip()})
    return found


class Kept:
    """The checkpoint of the last verification that found nothing, kept in the home for each ledger that it used.

    It notices a chain that was cut or rebuilt since, unless whoever did it wrote to the home as well.

    Args:
        home: The home.
        address: The ledger's address.
    """

    def __init__(self, home: Path, address: str) -> None:
        mark = digest_of_row("address", {"address": address})[:12]
        self.path = home / f"ledger-{mark}.verified.json"

    def read(self) -> list[Checkpoint]:
        """Return the checkpoint in a list, [] when there is none.

        Raises:
            ChainError: If the file is damaged.
        """
        try:
            return [Checkpoint.from_json(self.path.read_text(encoding="utf-8"), str(self.path))]
        except FileNotFoundError:
            return []
        except (UsageError, UnicodeDecodeError) as error:
            raise ChainError(f"{self.path} is damaged; if nobody meant harm, remove it and verify again") from error

    def write(self, one: Checkpoint) -> None:
        """Keep a checkpoint in place of the one before."""
        with disk_in_words("checkpoint", self.path.parent):
            write_atomically(self.path, one.to_json().encode())


def verify_home(ledger: Ledger, home: Path, address: str, checkpoints: Sequence[Checkpoint] = ()) -> Report:
    """Verify a ledger against checkpoints and the one that the home keeps, which is replaced when all is well.

    Args:
        ledger: The ledger.
        home: The home.
        address: The ledger's address.
        checkpoints: Further checkpoints.

    Returns:
        The findings.

    Raises:
        ChainError: If the checkpoint in the home is damaged.
    """
    kept = Kept(home, address)
    known = kept.read()
    report = verify(ledger, [*checkpoints, *known])
    if not report.count:
        if not known or known[0].entries < report.entries:
            kept.write(report.checkpoint())
    elif known:
        hint = f" (it is in {kept.path}; remove that file if you restored an older backup yourself)"
        report.findings = [words + (hint if known[0].at in words else "") for words in report.findings]
    return report


# How it is done


def _verify(rows: Rows, checkpoints: Sequence[Checkpoint]) -> Report:
    connection, report = rows.connection, Report()
    there = set(inspect(connection).get_table_names())
    missing = [table.name for table in tables.metadata.sorted_tables if table.name not in there]
    for name in missing:
        report.tell(f"the table {name} is missing")
    if missing:
        return report
    _check_schema(connection, report)
    closed = _closed(connection)
    _check_entries(connection, report, checkpoints, closed)
    for table in tables.RECORDED:
        if table.name not in closed:
            _check_coverage(connection, report, table)
    if closed:
        report.notes.append(f"rows of {', '.join(sorted(closed))} were not compared: this role may not read them")
    for one in checkpoints:
        if one.ledger != report.ledger:
            report.tell(f"the checkpoint of {one.at} is of another ledger, or the whole chain was made anew since")
        elif one.entries > report.entries:
            report.tell(
                f"the chain has fewer entries than at the checkpoint of {one.at} ({report.entries:,} now, "
                f"{one.entries:,} then): its end was removed, or an older backup was restored"
            )
    for row in rows.all(tables.events, kind=REPAIRED):
        faults = "; ".join(row["payload"].get("faults", {}).values())
        report.notes.append(f"{row['at']:%Y-%m-%d %H:%M} UTC by {row['who']}: triggers were put back ({faults})")
    return report


def _closed(connection: Connection) -> set[str]:
    """Return the tables that this role may not read, such as the secrets of reviewers."""
    if connection.dialect.name != "postgresql":
        return set()
    names = [table.name for table in tables.RECORDED]
    return {name for name in names if not connection.scalar(select(func.has_table_privilege(name, "SELECT")))}


def _check_schema(connection: Connection, report: Report) -> None:
    """Look at triggers, constraints and indexes, and have SQLite compare its indexes with its tables."""
    from esci_tournament.registry.migrations import lacking  # alembic is needed for this alone

    wrong = list(triggers.faults(connection).values())
    if len(wrong) > 10:  # they do not hide what else there is
        wrong = [f"{len(wrong)} triggers differ from what they should be: {'; '.join(wrong[:3])}; ..."]
    for words in [*wrong, *lacking(connection)]:
        report.tell(words)
    if connection.dialect.name == "sqlite":
        for words in connection.exec_driver_sql(f"PRAGMA integrity_check({SHOWN})").scalars():
            if words != "ok":
                report.tell(f"the database is damaged: {words}")


def _check_entries(connection: Connection, report: Report, checkpoints: Sequence[Checkpoint], closed: set[str]) -> None:
    """Walk along the chain, and compare the rows that its entries are for."""
    position, previous, heads = 0, "", {(one.entries, one.head): one for one in checkpoints}
    for batch in _batches(connection, tables.chain):
        entries = []
        for id, entry in batch.items():
            if entry is None:
                report.tell(f"entry {id} of the chain cannot be read")
                continue
            if id < 1:
                report.tell(f"entry {id} of the chain was inserted: the first one is entry 1")
                continue
            if id != position + 1:
                report.tell(f"entries {position + 1} to {id - 1} of the chain are missing")
            elif previous and entry["previous"] != previous:
                report.tell(f"entry {id} of the chain does not follow the one before it")
            if hash_of_entry(entry) != entry["hash"]:
                report.tell(f"entry {id} of the chain was changed")
            for (entries_then, head), one in heads.items():
                if entries_then == id and head != entry["hash"]:
                    report.tell(f"entry {id} of the chain is another than at the checkpoint of {one.at}")
            report.ledger = report.ledger or entry["previous"]
            report.before += entry["payload"] == BEFORE
            position, previous = id, entry["hash"]
            if entry["entry_table"] not in closed:
                entries.append(entry)
        _check_rows(connection, report, entries)
    report.entries, report.head = position, previous


def _check_rows(connection: Connection, report: Report, entries: Sequence[Mapping[Any, Any]]) -> None:
    by_table: dict[str, dict[int, Mapping[Any, Any]]] = {}
    for entry in entries:
        by_table.setdefault(entry["entry_table"], {})[entry["entry_row"]] = entry
    for name, wanted in by_table.items():
        table = tables.metadata.tables.get(name)
        if table is None or table is tables.chain:
            report.tell(f"the chain has entries for a table {name!r}, which the ledger does not have")
            continue
        rows = _read(connection, table, list(wanted))
        for id, entry in wanted.items():
            row = rows.get(id)
            if id not in rows:
                report.tell(f"row {id} of {name} is gone (entry {entry['id']})")
            elif row is None or digest_of_row(name, row) != entry["digest"]:
                report.tell(f"row {id} of {name} was changed (entry {entry['id']}, {_signature(entry)})")


def _check_coverage(connection: Connection, report: Report, table: Table) -> None:
    """Look for rows that have no entry, or several."""
    chain = tables.chain
    entry = select(chain.c.id).where(chain.c.entry_table == table.name, chain.c.entry_row == table.c.id)
    for id in connection.execute(select(table.c.id).where(~entry.exists()).order_by(table.c.id)).scalars():
        report.tell(f"row {id} of {table.name} is not in the chain: it was not written by the ledger")
    several = select(chain.c.entry_row).where(chain.c.entry_table == table.name).group_by(chain.c.entry_row)
    for id in connection.execute(several.having(func.count() > 1)).scalars():
        report.tell(f"row {id} of {table.name} has several entries in the chain")


def _batches(connection: Connection, table: Table) -> Iterator[dict[int, Mapping[Any, Any] | None]]:
    """Yield all rows of a table by id, `BATCH` at a time; None is a row that cannot be read."""
    query: Select[Any] = select(table.c.id).order_by(table.c.id).limit(BATCH)
    ids = list(connection.execute(query).scalars())
    while ids:
        rows = _read(connection, table, ids)
        yield {id: rows.get(id) for id in ids}
        ids = list(connection.execute(query.where(table.c.id > ids[-1])).scalars())


def _read(connection: Connection, table: Table, ids: Sequence[int]) -> dict[int, Mapping[Any, Any] | None]:
    """Return the rows with some ids; None is a row whose values cannot be read, those that are gone are left out."""
    query = select(table).where(table.c.id.in_(ids))
    try:
        return {row["id"]: dict(row) for row in connection.execute(query).mappings()}
    except _UNREADABLE:
        pass
    except DatabaseError:
        if connection.dialect.name == "postgresql":
            raise
    if len(ids) == 1:
        return {ids[0]: None}
    return {id: row for one in ids for id, row in _read(connection, table, [one]).items()}


def _signature(entry: Mapping[Any, Any]) -> str:
    return f"written {entry['at']:%Y-%m-%d %H:%M} UTC by {entry['who']}"
