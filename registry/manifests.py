"""Manifests: which files an ensemble consists of, by name, size and SHA-256, and what they were made from.

A manifest is made before an ensemble is registered and stands in the ledger. Whoever serves the ensemble compares the
files at hand with it before any of them is parsed. The list of files is laid out as in the manifests of sigstore's
model-signing: one resource for each file, and how the digests were made.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from esci_tournament.registry.errors import IntegrityError
from esci_tournament.registry.files import canonical_json, digest_of
from esci_tournament.registry.foreign import read_json

FORMAT = 1
SERIALIZATION = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
FILE = "ensemble_manifest.json"  # where it stands beside the model in MLflow, for whoever has no ledger
# Beside a model's `MLmodel`: the manifest itself, and a note that MLflow adds when it downloads a version. No reader
# of ours opens the latter.
BESIDE = frozenset({FILE, "registered_model_meta"})
_MODEL = "MLmodel"
SHOWN = 3  # differences that a message names

_LONGEST = 16 * 2**20  # characters of a manifest that is read from a file
_SHA256 = re.compile(r"[0-9a-f]{64}")


class FileEntry(NamedTuple):
    """One file: its size in bytes, and the SHA-256 of its content in hex."""

    size: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """The files of an ensemble as it is registered in MLflow, and what they were made from.

    Attributes:
        files: Path of each file -> size and digest; relative to the model's folder, with `/`.
        data: The folder below the model's that its loader is given, "" for the model's folder itself.
        facts: What the files were made from: digests of the members' specs, data version, settings, code.
    """

    files: Mapping[str, FileEntry]
    data: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of :meth:`to_dict`, 64 hexadecimal digits."""
        return digest_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON holds it."""
        resources = [
            {"name": name, "algorithm": "sha256", "digest": entry.digest, "size": entry.size}
            for name, entry in sorted(self.files.items())
        ]
        return {
            "format": FORMAT,
            "serialization": dict(SERIALIZATION),
            "resources": resources,
            "data": self.data,
            "facts": dict(self.facts),
        }

    def to_json(self) -> str:
        """Return the one JSON text of the manifest; :attr:`digest` is its SHA-256."""
        return canonical_json(self.to_dict())

    @classmethod
    def of(cls, content: Any) -> Manifest:
        """Return the manifest that :meth:`to_dict` has returned.

        Args:
            content: As JSON holds it; it may come from somebody else.

        Returns:
            The manifest.

        Raises:
            IntegrityError: If it is none: a field is missing, a path leaves the folder, a digest is no SHA-256.
        """
        try:
            return cls(_files(content), content["data"] and _path(content["data"]), dict(content["facts"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityError(f"this is no manifest of an ensemble: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Return the manifest in a file.

        Args:
            path: The file; no symbolic link.

        Returns:
            The manifest.

        Raises:
            IntegrityError: If there is no such file, or what it holds is no manifest.
        """
        try:
            return cls.of(read_json(text_of(path, _LONGEST), _LONGEST))
        except (OSError, ValueError) as error:
            raise IntegrityError(f"the manifest {path} cannot be read: {error}") from error

    def part(self, folder: str) -> Manifest:
        """Return the manifest of one folder, its paths relative to that.

        Args:
            folder: Path relative to the model's folder, "" for all.

        Returns:
            The manifest, with the same facts; without files when there is no such folder.

        Example:
            >>> entry = FileEntry(0, "0" * 64)
            >>> sorted(Manifest({"MLmodel": entry, "data/e/ensemble.json": entry}).part("data/e").files)
            ['ensemble.json']
        """
        if not folder:
            return self
        start = f"{folder}/"
        files = {name.removeprefix(start): one for name, one in self.files.items() if name.startswith(start)}
        return Manifest(files, "", self.facts)

    @property
    def served(self) -> Manifest:
        """The manifest of the folder that the loader is given."""
        return self.part(self.data)


