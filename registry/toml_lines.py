"""On which line of a TOML file a key stands; tomllib does not say."""

from __future__ import annotations

import re

_TABLE = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_MULTILINE = ('"""', "'''")

Place = tuple[str | int, ...]


def lines_of(text: str) -> dict[Place, int]:
    r"""Return the lines of the keys and tables of a TOML text that can be read.

    Args:
        text: The text.

    Returns:
        Place -> line, from 1. The tables of an array have their number from 0 behind the name. Keys of inline tables
        are not among them: they stand on the line of the table.

    Example:
        >>> lines_of('seed = 1\n[[candidate]]\nname = "a"')
        {('seed',): 1, ('candidate', 0): 2, ('candidate', 0, 'name'): 3}
    """
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    quotes = ""  # of the text that goes on over several lines
    depth = 0  # of the list that does
    for number, line in enumerate(text.splitlines(), 1):
        if quotes:
            if quotes in line:
                quotes = ""
            continue
        if depth > 0:
            depth += _opened(line)
            continue
        if header := _TABLE.match(line):
            table = _inside(_parts(header[2]), counts)
            if header[1] == "[[":
                counts[table] = counts.get(table, 0) + 1
                table = (*table, counts[table] - 1)
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault((*table, *_parts(key[1])), number)
            value = line[key.end() :]
            quotes = next((one for one in _MULTILINE if value.count(one) % 2), "")
            depth = 0 if quotes else max(0, _opened(value))
    return found


def line_at(lines: dict[Place, int], place: Place) -> int | None:
    """Return the line of a place, else that of the nearest table that it is in; None when none is known."""
    return next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), None)


def _inside(parts: Place, counts: dict[Place, int]) -> Place:
    """Return a table's place: below an array of tables it is in the last one."""
    place: Place = ()
    for position, part in enumerate(parts, 1):
        place = (*place, part)
        if place in counts and position < len(parts):
            place = (*place, counts[place] - 1)
    return place


def _parts(dotted: str) -> Place:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _opened(line: str) -> int:
    bare = re.sub(r"\"(?:\\.|[^\"\\])*\"|'[^']*'|#.*", "", line)
    return sum(bare.count(one) for one in "[{") - sum(bare.count(one) for one in "]}")
