"""API keys: shown once when they are made, kept as scrypt hashes in one file of the home."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import re
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from esci_tournament.registry.errors import NotFoundError, StoreError, UsageError
from esci_tournament.registry.files import disk_in_words, write_atomically

FILE = "scorer-keys.json"
MARK = ".required"  # suffix of the file that says that keys were made, whatever becomes of them
_PREFIX = "esci"
_SHAPE = re.compile(rf"{_PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
_COST = {"n": 2**14, "r": 8, "p": 1}


@dataclass(frozen=True)
class Key:
    """One API key as it is kept, without its secret.

    Attributes:
        id: part of the key's text, by which it is found.
        name: name of its owner.
        salt: salt of the hash, hex.
        hash: scrypt hash of the secret, hex.
        created: when it was made, UTC, ISO 8601.
        rate_per_s: its own limit of requests a second; None for the setting `rate_per_s`.
        revoked: when it was revoked, UTC, ISO 8601; "" while it is good.
    """

    id: str
    name: str
    salt: str
    hash: str
    created: str
    rate_per_s: float | None = None
    revoked: str = ""

    def facts(self) -> dict[str, Any]:
        """Return the key's attributes that may be shown, without salt and hash.

        Example:
            >>> Key("0123", "shop", salt="00", hash="ff", created="2026-01-01T00:00:00+00:00").facts()["name"]
            'shop'
        """
        return {name: value for name, value in asdict(self).items() if name not in ("salt", "hash")}


class Keys:
    """The keys of one home. Changes of the file, by any process, are seen by the next call.

    Args:
        file: JSON file in which they are kept.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stamp: tuple[int, int, int] | None = None
        self._seen = False  # whether this process has seen a key
        self._keys: dict[str, Key] = {}
        self._pepper = secrets.token_bytes(32)
        # Results of scrypt, under a hash of the key's text that is keyed by this process
        self._good: dict[bytes, str] = {}
        self._bad: set[bytes] = set()

    def create(self, name: str, rate_per_s: float | None = None) -> tuple[Key, str]:
        """Make a key.

        Args:
            name: name of its owner, which no other good key may have.
            rate_per_s: its own limit of requests a second; None for the setting `rate_per_s`.

        Returns:
            The key as it is kept, and its text, which is kept nowhere.

        Raises:
            UsageError: if the name is blank or a good key has it already.
            StoreError: if the file cannot be written.
        """
        if not name.strip():
            raise UsageError("a key needs a name; say whose it is")
        id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_bytes(16)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        key = Key(id, name.strip(), salt.hex(), _hash(secret, salt).hex(), now, rate_per_s)
        with self._writing() as keys:
            if any(other.name == key.name and not other.revoked for other in keys.values()):
                raise UsageError(f"there is a key named {key.name!r}; revoke it first, or choose another name")
            keys[id] = key
        return key, f"{_PREFIX}_{id}_{secret}"

    def revoke(self, name: str) -> Key:
        """Revoke the good key with this name or id.

        Args:
            name: name of the owner, or id of the key.

        Returns:
            The key as it is kept from now on.

        Raises:
            NotFoundError: if there is no such key, or it is revoked already.
            StoreError: if the file cannot be read or written.
        """
        with self._writing() as keys:
            found = [key for key in keys.values() if name in (key.name, key.id) and not key.revoked]
            if not found:
                raise NotFoundError(f"no key {name!r} that is not revoked; `tournament keys list` shows them")
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            keys[found[0].id] = Key(**{**asdict(found[0]), "revoked": now})
            return keys[found[0].id]

    def all(self) -> list[Key]:
        """Return all keys, the oldest first, revoked ones included.

        Raises:
            StoreError: if the file is damaged.
        """
        self._read()
        return list(self._keys.values())

    @property
    def configured(self) -> bool:
        """Whether there are keys, though all may be revoked.

        Raises:
            StoreError: if the file is damaged.
        """
        self._read()
        return bool(self._keys)

    @property
    def required(self) -> bool:
        """Whether a key was ever made: from then on requests need one, even when all are revoked or the file is gone.

        Raises:
            StoreError: if the file is damaged.
        """
        self._read()
        return self._seen or self._mark_file.exists()

    def settle(self) -> None:
        """Leave the mark that keys were made, for keys that an earlier version has made; a damaged file counts too."""
        with suppress(OSError, StoreError):
            self._read()
        if self._seen and not self._mark_file.exists():
            with suppress(OSError):
                self._mark_file.touch(mode=0o600)

    @property
    def _mark_file(self) -> Path:
        return self.file.with_suffix(MARK)

    def known(self, text: str) -> Key | bool | None:
        """Look up a key's text without computing its hash.

        Args:
            text: the key as a request sent it.

        Returns:
            The key, when the text was verified before; False when it is known to be wrong, or malformed, unknown or
            revoked; None when :meth:`verify` has to compute its hash.
        """
        self._read()
        shape = _SHAPE.fullmatch(text)
        key = self._keys.get(shape[1]) if shape else None
        if key is None or key.revoked:
            return False
        mark = self._mark(text)
        if self._good.get(mark) == key.id:
            return key
        return False if mark in self._bad else None

    def verify(self, text: str) -> Key | None:
        """Check a key's text; the first time this computes scrypt, which takes tens of milliseconds.

        Args:
            text: the key as a request sent it.

        Returns:
            The key, or None when the text is not that of a good key.
        """
        known = self.known(text)
        if known is not None:
            return known if isinstance(known, Key) else None
        shape = _SHAPE.fullmatch(text)
        assert shape is not None
        key = self._keys[shape[1]]
        mark = self._mark(text)
        if not hmac.compare_digest(_hash(shape[2], bytes.fromhex(key.salt)), bytes.fromhex(key.hash)):
            if len(self._bad) > 10_000:
                self._bad.clear()
            self._bad.add(mark)
            return None
        self._good[mark] = key.id
        return key

    def _mark(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode(), key=self._pepper, digest_size=32).digest()

    def _read(self) -> None:
        try:
            facts = self.file.stat()
            stamp = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
            if stamp == self._stamp:
                return
            rows = json.loads(self.file.read_text(encoding="utf-8"))["keys"]
            self._keys = {key.id: key for key in map(_checked, rows)}
        except (FileNotFoundError, NotADirectoryError):
            self._stamp, self._keys = None, {}
            return
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._seen, self._stamp = True, None
            raise StoreError(
                f"the API keys in {self.file} cannot be read: {error}; restore it, or remove it and make new keys"
            ) from error
        self._stamp = stamp
        self._seen = self._seen or bool(self._keys)

    def _writing(self) -> _Writing:
        return _Writing(self)