def manifest_of(folder: Path, data: str = "", facts: Mapping[str, Any] | None = None) -> Manifest:
    """Return the manifest of the files in a folder as they are now.

    Args:
        folder: The folder; of a model's, files named in :data:`BESIDE` are left out.
        data: The folder below it that a loader is given.
        facts: What the files were made from.

    Returns:
        The manifest.

    Raises:
        IntegrityError: If the folder has a symbolic link or something that is neither file nor folder, or a file
            cannot be read.
    """
    files, beside = {}, BESIDE if (folder / _MODEL).is_file() else frozenset()
    for name, complaint in _walk(folder):
        if complaint:
            raise IntegrityError(f"{folder}: {complaint}; an ensemble consists of plain files")
        if name not in beside:
            found = _entry(folder / name)
            if isinstance(found, str):
                raise IntegrityError(f"{folder}: {_shown(name)} {found}")
            try:
                files[_path(name)] = found
            except ValueError as error:
                raise IntegrityError(f"{folder}: {error}") from error
    return Manifest(files, data, dict(facts or {}))


def differences(folder: Path, manifest: Manifest) -> list[str]:
    """Compare a folder with a manifest. Every file is read once, in pieces.

    Args:
        folder: The folder.
        manifest: Which files it should have, relative to it.

    Returns:
        What differs, in words, ordered by path: files that are changed, missing or extra, symbolic links. [] for none.
    """
    if folder.is_symlink() or not folder.is_dir():
        return ["the folder is missing"]
    found: dict[str, str] = {}
    seen, beside = set(), BESIDE if _MODEL in manifest.files else frozenset()
    for name, complaint in _walk(folder):
        seen.add(name)
        if name in beside and not complaint:
            continue
        wanted = manifest.files.get(name)
        if complaint:
            found[name] = complaint
        elif wanted is None:
            found[name] = f"{_shown(name)} is not in the manifest"
        elif wrong := _difference(folder / name, wanted):
            found[name] = f"{_shown(name)} {wrong}"
    found |= {name: f"{_shown(name)} is missing" for name in manifest.files.keys() - seen if name not in found}
    return [found[name] for name in sorted(found)]


def in_words(found: list[str]) -> str:
    """Return differences in one sentence: the first few, and how many there are.

    Example:
        >>> in_words(["a is missing", "b is missing", "c is missing", "d is missing"])
        'a is missing, b is missing, c is missing (4 differences in all)'
    """
    count = f" ({len(found)} differences in all)" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + count


def check(folder: Path, manifest: Manifest, what: str, advice: str = "") -> None:
    """Refuse a folder that differs from a manifest.

    Args:
        folder: The folder; nothing in it is parsed.
        manifest: Which files it should have, relative to it.
        what: What the folder is, as the message begins.
        advice: What to do next, as the message ends.

    Raises:
        IntegrityError: If anything differs; the message names the first differences.
    """
    if found := differences(folder, manifest):
        words = f"{what} differs from manifest {manifest.digest[:12]}: {in_words(found)}"
        raise IntegrityError(f"{words}; {advice or 'it is not used'}")


def check_plain(folder: Path, what: str) -> None:
    """Refuse a folder with symbolic links, devices or the like, for which there is no manifest.

    Args:
        folder: The folder.
        what: What the folder is, as the message begins.

    Raises:
        IntegrityError: If there is anything but files and folders in it.
    """
    if found := [complaint for _, complaint in _walk(folder) if complaint]:
        raise IntegrityError(f"{what}: {in_words(found)}; it is not used")


def code_version() -> dict[str, Any]:
    """Return which code makes ensembles here: the package's version, and that of each stage's code."""
    from esci_tournament.registry.stages import CODE_VERSIONS

    try:
        package = version("esci-tournament")
    except PackageNotFoundError:  # run from a folder that was never installed
        package = ""
    return {"package": package, "stages": dict(CODE_VERSIONS)}


