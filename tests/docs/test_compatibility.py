"""docs/compatibility.md: every row of its tables is what really happens to what people bring."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
# Heading of a table -> the module that makes its rows
AREAS = {"Data": "data_forms", "Checkpoints": "checkpoints", "Models logged with MLflow": "flavours"}


def area(name: str) -> ModuleType:
    return import_module(f"tests.docs.compatibility.{AREAS[name]}")


def rows() -> list[tuple[str, str, str, str]]:
    """Return area, what is brought, result and note of every row of the page."""
    found = []
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        for line in re.findall(r"^\| (.+) \|$", text, re.MULTILINE):
            first, result, note = (cell.replace(r"\|", "|").strip() for cell in re.split(r" (?<!\\)\| ", f"{line} "))
            if first not in ("you bring",) and set(first) != {"-"}:
                found.append((heading, first, result, note))
    return found


def table(name: str, made: dict[str, str]) -> str:
    """Return the table of an area as the page has it.

    Args:
        name: Heading of the table.
        made: What is brought -> what became of it.

    Returns:
        Markdown.
    """
    notes = area(name).NOTES
    lines = ["| you bring | result | what to know |", "|---|---|---|"]
    lines += [f"| {first} | {_cell(result)} | {notes[first]} |" for first, result in made.items()]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def test_the_page_has_every_row_and_no_other():
    for name in AREAS:
        module = area(name)
        on_page = {first: note for heading, first, _, note in rows() if heading == name}
        assert set(on_page) == set(module.ROWS) == set(module.NOTES)
        assert on_page == module.NOTES


@pytest.mark.parametrize(("name", "first", "result"), [row[:3] for row in rows()], ids=lambda value: value[:60])
def test_a_row_is_what_happens(name, first, result, tmp_path):
    assert area(name).ROWS[first](tmp_path) == result
