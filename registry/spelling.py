"""What somebody may have meant by a name that is not known, and numbers with their nouns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ALIKE = 0.6  # of 1: difflib's ratio of letters that two words have in common, in order


def nearest(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known words that are most like a word, the most similar first; case does not matter.

    Args:
        word: What was written.
        known: What could have been.
        most: How many at most.

    Example:
        >>> nearest("candidtes", ["candidates", "champion", "run"])
        ['candidates']
    """
    by_case = {one.casefold(): one for one in known}
    return [by_case[one] for one in difflib.get_close_matches(word.casefold(), by_case, most, _ALIKE)]


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a question that follows a message about an unknown word, "" when nothing is like it.

    Args:
        word: What was written.
        known: What could have been.
        prefix: What is put before the known word, where all of them begin alike.

    Example:
        >>> did_you_mean("budgt", ["budget", "seed"]), did_you_mean("x", ["budget"])
        ('; did you mean budget?', '')
    """
    found = nearest(word, known, 1)
    return f"; did you mean {prefix}{found[0]}?" if found else ""


def counted(number: int, noun: str, nouns: str = "") -> str:
    """Return a number and what it counts, as a message says it.

    Args:
        number: How many.
        noun: What, if it is one.
        nouns: What, if it is none or several; default: the noun with an s.

    Example:
        >>> counted(1, "pair"), counted(1234, "pair"), counted(2, "entry", "entries")
        ('1 pair', '1,234 pairs', '2 entries')
    """
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"
