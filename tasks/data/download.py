"""Download the official files of the Shopping Queries Dataset: resumable, and verified before a file gets its name."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from esci_tournament.registry.errors import DataError, StoreError
from esci_tournament.registry.files import file_digest, publish
from esci_tournament.tasks.data.layout import EXAMPLES_FILE, LOG_FILES, PRODUCTS_FILE

# The repository holds Git LFS pointers; the files themselves are served by another host.
POINTER_URL = "https://raw.githubusercontent.com/amazon-science/esci-data/main/shopping_queries_dataset"
BASE_URL = "https://media.githubusercontent.com/media/amazon-science/esci-data/main/shopping_queries_dataset"
FILES = (EXAMPLES_FILE, PRODUCTS_FILE)

ATTEMPTS = 5  # in a row without a single new byte, before giving up
TIMEOUT_SECONDS = 30.0
MOST_BYTES = 64 * 2**30  # of one file, by default; the official files have 1 to 2 GiB
_POINTER_BYTES = 4096

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Pointer:
    """What a Git LFS pointer says of a file.

    Attributes:
        sha256: SHA-256 of its content, in lower-case hex.
        size: Its size in bytes.
    """

    sha256: str
    size: int


def download(
    folder: Path,
    base_url: str = BASE_URL,
    pointer_url: str | None = None,
    progress: Progress = lambda share, doing: None,
    pause_seconds: float = 1.0,
) -> list[Path]:
    """Fetch the official files into `folder`; one that is there and intact is not fetched again.

    Each file's Git LFS pointer is read first and says what its content must be. The content goes to `<file>.part`,
    which a later call continues, and gets its name only when size and SHA-256 are right.

    Args:
        folder: Where to; it is made if need be.
        base_url: Folder of the files.
        pointer_url: Folder of the pointers; default: the official one, or `<base_url>/pointers` for another base.
        progress: Called with the share of all bytes that is there, in [0, 1], and which file is fetched.
        pause_seconds: Pause before a second attempt; it doubles with each further one.

    Returns:
        The paths of the files, in the order of :data:`FILES`.

    Raises:
        DataError: If a server cannot be reached or refuses, or if the content is not what the pointer says.
        StoreError: If the folder cannot be written.
    """
    folder, base_url = Path(folder), base_url.rstrip("/")
    if pointer_url is None:
        pointer_url = POINTER_URL if base_url == BASE_URL else f"{base_url}/pointers"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
            pointers = {name: _pointer(client, f"{pointer_url}/{name}", pause_seconds) for name in FILES}
            total, done = sum(pointer.size for pointer in pointers.values()), 0
            for name, pointer in pointers.items():

                def report(size: int, name: str = name, before: int = done) -> None:
                    progress(min(1.0, (before + size) / max(1, total)), f"fetching {name}")

                _file(client, f"{base_url}/{name}", folder / name, pointer, report, pause_seconds)
                done += pointer.size
    except OSError as error:
        raise StoreError(
            f"cannot write to {folder}: {error.strerror or error}; free space or choose another folder, then run the "
            "command again: it continues"
        ) from error
    progress(1.0, "fetched")
    return [folder / name for name in FILES]


def has_pointers(base_url: str) -> bool:
    """Tell whether a base address has Git LFS pointers, by which its files can be verified.

    Args:
        base_url: Folder of the files; pointers are looked for in `<base_url>/pointers`.

    Returns:
        True for the official address, which is not asked, and where the server answers 200.

    Raises:
        DataError: If the server cannot be reached.
    """
    base_url = base_url.rstrip("/")
    if base_url == BASE_URL:
        return True
    url = f"{base_url}/pointers/{EXAMPLES_FILE}"
    with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
        return _answer(client, url, lambda response: response.status_code == 200)


def fetch_folder(
    base_url: str,
    folder: Path,
    progress: Progress = lambda share, doing: None,
    most_bytes: int = MOST_BYTES,
) -> list[Path]:
    """Fetch the official files and the logs of behaviour beside them from an address that has no pointers.

    Args:
        base_url: Folder of the files; logs that it does not have are left out, and removed from `folder`.
        folder: An existing folder.
        progress: Called with the share of files that is there, in [0, 1], and which file is fetched.
        most_bytes: Bytes that a file may have.

    Returns:
        The paths of the files that were fetched, official ones first.

    Raises:
        DataError: If the server cannot be reached, refuses, or has no official file, or a file breaks off or is larger.
    """
    base_url, found = base_url.rstrip("/"), []
    names = (*FILES, *LOG_FILES)
    for number, name in enumerate(names):

        def report(share: float, number: int = number, name: str = name) -> None:
            progress((number + share) / len(names), f"fetching {name}")

        part = folder / f"{name}.part"
        if fetch_address(f"{base_url}/{name}", part, report, optional=name in LOG_FILES, most_bytes=most_bytes):
            publish(part, folder / name)
            found.append(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    return found


def fetch_address(
    url: str,
    path: Path,
    report: Callable[[float], None],
    optional: bool = False,
    pause_seconds: float = 1.0,
    most_bytes: int = MOST_BYTES,
) -> bool:
    """Fetch one address into a file, from its beginning.

    Args:
        url: The address.
        path: The file; what is in it is replaced.
        report: Called with the share of the file that is there, in [0, 1]; 0 while the server does not tell its size.
        optional: Whether an answer 404 or 410 is no error.
        pause_seconds: Pause before a second attempt; it doubles with each further one.
        most_bytes: Bytes that it may have.

    Returns:
        False when the file is optional and not there, else True.

    Raises:
        DataError: If the server cannot be reached, refuses, sends more, or breaks off in each of :data:`ATTEMPTS`
            attempts.
    """

    def take(response: httpx.Response) -> bool:
        if optional and response.status_code in (404, 410):
            return False
        _refuse_errors(response, url)
        told = response.headers.get("Content-Length", "")
        total = int(told) if told.isascii() and told.isdigit() and len(told) < 20 else 0
        with path.open("wb") as file:
            for chunk in response.iter_raw():
                if file.tell() + len(chunk) > most_bytes:
                    raise DataError(
                        f"the server sends more than {most_bytes / 2**30:.3g} GiB",
                        file=without_secrets(url),
                        advice="raise the setting data_max_gib if that is right",
                    )
                file.write(chunk)
                report(min(1.0, file.tell() / total) if total else 0.0)
            if total and file.tell() != total:
                raise httpx.ReadError(f"it ended after {file.tell()} of {total} bytes")
        return True

    with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
        return _answer(client, url, take, pause_seconds)


def _answer(client: httpx.Client, url: str, take: Callable[[httpx.Response], bool], pause_seconds: float = 1.0) -> bool:
    """Return what `take` makes of the answer of an address; a connection that breaks is tried again."""
    shown = without_secrets(url)
    for attempt in range(ATTEMPTS):
        try:
            with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                return take(response)
        except httpx.TransportError as error:
            _wait_or_give_up(attempt, shown, error, pause_seconds)
        except httpx.InvalidURL as error:
            raise DataError(f"the address is not valid ({error})", file=shown, advice="check it") from None
    raise AssertionError("unreachable: the last attempt raises")


def without_secrets(url: str) -> str:
    """Return an address as it may be shown: without user, password, query or fragment.

    Args:
        url: The address.

    Returns:
        Scheme, host, port and path of it.

    Example:
        >>> without_secrets("https://me:secret@example.org:8443/esci?token=1")
        'https://example.org:8443/esci'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parse_pointer(text: str, url: str) -> Pointer:
    """Return what a Git LFS pointer says.

    Args:
        text: Content of the pointer file.
        url: Its address, for the message of an error.

    Returns:
        SHA-256 and size of the file that it points to.

    Raises:
        DataError: If the text is no pointer.
    """
    sha256 = re.search(r"^oid sha256:([0-9a-f]{64})$", text, re.MULTILINE)
    size = re.search(r"^size ([0-9]{1,18})$", text, re.MULTILINE)
    if not (text.startswith("version https://git-lfs.github.com/spec/") and sha256 and size):
        raise DataError(
            f"the server's answer is no Git LFS pointer: {text[:60]!r}", file=url, advice="check the address"
        )
    return Pointer(sha256[1], int(size[1]))