def recorded(payload: Mapping[str, Any]) -> Manifest | None:
    """Return the manifest that a payload of the ledger holds under `manifest`, None when it has none.

    Args:
        payload: Of an ensemble, or of the event that records a manifest later.

    Raises:
        IntegrityError: If it is none, or its digest is another than `manifest_digest`.
    """
    if not (digest := payload.get("manifest_digest")):
        return None
    found = Manifest.of(payload.get("manifest"))
    if found.digest != digest:
        raise IntegrityError(f"the ledger's manifest {str(digest)[:12]} was changed: its digest is {found.digest[:12]}")
    return found


def as_payload(manifest: Manifest) -> dict[str, Any]:
    """Return a manifest as :func:`recorded` reads it."""
    return {"manifest": manifest.to_dict(), "manifest_digest": manifest.digest}


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest into a file."""
    path.write_text(json.dumps(manifest.to_dict(), indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8")


def text_of(path: Path, longest: int) -> str:
    """Return the text of a small file that somebody else wrote.

    Args:
        path: The file.
        longest: Bytes it may have.

    Returns:
        The text.

    Raises:
        ValueError: If it is a link or no file, too large, or no UTF-8.
    """
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as stream:
        content = stream.read(longest + 1)
    if len(content) > longest:
        raise ValueError(f"it is larger than {longest >> 10} KiB")
    return content.decode()


def _files(content: Any) -> dict[str, FileEntry]:
    """Return the files in a manifest as JSON; ValueError and others when it is none."""
    if content["format"] != FORMAT or content["serialization"] != SERIALIZATION:
        raise ValueError(f"its format is none that this release knows ({FORMAT}, SHA-256 of each file)")
    files: dict[str, FileEntry] = {}
    for one in content["resources"]:
        name, entry = _path(one["name"]), FileEntry(one["size"], one["digest"])
        if type(entry.size) is not int or entry.size < 0 or not _SHA256.fullmatch(entry.digest):
            raise ValueError(f"size or digest of {name}")
        if name in files:
            raise ValueError(f"{name} is listed twice")
        files[name] = entry
    return files


def _walk(folder: Path, below: str = "") -> Iterator[tuple[str, str]]:
    """Yield the relative path of everything that is no folder, and "" or what is wrong with it; links are not followed.

    Folders that cannot be listed count as something wrong.
    """
    try:
        with os.scandir(folder / below) as entries:
            listed = sorted(entries, key=lambda one: one.name)
    except OSError as error:
        yield below or ".", f"{_shown(below) or 'the folder'} cannot be listed: {error.strerror}"
        return
    for one in listed:
        name = f"{below}/{one.name}" if below else one.name
        if one.is_symlink():
            yield name, f"{_shown(name)} is a symbolic link"
        elif one.is_dir(follow_symlinks=False):
            yield from _walk(folder, name)
        elif one.is_file(follow_symlinks=False):
            yield name, ""
        else:
            yield name, f"{_shown(name)} is neither a file nor a folder"


def _difference(path: Path, wanted: FileEntry) -> str:
    """Return how a file differs from its entry, "" when it does not; one of another size is not read."""
    try:
        size = path.lstat().st_size
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if size != wanted.size:
        return f"has {size:,} bytes, not {wanted.size:,}"
    found = _entry(path)
    if isinstance(found, str):
        return found
    return "" if found == wanted else "has another content"


def _entry(path: Path) -> FileEntry | str:
    """Return size and digest of a file, or what is wrong with it."""
    try:
        # NOFOLLOW and NONBLOCK: it may have become a link or a pipe since it was listed
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                return "is no file"
            return FileEntry(facts.st_size, hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _path(name: str) -> str:
    """Return a path that stays below the folder it is relative to.

    Raises:
        ValueError: If it does not, or is written in an unusual way.
    """
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or str(parts) != name or name == "." or "\0" in name:
        raise ValueError(f"{name!r} is no path below a folder")
    name.encode()  # UnicodeEncodeError, a ValueError, for a name that is no Unicode
    return name


def _shown(name: str) -> str:
    """Return a file's name as it may stand in a message."""
    return name if name.isprintable() and len(name) <= 120 else ascii(name)[:120]
