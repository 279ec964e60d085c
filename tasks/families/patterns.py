"""Regular expressions of tokenizers: refuse those whose matching may take a time that grows without bound.

Tokenizers match with Oniguruma, which backtracks: `(a+)+$` takes twice as long for each further letter. What published
tokenizers need is simple: a repeated item is a single character or class, and few items of a branch are optional or
repeated. That, and nothing else, is accepted; what is left can take a time that is a small power of the length, which
is measured (:mod:`esci_tournament.tasks.families.checkpoint_files`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LONGEST = 5_000  # characters of a pattern
MOST_UNBOUNDED = 2  # repeated items in one branch
MOST_VARIABLE = 8  # items in one branch that may match more or less
_SPREAD = 3  # between the bounds of a repetition; from here on it counts as unbounded
_ENDLESS = 10**6
_DEEPEST = 16

_QUANTIFIER = re.compile(r"([*+?])([+?]?)|\{(\d{0,6})(,?)(\d{0,6})\}([+?]?)")
_ESCAPE = re.compile(r"\\(?:[pP]\{\^?[\w ]{1,40}\}|x\{[0-9A-Fa-f]{1,8}\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[^\W\d]|0|\W)")
_ANCHORS = frozenset("bBAzZG")
_UNKNOWN_ESCAPES = frozenset("kgKXRyYNO")
_OPENING = re.compile(r"\((?:\?(?:[:=!>]|<[=!]|[im-]{1,4}:))?")
_FLAGS = re.compile(r"\(\?[im-]{1,4}\)")


class _Refused(Exception):
    pass


@dataclass
class _Branch:
    """What a sequence of items holds: the sources of those that are repeated, and how many vary in length."""

    repeated: list[str] = field(default_factory=list)
    variable: int = 0


def trouble_with(pattern: str) -> str:
    r"""Return why a regular expression is refused, in a few words, or "" when it is accepted.

    Args:
        pattern: In Oniguruma's syntax.

    Returns:
        The reason, or "".

    Example:
        >>> trouble_with(r"'s|'t| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
        ''
        >>> trouble_with("(a+)+$")
        'a group is repeated'
    """
    if len(pattern) > LONGEST:
        return f"it has {len(pattern):,} characters; {LONGEST:,} are allowed"
    reader = _Reader(pattern)
    try:
        reader.whole()
    except _Refused as error:
        return str(error)
    return ""


def repeated_items(pattern: str) -> list[list[str]]:
    r"""Return the items of an accepted expression that are repeated, for each branch that has any.

    Args:
        pattern: In Oniguruma's syntax.

    Returns:
        The sources of single characters, classes and groups, by branch.

    Example:
        >>> repeated_items(r"\s*[\r\n]+|a")
        [['\\s', '[\\r\\n]']]
    """
    return [branch.repeated for branch in _Reader(pattern).whole() if branch.repeated]


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.place = pattern, 0

    def whole(self) -> list[_Branch]:
        """Read the pattern to its end."""
        found = self.branches(0)
        if self.place < len(self.pattern):
            raise _Refused("it has a bracket too many")
        return found

    def branches(self, depth: int) -> list[_Branch]:
        """Read alternatives up to the end or a closing bracket."""
        if depth > _DEEPEST:
            raise _Refused("its groups are nested too deep")
        found = [_Branch()]
        while self.place < len(self.pattern) and self.pattern[self.place] != ")":
            if self.pattern[self.place] == "|":
                self.place += 1
                found.append(_Branch())
            else:
                self._item(found[-1], depth)
        return found

    def _item(self, branch: _Branch, depth: int) -> None:
        letter = self.pattern[self.place]
        if flags := _FLAGS.match(self.pattern, self.place):
            self.place = flags.end()
            return
        inner, simple, start = list[_Branch](), True, self.place
        if letter == "(":
            inner = self._group(depth)
            simple = len(inner) == 1 and not inner[0].variable
        elif letter == "[":
            self._class()
        elif letter == "\\":
            simple = self._escape()
        else:
            simple = letter not in "^$"
            self.place += 1
        source = self.pattern[start : self.place]
        least, most = self._quantifier()
        if most > 1 and not simple:
            raise _Refused("a group is repeated")
        branch.repeated += max(inner, key=lambda one: len(one.repeated)).repeated if inner else []
        branch.variable += max((one.variable for one in inner), default=0) + (least != most)
        if most - least > _SPREAD:
            branch.repeated.append(source)
        if len(branch.repeated) > MOST_UNBOUNDED or branch.variable > MOST_VARIABLE:
            raise _Refused("too many items of one branch are optional or repeated")

    def _group(self, depth: int) -> list[_Branch]:
        opening = _OPENING.match(self.pattern, self.place)
        if opening is None or self.pattern.startswith("?", opening.end()):
            raise _Refused("it has a kind of group that is not known")
        self.place = opening.end()
        inner = self.branches(depth + 1)
        if not self.pattern.startswith(")", self.place):
            raise _Refused("a bracket is not closed")
        self.place += 1
        return inner

    def _class(self) -> None:
        depth = 0
        while self.place < len(self.pattern):
            letter = self.pattern[self.place]
            if letter == "\\":
                self.place += 1
            elif letter == "[":
                depth += 1
                if self.pattern.startswith("^", self.place + 1):
                    self.place += 1
                if self.pattern.startswith("]", self.place + 1):  # the first one is a letter
                    self.place += 1
            elif letter == "]":
                depth -= 1
            self.place += 1
            if not depth:
                return
        raise _Refused("a bracket is not closed")

    def _escape(self) -> bool:
        found = _ESCAPE.match(self.pattern, self.place)
        if found is None or found.group()[1] in _UNKNOWN_ESCAPES:
            raise _Refused("it refers to a group, or has an escape that is not known")
        self.place = found.end()
        return found.group()[1] not in _ANCHORS

    def _quantifier(self) -> tuple[int, int]:
        found = _QUANTIFIER.match(self.pattern, self.place)
        if found is None or found.group() in ("{}", "{,}"):
            return 1, 1
        self.place = found.end()
        if _QUANTIFIER.match(self.pattern, self.place) or (found.group(6) == "+"):
            raise _Refused("a repetition is repeated")
        if found.group(1):
            return int(found.group(1) == "+"), 1 if found.group(1) == "?" else _ENDLESS
        least = int(found.group(3) or 0)
        most = int(found.group(5)) if found.group(5) else _ENDLESS if found.group(4) else least
        return least, most