def _pointer(client: httpx.Client, url: str, pause_seconds: float) -> Pointer:
    for attempt in range(ATTEMPTS):
        try:
            with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                _refuse_errors(response, url)
                content = b""
                for chunk in response.iter_raw():
                    content += chunk
                    if len(content) > _POINTER_BYTES:
                        break
                return parse_pointer(content[:_POINTER_BYTES].decode(errors="replace"), url)
        except httpx.TransportError as error:
            _wait_or_give_up(attempt, url, error, pause_seconds)
    raise AssertionError("unreachable: the last attempt raises")


def _file(
    client: httpx.Client,
    url: str,
    path: Path,
    pointer: Pointer,
    report: Callable[[int], None],
    pause_seconds: float,
) -> None:
    if path.is_file() and path.stat().st_size == pointer.size and file_digest(path) == pointer.sha256:
        report(pointer.size)
        return
    part = path.with_name(path.name + ".part")
    if part.exists() and part.stat().st_size > pointer.size:
        part.unlink()  # left by another version of the file
    attempt = 0
    while (before := part.stat().st_size if part.exists() else 0) < pointer.size or not part.exists():
        try:
            _continue(client, url, part, before, pointer.size, report)
            trouble: Exception = httpx.ReadError("the connection ended early")
        except httpx.TransportError as error:
            trouble = error
        size = part.stat().st_size if part.exists() else 0
        if size >= pointer.size and part.exists():
            break
        attempt = 0 if size > before else attempt
        _wait_or_give_up(attempt, url, trouble, pause_seconds)
        attempt += 1
    found = file_digest(part)
    if part.stat().st_size != pointer.size or found != pointer.sha256:
        size = part.stat().st_size
        part.unlink()  # the content is wrong, so a later call must not continue it
        raise DataError(
            f"wrong content: SHA-256 {found} and {size} bytes, its pointer says {pointer.sha256} and {pointer.size}",
            file=url,
            advice="nothing was kept; run the command again, or fetch the file by hand",
        )
    publish(part, path)