class _Writing:
    """Read, change and write the file under its lock."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._lock = FileLock(keys.file.with_suffix(".lock"), timeout=30)

    def __enter__(self) -> dict[str, Key]:
        with disk_in_words("API keys", self._keys.file.parent):
            self._keys.file.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._keys._read()
        except StoreError:
            self._lock.release()
            raise
        self._changed = dict(self._keys._keys)
        return self._changed

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        try:
            if kind is None:
                content = {"keys": [asdict(key) for key in self._changed.values()]}
                with disk_in_words("API keys", self._keys.file.parent):
                    self._keys._mark_file.touch(mode=0o600)
                    write_atomically(self._keys.file, json.dumps(content, indent=1, ensure_ascii=False).encode())
                    self._keys.file.chmod(0o600)
        finally:
            self._lock.release()


def _checked(row: Any) -> Key:
    """Return the key in a row of the file.

    Raises:
        ValueError: if a value is not what it should be.
        TypeError: if one is missing, unknown or no text.
    """
    key = Key(**row)
    texts = (key.id, key.name, key.salt, key.hash, key.created, key.revoked)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a value of a key is no text")
    bytes.fromhex(key.salt), bytes.fromhex(key.hash)
    if key.rate_per_s is not None and not (isinstance(key.rate_per_s, int | float) and key.rate_per_s > 0):
        raise ValueError(f"{key.rate_per_s!r} is no rate")
    return key


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, dklen=32, maxmem=64 * 2**20, **_COST)
