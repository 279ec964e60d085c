"""JSON that somebody else wrote: bounded in length and depth before it is parsed, and text that can be encoded."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

LONGEST = 100_000  # characters; MLflow keeps tags of versions up to this length
LONGEST_FILE = 1_000_000  # bytes of a file
DEEPEST = 32  # brackets inside brackets; a spec has two

# What moves a terminal's cursor or turns the direction of text; and what begins a mention in a chat
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]|(?<!\w)@")
_MARKUP = str.maketrans({"<": "\u2039", ">": "\u203a", "`": "'"})

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


def plain(text: str) -> str:
    """Return a text in which chat and mail programs find no link, mention or mark-up, and terminals no control.

    Args:
        text: What somebody else may have written, or a message that quotes it.

    Returns:
        The text with quotation marks in place of angle brackets, "?" in place of what has a meaning, and spaces inside
        links.

    Example:
        >>> plain("<!channel> <https://evil.example|Approve here> [a](b) @all ana@host")
        '‹!channel› ‹https:/ /evil.example|Approve here› [a] (b) ?all ana@host'
    """
    return _CONTROL.sub("?", text).translate(_MARKUP).replace("://", ":/ /").replace("](", "] (")


def shown(value: object, longest: int = 100) -> str:
    """Return a foreign value as messages quote it: as Python writes it, cut, and without mark-up.

    Args:
        value: What was read.
        longest: Characters at most; the rest is left out.

    Returns:
        One line of text.

    Example:
        >>> shown("<script>")
        "'‹script›'"
        >>> shown([1] * 1000, longest=12)
        '[1, 1, 1, ...'
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        text = f"a {type(value).__name__} that is too large to be shown"
    return plain(text if len(text) <= longest else f"{text[: longest - 2]}...")
