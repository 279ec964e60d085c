"""Data sources (a folder, a real HTTP server, SQLite, PostgreSQL): data is fetched completely or not at all."""

from __future__ import annotations

import shutil
import tarfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import create_engine, text

from esci_tournament.registry.errors import DataError, UsageError
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.layout import EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.sources import obtain

PASSWORD = "open-sesame"
QUERIES = {
    "data_sql_examples": "SELECT * FROM examples WHERE query <> 'a % or a :word' ORDER BY example_id",
    "data_sql_products": "SELECT * FROM products ORDER BY place",
    "data_sql_behaviour": "SELECT * FROM events ORDER BY place",
}
TABLES = {"examples": EXAMPLES_FILE, "products": PRODUCTS_FILE, "events": EVENTS_FILE}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def kept(home: Path) -> list[str]:
    """Return the names of all that was put into the home, but for locks."""
    return sorted(path.name for path in (home / "data").rglob("*") if path.suffix != ".lock" and path.is_file())


# Folders


def test_a_folder_is_used_where_it_stands(tiny_world: Path, home: Path) -> None:
    assert obtain(Settings(home=home, data=str(tiny_world))) == tiny_world
    assert obtain(Settings(home=home, data="elsewhere"), str(tiny_world)) == tiny_world
    assert not home.exists()


def test_data_that_nobody_named_is_asked_for(home: Path) -> None:
    with pytest.raises(UsageError, match="--data"):
        obtain(Settings(home=home))


# Servers


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which an HTTP server serves it."""
    folder = tmp_path / "shop"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def put(world: Path, folder: Path) -> None:
    for file in TABLES.values():
        if (world / file).is_file():
            shutil.copy(world / file, folder / file)


def test_a_base_address_gives_the_official_files_and_the_logs(
    shop: tuple[Path, str], tiny_world: Path, tiny_dataset: Dataset, home: Path
) -> None:
    put(tiny_world, shop[0])
    folder = obtain(Settings(home=home, data=shop[1]))
    assert load_esci(folder).version == tiny_dataset.version
    (shop[0] / EVENTS_FILE).unlink()
    assert obtain(Settings(home=home, data=shop[1])) == folder
    assert kept(home) == [EXAMPLES_FILE, PRODUCTS_FILE]


def test_what_was_fetched_before_stays_when_the_next_fetch_fails(
    shop: tuple[Path, str], tiny_world: Path, tiny_dataset: Dataset, home: Path
) -> None:
    put(tiny_world, shop[0])
    settings = Settings(home=home, data=shop[1])
    folder = obtain(settings)
    (shop[0] / EXAMPLES_FILE).write_bytes(b"another week")
    (shop[0] / PRODUCTS_FILE).unlink()
    with pytest.raises(DataError, match=f"404.*{PRODUCTS_FILE}"):
        obtain(settings)
    assert load_esci(folder).version == tiny_dataset.version


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_gives_what_it_holds_at_whatever_depth(
    kind: str, shop: tuple[Path, str], tiny_world: Path, tiny_dataset: Dataset, home: Path, tmp_path: Path
) -> None:
    pack(tiny_world, shop[0] / f"week.{kind}", "../../escape/esci", tmp_path)
    folder = obtain(Settings(home=home, data=f"{shop[1]}/week.{kind}"))
    assert load_esci(folder).version == tiny_dataset.version
    assert kept(home) == sorted(TABLES.values())
    assert not list(tmp_path.rglob("escape"))


def pack(world: Path, archive: Path, inside: str, scratch: Path) -> None:
    (scratch / "evil.txt").write_text("not wanted", encoding="utf-8")
    files = [(scratch / "evil.txt", f"{inside}/evil.txt")]
    files += [(world / file, f"{inside}/{file}") for file in TABLES.values()]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path, name in files:
                packed.write(path, name)
    else:
        with tarfile.open(archive, "w:gz") as packed:
            for path, name in files:
                packed.add(path, name)


def test_an_archive_without_products_is_refused_and_leaves_nothing(
    shop: tuple[Path, str], tiny_world: Path, home: Path
) -> None:
    with zipfile.ZipFile(shop[0] / "week.zip", "w") as packed:
        packed.write(tiny_world / EXAMPLES_FILE, EXAMPLES_FILE)
    with pytest.raises(DataError, match=f"does not hold {PRODUCTS_FILE}.*week.zip"):
        obtain(Settings(home=home, data=f"{shop[1]}/week.zip?token={PASSWORD}"))
    assert not [path for path in (home / "data").iterdir() if path.is_dir() and not path.name.endswith(".fetching")]


def test_an_archive_that_is_none_is_told(shop: tuple[Path, str], home: Path) -> None:
    (shop[0] / "week.tar.gz").write_bytes(b"<html>not here</html>")
    with pytest.raises(DataError, match="the archive cannot be read") as told:
        obtain(Settings(home=home, data=f"{shop[1].replace('://', f'://me:{PASSWORD}@')}/week.tar.gz"))
    assert PASSWORD not in str(told.value)


def test_a_server_that_is_not_there_is_told_without_its_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esci_tournament.tasks.data.download.ATTEMPTS", 1)
    with pytest.raises(DataError, match="could not be read") as told:
        obtain(Settings(home=home, data=f"http://me:{PASSWORD}@127.0.0.1:9/esci?key={PASSWORD}"))
    assert PASSWORD not in str(told.value)


# Databases


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path, tiny_world: Path) -> str:
    """The address of a database that holds the tiny world."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    if request.param == "postgresql":
        import psycopg

        server, name = request.getfixturevalue("postgres_server"), f"shop_{uuid.uuid4().hex}"
        with psycopg.connect(f"{server.replace('+psycopg', '')}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = f"{server.replace('tournament@', f'tournament:{PASSWORD}@')}/{name}"
    engine = create_engine(url)
    for table, file in TABLES.items():
        frame = pd.read_parquet(tiny_world / file)
        if table != "examples":
            frame["place"] = range(len(frame))
        frame.to_sql(table, engine, index=False, chunksize=500)
    engine.dispose()
    return url


Asking = Callable[..., Settings]


@pytest.fixture
def asking(home: Path, tiny_world: Path) -> Asking:
    """Return the settings under which the tiny world is read from a database, 200 rows at a time."""

    def settings(url: str, **changes: object) -> Settings:
        queries = {}
        for name, query in QUERIES.items():
            columns = pd.read_parquet(tiny_world / TABLES[query.split()[3]]).columns
            queries[name] = query.replace("*", ", ".join(columns))
        return Settings(
            **({"home": home, "data": "sql", "data_sql_url": url, "data_sql_rows": 200} | queries | changes)
        )

    return settings


def test_queries_give_the_same_data_version_as_the_files(
    database: str, asking: Asking, home: Path, tiny_dataset: Dataset
) -> None:
    folder = obtain(asking(database))
    assert load_esci(folder).version == tiny_dataset.version
    assert kept(home) == sorted(TABLES.values())


def test_behaviour_is_optional(database: str, asking: Asking, home: Path) -> None:
    obtain(asking(database, data_sql_behaviour=None))
    assert kept(home) == [EXAMPLES_FILE, PRODUCTS_FILE]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"data_sql_products": "SELECT product_id FROM products"},
            "column is missing.*data_sql_products.*product_title",
        ),
        ({"data_sql_examples": "SELECT *, 1 AS more FROM examples"}, "column is not known.*data_sql_examples.*more"),
        ({"data_sql_examples": "SELECT * FROM nowhere"}, "query failed.*nowhere.*data_sql_examples"),
        ({"data_sql_examples": "SELECT * FROM examples WHERE example_id < 0"}, "no row.*data_sql_examples"),
        ({"data_sql_behaviour": "DELETE FROM events"}, "query failed.*data_sql_behaviour"),
    ],
    ids=["missing", "unknown", "fails", "empty", "writes"],
)
def test_a_query_that_gives_something_else_is_named_and_leaves_nothing(
    database: str, asking: Asking, home: Path, changes: dict[str, str], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint) as told:
        obtain(asking(database, **changes))
    assert PASSWORD not in str(told.value)
    assert kept(home) == []


