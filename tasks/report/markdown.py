"""Markdown that no text of others can steer: every cell and sentence is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from esci_tournament.tasks.report import words

_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~$])")


class Bold(str):
    """A cell that is set in bold."""


class Plain(str):
    """A cell that is Markdown already, such as a link made here."""


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> str:
    """Return a table; `sides` says for each column whether it stands left (l) or right (r)."""
    lines = [list(head), ["---:" if side == "r" else "---" for side in sides]]
    lines += [[cell(text) for text in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Return one cell, escaped."""
    if isinstance(text, Plain):
        return str(text)
    return f"**{escape(text)}**" if isinstance(text, Bold) else escape(text)


def escape(text: object) -> str:
    """Return text on one line with all of Markdown's marks escaped."""
    return _MARKS.sub(r"\\\1", words.clean(text))


def link(title: str, address: str) -> str:
    """Return a link when the address is one for a browser, else title and address as text."""
    shown = words.clean(address)
    if shown.startswith(("http://", "https://")):
        safe = shown.replace(" ", "%20").replace("(", "%28").replace(")", "%29").replace("<", "%3C").replace(">", "%3E")
        return f"[{escape(title)}]({safe})"
    return f"{escape(title)}: `{shown.replace('`', '')}`"
