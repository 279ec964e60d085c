"""Write Markdown in which foreign text has no effect: every cell and sentence is escaped."""

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
    r"""Return a Markdown table.

    Args:
        head: Headings, one per column; they are not escaped.
        rows: One cell per column each; see :func:`cell`.
        sides: One letter per column: "l" for left, "r" for right.

    Returns:
        The table, one line per row, without a line break at its end.

    Example:
        >>> print(grid(["model", "macro F1"], [["e5_small", "0.512"]], "lr"))
        | model | macro F1 |
        | --- | ---: |
        | e5\_small | 0.512 |
    """
    lines = [list(head), ["---:" if side == "r" else "---" for side in sides]]
    lines += [[cell(text) for text in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Return one cell: :class:`Plain` text as it is, all other text escaped, :class:`Bold` text in bold."""
    if isinstance(text, Plain):
        return str(text)
    return f"**{escape(text)}**" if isinstance(text, Bold) else escape(text)


def escape(text: object) -> str:
    r"""Return text on one line with all of Markdown's marks escaped.

    Args:
        text: Any object; it is shown as `str` shows it, without control characters.

    Returns:
        The escaped text.

    Example:
        >>> print(escape("a|b *c*"))
        a\|b \*c\*
    """
    return _MARKS.sub(r"\\\1", words.clean(text))


def link(title: str, address: str) -> str:
    """Return a link when the address is one for a browser, else title and address as text.

    Args:
        title: Text of the link; it is escaped.
        address: Where it leads; only http and https make a link.

    Returns:
        Markdown on one line.

    Example:
        >>> link("Ledger", "https://example.org/a b")
        '[Ledger](https://example.org/a%20b)'
        >>> link("Ledger", "file:///srv/ledger.db")
        'Ledger: `file:///srv/ledger.db`'
    """
    shown = words.clean(address)
    if shown.startswith(("http://", "https://")):
        safe = shown.replace(" ", "%20").replace("(", "%28").replace(")", "%29").replace("<", "%3C").replace(">", "%3E")
        return f"[{escape(title)}]({safe})"
    return f"{escape(title)}: `{shown.replace('`', '')}`"