def _continue(client: httpx.Client, url: str, part: Path, have: int, size: int, report: Callable[[int], None]) -> None:
    """Fetch what `part` lacks; a server that ignores the range sends all of it, which then replaces what is there."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        _refuse_errors(response, url)
        resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_raw():  # unbuffered: buffered bytes are lost when the connection breaks
                file.write(chunk)
                report(file.tell())
                if file.tell() > size:
                    return  # more than the pointer says, so the checksum cannot match


def _refuse_errors(response: httpx.Response, url: str) -> None:
    url = without_secrets(url)
    status = response.status_code
    if status in (200, 206):
        return
    if status in (408, 429) or status >= 500:
        raise httpx.ReadError(f"the server answered {status}")  # often temporary, so it is tried again
    raise DataError(f"the server answered {status} {response.reason_phrase}", file=url, advice="check the address")


def _wait_or_give_up(attempt: int, url: str, error: Exception, pause_seconds: float) -> None:
    if attempt + 1 >= ATTEMPTS:
        reason = str(error) or type(error).__name__
        raise DataError(
            f"the server could not be read in {ATTEMPTS} attempts ({reason})",
            file=url,
            advice="check the network, then run the command again: it continues where it stopped",
        ) from error
    time.sleep(pause_seconds * 2**attempt)
