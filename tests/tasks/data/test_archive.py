"""An archive that is damaged, encrypted or a bomb is refused in words, and writes no more than it may."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data import unpack as child
from esci_tournament.tasks.data.archive import unpack
from esci_tournament.tasks.data.layout import EXAMPLES_FILE, PRODUCTS_FILE
from esci_tournament.tasks.data.unpack import unpack_files

KINDS = ("zip", "zip-bzip2", "zip-lzma", "tar", "tar.gz", "tar.bz2", "tar.xz")
METHODS = {"zip": zipfile.ZIP_DEFLATED, "zip-bzip2": zipfile.ZIP_BZIP2, "zip-lzma": zipfile.ZIP_LZMA}
WANTED = [EXAMPLES_FILE, PRODUCTS_FILE]
CONTENT = random.Random(0).randbytes(3000) + b"text " * 400


def pack(path: Path, kind: str, files: list[tuple[str, bytes]]) -> Path:
    if kind in METHODS:
        with zipfile.ZipFile(path, "w", METHODS[kind]) as archive:
            for name, content in files:
                archive.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{kind.partition('.')[2]}") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture(params=KINDS)
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return pack(tmp_path / "packed", request.param, [(f"a/{name}", CONTENT) for name in WANTED])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "folder"
    place.mkdir()
    return place


def tried(archive: Path, folder: Path) -> list[str]:
    """Unpack in this process, which a fault of Python's own libraries does not end."""
    return unpack_files(str(archive), str(folder), "x", WANTED, 2**30)


def test_every_kind_is_unpacked_in_a_child(packed: Path, folder: Path) -> None:
    shares: list[float] = []
    unpack(packed, folder, "x", report=shares.append)
    assert sorted(path.name for path in folder.iterdir()) == sorted(WANTED)
    assert all((folder / name).read_bytes() == CONTENT for name in WANTED)
    assert shares


def test_whatever_is_damaged_is_a_data_error(packed: Path, folder: Path) -> None:
    """F3.3: zlib.error and LZMAError came through, for a cut or a flipped archive."""
    whole, draw = packed.read_bytes(), random.Random(1)
    refused = 0
    for _ in range(150):
        content = bytearray(whole)
        if draw.random() < 0.3:
            del content[draw.randrange(len(content)) :]
        else:
            for _ in range(draw.choice((1, 1, 3, 50))):
                content[draw.randrange(len(content))] = draw.randrange(256)
        packed.write_bytes(content)
        try:
            tried(packed, folder)
        except DataError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_one_that_is_damaged_in_the_middle_is_told_by_the_parent(kind: str, tmp_path: Path, folder: Path) -> None:
    """F3.3, through the child, with the exit code of bad data."""
    archive = pack(tmp_path / "packed", kind, [(name, CONTENT * 50) for name in WANTED])
    content = bytearray(archive.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 60] = bytes(60)
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"^the archive cannot be read \(.+\); file: week; pack it again$") as told:
        unpack(archive, folder, "week")
    assert told.value.exit_code == 3


def test_one_that_is_encrypted_or_packed_in_an_unknown_way_is_a_data_error(tmp_path: Path, folder: Path) -> None:
    archive = pack(tmp_path / "packed", "zip", [(name, CONTENT) for name in WANTED])
    whole = archive.read_bytes()
    for old, new in ((6, b"\1\0"), (8, b"\x63\0"), (8, b"\x62\0")):  # flags, method
        content, at = bytearray(whole), 0
        while (at := content.find(b"PK\3\4", at)) >= 0:
            content[at + old : at + old + 2] = new
            at += 4
        at = 0
        while (at := content.find(b"PK\1\2", at)) >= 0:
            content[at + old + 2 : at + old + 4] = new
            at += 4
        archive.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            tried(archive, folder)


BOMBS: dict[str, Callable[[Path], Path]] = {
    "zip": lambda path: pack(path, "zip", [(EXAMPLES_FILE, bytes(100 * 2**20))]),
    "tar.xz": lambda path: pack(path, "tar.xz", [(EXAMPLES_FILE, bytes(100 * 2**20))]),
    "tar.gz of what is not wanted": lambda path: pack(path, "tar.gz", [("other", bytes(100 * 2**20))]),
    "tar.bz2 in pieces": lambda path: pack(path, "tar.bz2", [(f"{n}", bytes(20 * 2**20)) for n in range(5)]),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(bomb: str, tmp_path: Path, folder: Path) -> None:
    """F3.5: 0.5 MB unpacked to 512 MiB."""
    archive = BOMBS[bomb](tmp_path / "packed")
    with pytest.raises(DataError, match="more than 200 times its size"):
        unpack(archive, folder, "week")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= child.FREE_BYTES


def test_what_declares_more_than_there_is_and_too_many_entries_are_refused(tmp_path: Path, folder: Path) -> None:
    sparse = tarfile.TarInfo(EXAMPLES_FILE)
    sparse.size = 2**40
    (tmp_path / "huge").write_bytes(sparse.tobuf() + bytes(2048))
    with pytest.raises(DataError, match=r"cannot be read|times its size"):
        tried(tmp_path / "huge", folder)
    many = pack(tmp_path / "many", "tar", [(f"{number}", b"") for number in range(child.MOST_ENTRIES + 1)])
    with pytest.raises(DataError, match="more than 10,000 entries"):
        tried(many, folder)


def test_the_operators_limit_is_kept_and_named(tmp_path: Path, folder: Path) -> None:
    archive = pack(tmp_path / "packed", "tar", [(name, CONTENT * 1000) for name in WANTED])
    with pytest.raises(DataError, match=r"more than 0\.00\d+ GiB \(setting data_max_gib\)"):
        unpack(archive, folder, "week", 6_000_000)
    shutil.rmtree(folder)
    folder.mkdir()
    unpack(archive, folder, "week", 12_000_000)
    assert len(list(folder.iterdir())) == 2
