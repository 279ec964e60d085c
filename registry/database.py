"""The ledger's connection: SQLite in write-ahead mode or PostgreSQL, serial writes, and errors as our own classes."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from esci_tournament.registry import tables, triggers
from esci_tournament.registry.errors import BusyError, StoreError, UsageError
from esci_tournament.registry.files import is_disk_full, make_folder
from esci_tournament.registry.links import Chain
from esci_tournament.registry.rows import Rows, now

BUSY_SECONDS = 30.0
KEEP_SECONDS = 10.0  # a lock that is kept is taken again within this time after a restart of the database
REPAIRED = "ledger_repaired"  # kind of event: triggers were put back; payload: "faults", "reason"
CHAIN_SINCE = 4  # the schema that brought the hash chain
INSUFFICIENT_PRIVILEGE = "42501"  # PostgreSQL's SQLSTATE
_WRITER_LOCK = 0x45534349  # "ESCI": the advisory lock under which all of PostgreSQL's ledger writes are made

# A server, role or database may be set to answer a commit before it is on the disk; the ledger's commits wait for it.
_WAITS_FOR_DISK = text(
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)


class Database:
    """An engine, its read and write transactions, and its locks. Made by :meth:`open`.

    Attributes:
        engine: SQLAlchemy's engine; connections are made when they are first needed.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, url: str) -> Database:
        """Return the database at `url`, its driver checked; nothing is read or written yet.

        Args:
            url: SQLAlchemy URL of a SQLite file, whose folder is made, or of PostgreSQL (`postgresql+psycopg://`).

        Returns:
            The database, not connected yet.

        Raises:
            UsageError: If `url` is no SQLAlchemy URL of SQLite (a file) or PostgreSQL.
            StoreError: If the driver is not installed or the folder cannot be made.
        """
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise UsageError(f"ledger_url {url!r} is no SQLAlchemy URL; such as sqlite:////folder/ledger.db") from error
        kind = parsed.get_backend_name()
        if kind not in ("sqlite", "postgresql"):
            raise UsageError(f"ledger_url starts with {kind!r}; the ledger lives in sqlite or postgresql+psycopg")
        if kind == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise UsageError(
                "ledger_url names no file; the ledger must outlive its process: sqlite:////folder/ledger.db"
            )
        try:
            if kind == "sqlite":
                make_folder(Path(str(parsed.database)).parent)
                engine = create_engine(parsed, json_serializer=_to_json, connect_args={"timeout": BUSY_SECONDS})
                event.listen(engine, "connect", _prepare_sqlite)
                event.listen(engine, "begin", _begin_sqlite)
            else:
                engine = create_engine(parsed, json_serializer=_to_json, pool_pre_ping=True)
        except (ImportError, NoSuchModuleError) as error:
            raise StoreError(
                f"ledger: the driver of {parsed.render_as_string()} is missing ({error}); "
                "pip install 'esci-tournament[postgres]' and spell it postgresql+psycopg://"
            ) from error
        except OSError as error:
            raise StoreError(f"ledger: the folder of {parsed.database} cannot be made: {error}") from error
        return cls(engine)

    @property
    def place(self) -> str:
        """The database's address, its password hidden."""
        return self.engine.url.render_as_string(hide_password=True)

    @property
    def is_postgresql(self) -> bool:
        """Whether the database is PostgreSQL; else it is SQLite."""
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that sees one state of the ledger.

        Yields:
            The connection; the transaction ends with the block.

        Raises:
            StoreError: If the database cannot be read.
            BusyError: If SQLite's file stays locked for `BUSY_SECONDS`.
        """
        with self._in_words():
            options = {"isolation_level": "REPEATABLE READ"} if self.is_postgresql else {}
            with self.engine.execution_options(**options).begin() as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that no other writer runs beside, so that what is read in it stays true.

        Yields:
            The connection; the transaction is committed at the end of the block, or rolled back when it raises.

        Raises:
            StoreError: If the database cannot be written, the disk is full, or a constraint is violated.
            BusyError: If SQLite's file stays locked for `BUSY_SECONDS`.
        """
        with self._in_words(), self.engine.execution_options(ledger_writes=True).begin() as connection:
            if self.is_postgresql:
                connection.execute(_WAITS_FOR_DISK)
                connection.execute(select(func.pg_advisory_xact_lock(_WRITER_LOCK)))
            yield connection

    @contextmanager
    def exclusive(self, name: str, seconds: float = 60.0) -> Iterator[None]:
        """Hold the lock `name` of this database during the block; other writers are not held up.

        It is a file lock beside SQLite's file, an advisory lock in PostgreSQL; both end with the process.

        Args:
            name: What is locked.
            seconds: How long to wait for another process that holds it.

        Yields:
            Nothing; the lock is held until the block ends.

        Raises:
            BusyError: If another process holds it for longer than `seconds`.
        """
        complaint = _held_by_another(name, seconds)
        if not self.is_postgresql:
            lock = FileLock(self.lock_file(name))
            try:
                lock.acquire(timeout=seconds, poll_interval=0.02)
            except Timeout:
                raise complaint from None
            try:
                yield
            finally:
                lock.release()
            return
        number = _number_of(name)
        end = time.monotonic() + seconds
        with self._in_words(), self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not connection.scalar(select(func.pg_try_advisory_lock(number))):
                if time.monotonic() > end:
                    raise complaint
                time.sleep(0.02)
            try:
                yield
            finally:
                connection.execute(select(func.pg_advisory_unlock(number)))

    def lock_file(self, name: str) -> Path:
        """Return the file beside SQLite's that is locked as `name`."""
        return Path(f"{self.engine.url.database}.{hashlib.sha256(name.encode()).hexdigest()[:12]}.lock")

    @contextmanager
    def presence(self, name: str, seconds: float) -> Iterator[None]:
        """Let others see during the block that this process is at work on something; it keeps nobody out.

        Args:
            name: What it works on.
            seconds: How long to wait for others that look at this moment, or work on it too.

        Yields:
            Nothing.

        Raises:
            BusyError: If another process has worked on it for longer than `seconds`.
            StoreError: If PostgreSQL cannot be reached.
        """
        with self.keep(name, seconds):
            try:
                yield
            finally:
                if not self.is_postgresql:
                    self.lock_file(name).unlink(missing_ok=True)  # there is one for each name, and nobody goes by it

    def is_present(self, name: str) -> bool:
        """Return whether a process is at work on something, see :meth:`presence`."""
        if not self.is_postgresql and not self.lock_file(name).exists():
            return False
        try:
            with self.exclusive(name, 0.0):
                return False
        except BusyError:
            return True

    @contextmanager
    def keep(self, name: str, seconds: float) -> Iterator[None]:
        """Hold the lock `name` for hours, and take it again when the database was restarted meanwhile.

        It ends with this process. A restart of PostgreSQL frees it until the holder notices, so a process that finds it
        free must find it free for longer than `KEEP_SECONDS` to be sure that nobody holds it.

        Args:
            name: What is locked.
            seconds: How long to wait for another process that holds it.

        Yields:
            Nothing; the lock is held until the block ends.

        Raises:
            BusyError: If another process holds it for longer than `seconds`.
            StoreError: If PostgreSQL cannot be reached when the lock is first taken.
        """
        if not self.is_postgresql:
            with self.exclusive(name, seconds):
                yield
            return
        ended, taken = threading.Event(), threading.Event()
        failed: list[Exception] = []

        def hold() -> None:
            number, first = _number_of(name), time.monotonic() + seconds
            while not ended.is_set():
                try:
                    with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                        while not connection.scalar(select(func.pg_try_advisory_lock(number))):
                            if not taken.is_set() and time.monotonic() > first:
                                failed.append(_held_by_another(name, seconds))
                                return
                            if ended.wait(0.05):
                                return
                        taken.set()
                        while not ended.wait(KEEP_SECONDS / 5):
                            connection.execute(select(1))
                        connection.execute(select(func.pg_advisory_unlock(number)))
                except SQLAlchemyError as error:
                    if not taken.is_set():
                        failed.append(self._worded(error))
                        return
                    ended.wait(KEEP_SECONDS / 10)  # the lock went with the connection

        thread = threading.Thread(target=hold, name=f"keep {name}", daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not taken.wait(0.01):
                pass
            if failed:
                raise failed[0]
            yield
        finally:
            ended.set()
            thread.join()

    def create_schema(self, who: str) -> None:
        """Bring the schema to the version that this code knows; safe when several processes do it at once.

        Args:
            who: Who the rows that say so are signed by, user@host.

        Raises:
            StoreError: If the database has a newer schema than this code knows, or an older one that this role of
                PostgreSQL may not change.
        """
        with self.reading() as connection:
            found = self._schema_version(connection)
        if found == tables.SCHEMA_VERSION:
            return
        with self._as_owner(found), self.writing() as connection:
            found = self._schema_version(connection)
            if found > tables.SCHEMA_VERSION:
                raise StoreError(
                    f"ledger {self.place} has schema {found}, this version of esci-tournament knows "
                    f"{tables.SCHEMA_VERSION}; upgrade esci-tournament, or name another ledger_url"
                )
            if found < tables.SCHEMA_VERSION:
                self._migrate(connection, found, who)

    def _migrate(self, connection: Connection, found: int, who: str) -> None:
        from esci_tournament.registry.migrations import upgrade  # alembic is needed for this alone

        damage = triggers.faults(connection)
        upgrade(connection, found)
        triggers.put_in_place(connection)
        if found < CHAIN_SINCE:
            Chain(connection).begin(now(), who)
        rows = Rows(connection, who)
        rows.insert(tables.schema_versions, {"version": tables.SCHEMA_VERSION}, {"from": found})
        if damage:  # they are in place again, and that they were not stays on record
            event = {"tournament": None, "kind": REPAIRED, "subject": "triggers"}
            rows.insert(tables.events, event, {"faults": damage, "reason": f"migration from schema {found}"})

    @contextmanager
    def _as_owner(self, found: int) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if getattr(getattr(error.__cause__, "orig", None), "sqlstate", "") != INSUFFICIENT_PRIVILEGE:
                raise
            raise StoreError(
                f"ledger {self.place} has schema {found} and this version of esci-tournament needs "
                f"{tables.SCHEMA_VERSION}; this role may not change it. As the owner of the database, run: "
                "tournament ledger migrate"
            ) from error

    def _schema_version(self, connection: Connection) -> int:
        if not inspect(connection).has_table("schema_versions"):
            return 0
        return connection.scalar(select(func.max(tables.schema_versions.c.version))) or 0

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._worded(error) from error

    def _worded(self, error: SQLAlchemyError) -> Exception:
        words = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        if is_disk_full(error):
            return StoreError(
                f"ledger {self.place}: the disk is full; nothing was recorded, make room and run it again"
            )
        if "database is locked" in words:
            return BusyError(f"ledger {self.place} was locked for {BUSY_SECONDS:g} s; end what holds it and try again")
        if isinstance(error, DatabaseError | DBAPIError):
            return StoreError(f"ledger {self.place}: {words}")
        return StoreError(f"ledger {self.place}: {error}")


def _held_by_another(name: str, seconds: float) -> BusyError:
    return BusyError(f"{name}: another process has held it for {seconds:g} s; try again when it has ended")


def _number_of(name: str) -> int:
    """Return the number of a lock's name among PostgreSQL's advisory locks."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not by the driver
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    end = time.monotonic() + BUSY_SECONDS
    while True:  # the change to write-ahead mode does not wait by itself when another process makes it too
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
    # In write-ahead mode NORMAL, which some builds of SQLite have, loses the newest commits at a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS, where fsync does not reach beyond the drive's own memory
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA recursive_triggers = ON")


def _begin_sqlite(connection: Connection) -> None:
    # A write that starts as a read cannot wait for its turn (SQLITE_BUSY at once), so it says so from the start.
    writes = connection.get_execution_options().get("ledger_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _to_json(value: Any) -> str:
    """Return JSON with numpy scalars as numbers; NaN and infinity, which JSON does not know, become null."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(content) for key, content in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(content) for content in value]
    if hasattr(value, "tolist"):  # numpy
        return _finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