def test_a_value_of_another_kind_is_named_with_its_row(database: str, asking: Asking, home: Path) -> None:
    engine = create_engine(database)
    with engine.begin() as connection:
        (third,) = connection.execute(
            text("SELECT example_id FROM examples ORDER BY example_id LIMIT 1 OFFSET 302")
        ).one()
        connection.execute(text(f"UPDATE examples SET query_id = NULL WHERE example_id = {third}"))
    engine.dispose()
    with pytest.raises(DataError, match=r"not a whole number.*data_sql_examples.*query_id.*row 302: None"):
        obtain(asking(database))
    assert kept(home) == []


def test_the_last_good_data_stays_when_a_query_fails(
    database: str, asking: Asking, home: Path, tiny_dataset: Dataset
) -> None:
    folder = obtain(asking(database))
    with pytest.raises(DataError):
        obtain(asking(database, data_sql_products="SELECT 1 AS x"))
    assert load_esci(folder).version == tiny_dataset.version


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:9/shop", DataError),
        (f"nosuchdialect://me:{PASSWORD}@host/shop", UsageError),
        (f"no url {PASSWORD}", UsageError),
        ("sqlite:////nowhere/shop.db", DataError),
    ],
)
def test_a_database_that_cannot_be_opened_is_told_without_its_password(
    url: str, error: type[Exception], asking: Asking
) -> None:
    with pytest.raises(error, match="data_sql_url") as told:
        obtain(asking(url))
    assert PASSWORD not in str(told.value)


def test_the_address_of_the_database_is_never_shown_stored_or_handed_on(asking: Asking) -> None:
    settings = asking(f"postgresql+psycopg://me:{PASSWORD}@host/shop")
    assert PASSWORD not in repr(settings)
    assert "data_sql_url" not in settings.model_dump(mode="json")


def test_missing_settings_are_named(home: Path) -> None:
    with pytest.raises(UsageError, match="data_sql_url, data_sql_products"):
        obtain(Settings(home=home, data="sql", data_sql_examples="SELECT 1"))
