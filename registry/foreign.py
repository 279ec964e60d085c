"""JSON that somebody else wrote: bounded in length and depth before it is parsed, and text that can be encoded."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

LONGEST = 100_000  # characters; MLflow keeps tags of versions up to this length
LONGEST_FILE = 1_000_000  # bytes of a file
DEEPEST = 32  # brackets inside brackets; a spec has two

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def read_json(text: str, longest: int = LONGEST, deepest: int = DEEPEST) -> Any:
    """Return what a JSON text holds.

    Args:
        text: The text.
        longest: Characters it may have.
        deepest: Levels of arrays and objects it may have.

    Returns:
        Dicts, lists, text, numbers, booleans and None.

    Raises:
        ValueError: If it is too long or too deep, no JSON, or has text that is no Unicode, such as half of a surrogate
            pair.

    Example:
        >>> read_json('{"seed": 1}')
        {'seed': 1}
        >>> read_json("[" * 40_000)
        Traceback (most recent call last):
        ValueError: it is nested deeper than 32 levels
    """
    if len(text) > longest:
        raise ValueError(f"it has {len(text):,} characters; {longest:,} are allowed")
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found.group(), 0)
        if depth > deepest:
            raise ValueError(f"it is nested deeper than {deepest} levels")
    content = json.loads(text)
    json.dumps(content, ensure_ascii=False).encode()  # UnicodeEncodeError, a ValueError, for half a surrogate pair
    return content


def read_bounded(path: Path, longest: int = LONGEST_FILE) -> str:
    """Return the text of a file of bounded length; line ends stay as they are.

    Args:
        path: The file.
        longest: Bytes it may have.

    Returns:
        Its content, which is UTF-8.

    Raises:
        ValueError: If it is longer, or no UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(longest + 1)
    if len(content) > longest:
        raise ValueError(f"{path.name} has more than {longest:,} bytes")
    return content.decode()


def read_json_file(path: Path, longest: int = LONGEST_FILE) -> Any:
    """Return what a JSON file holds, as :func:`read_json` does.

    Args:
        path: The file.
        longest: Bytes it may have.

    Returns:
        Dicts, lists, text, numbers, booleans and None.

    Raises:
        ValueError: As :func:`read_json`, or if it is no UTF-8.
    """
    return read_json(read_bounded(path, longest), longest)


def below(folder: Path, name: object) -> Path:
    """Return the path of a relative name that a file of others gives, which has to stay below a folder.

    Args:
        folder: The folder.
        name: The name, with / between folders.

    Returns:
        The path.

    Raises:
        ValueError: If it is no text, absolute, or leads out of the folder.

    Example:
        >>> below(Path("models"), "members/a").as_posix()
        'models/members/a'
        >>> below(Path("models"), "../secret")
        Traceback (most recent call last):
        ValueError: the path '../secret' leads out of its folder
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) and "\0" not in name and "\\" not in name else ()
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError(f"the path {name!r:.200} leads out of its folder")
    return folder.joinpath(*parts)
