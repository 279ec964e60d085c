"""Downloads from a real HTTP server that breaks off, sends wrong content, refuses or is unreachable."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from esci_tournament.registry.errors import DataError, StoreError
from esci_tournament.tasks.data.download import FILES, download, parse_pointer
from esci_tournament.tasks.data.layout import EXAMPLES_FILE, PRODUCTS_FILE


class Shop(ThreadingHTTPServer):
    """Serves the world's files with ranges, and Git LFS pointers to them, as the real hosts do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents = {name: (folder / name).read_bytes() for name in FILES}
        self.pointed = dict(self.contents)
        self.break_after: list[int] = []  # bytes after which the next answers break off
        self.ranges = True
        self.errors: list[int] = []  # statuses of the next answers to requests for files
        self.asked: list[tuple[str, str | None]] = []  # file and range of each request for a file

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Shop

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if name not in self.server.contents:
            self.send_error(404)
            return
        if "/pointers/" in self.path:
            content = self.server.pointed[name]
            oid = hashlib.sha256(content).hexdigest()
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"
            self.answer(200, pointer.encode())
            return
        wanted = self.headers.get("Range")
        self.server.asked.append((name, wanted))
        if self.server.errors:
            self.send_error(self.server.errors.pop(0))
            return
        content = self.server.contents[name]
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.answer(206, content[start:], f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.answer(200, content)

    def answer(self, status: int, content: bytes, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if status in (200, 206) and "/pointers/" not in self.path and self.server.break_after:
            content = content[: self.server.break_after.pop(0)]
            self.close_connection = True
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop(tiny_world: Path) -> Iterator[Shop]:
    server = Shop(tiny_world)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(shop: Shop, folder: Path, **options: object) -> list[Path]:
    return download(folder, shop.address, pause_seconds=0.0, **options)  # type: ignore[arg-type]


def test_files_arrive_whole(shop: Shop, tmp_path: Path) -> None:
    shares: list[float] = []
    paths = fetch(shop, tmp_path / "new", progress=lambda share, doing: shares.append(share))
    assert {path.name: path.read_bytes() for path in paths} == shop.contents
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_broken_connection_is_continued_where_it_broke(shop: Shop, tmp_path: Path) -> None:
    shop.break_after = [1000, 500]
    fetch(shop, tmp_path)
    assert (tmp_path / EXAMPLES_FILE).read_bytes() == shop.contents[EXAMPLES_FILE]
    assert shop.asked[:3] == [(EXAMPLES_FILE, None), (EXAMPLES_FILE, "bytes=1000-"), (EXAMPLES_FILE, "bytes=1500-")]


def test_a_later_call_continues_an_earlier_one(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / f"{EXAMPLES_FILE}.part").write_bytes(shop.contents[EXAMPLES_FILE][:700])
    fetch(shop, tmp_path)
    assert shop.asked[0] == (EXAMPLES_FILE, "bytes=700-")
    assert (tmp_path / EXAMPLES_FILE).read_bytes() == shop.contents[EXAMPLES_FILE]


def test_a_server_without_ranges_sends_it_all_again(shop: Shop, tmp_path: Path) -> None:
    shop.ranges, shop.break_after = False, [1000]
    fetch(shop, tmp_path)
    assert (tmp_path / EXAMPLES_FILE).read_bytes() == shop.contents[EXAMPLES_FILE]


def test_an_intact_file_is_not_fetched_again(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / EXAMPLES_FILE).write_bytes(shop.contents[EXAMPLES_FILE])
    fetch(shop, tmp_path)
    assert {name for name, _ in shop.asked} == {PRODUCTS_FILE}


def test_a_damaged_file_is_fetched_again(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / EXAMPLES_FILE).write_bytes(shop.contents[EXAMPLES_FILE][:-1] + b"!")
    fetch(shop, tmp_path)
    assert (tmp_path / EXAMPLES_FILE).read_bytes() == shop.contents[EXAMPLES_FILE]


def test_a_passing_server_error_is_tried_again(shop: Shop, tmp_path: Path) -> None:
    shop.errors = [503, 429]
    fetch(shop, tmp_path)
    assert (tmp_path / EXAMPLES_FILE).read_bytes() == shop.contents[EXAMPLES_FILE]


@pytest.mark.parametrize("change", [lambda content: b"!" + content[1:], lambda content: content + b"!"])
def test_wrong_content_is_refused_and_not_kept(change, shop: Shop, tmp_path: Path) -> None:
    shop.contents[PRODUCTS_FILE] = change(shop.contents[PRODUCTS_FILE])
    with pytest.raises(DataError, match=f"wrong content: SHA-256.*{PRODUCTS_FILE}"):
        fetch(shop, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [EXAMPLES_FILE]


def test_a_connection_that_brings_nothing_ends(shop: Shop, tmp_path: Path) -> None:
    shop.break_after = [300] + [0] * 20
    with pytest.raises(DataError, match=r"5 attempts.*it continues"):
        fetch(shop, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{EXAMPLES_FILE}.part"]


def test_not_found_is_said_at_once(shop: Shop, tmp_path: Path) -> None:
    shop.errors = [404]
    with pytest.raises(DataError, match=f"answered 404.*{EXAMPLES_FILE}"):
        fetch(shop, tmp_path)
    assert len(shop.asked) == 1


def test_no_server_is_said(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=f"attempts.*127.0.0.1:{port}"):
        download(tmp_path, f"http://127.0.0.1:{port}", pause_seconds=0.0)


def test_a_folder_that_cannot_be_made_is_said(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match="taken"):
        fetch(shop, tmp_path / "taken")


def test_the_official_pointer_is_understood() -> None:
    text = (
        "version https://git-lfs.github.com/spec/v1\n"
        "oid sha256:4a735b693b4a424a6fc67f5be6e4c811495c488bbf66d02a602d308b2744263a\nsize 51286808\n"
    )
    assert parse_pointer(text, "here").size == 51_286_808


def test_a_page_in_place_of_a_pointer_is_refused() -> None:
    with pytest.raises(DataError, match="no Git LFS pointer"):
        parse_pointer("<html>sign in</html>", "http://somewhere")
