"""JSON that somebody else wrote: bounded in length and depth before it is parsed, and text that can be encoded."""

from __future__ import annotations

import json
import re
from typing import Any

LONGEST = 100_000  # characters; MLflow keeps tags of versions up to this length
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
