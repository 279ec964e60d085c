"""docs/troubleshooting.md: twenty questions, and every message in it is one that the product still says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^### (\d+)\. (.+?)$\n+((?:> .+\n)+)\n+(\S)", PAGE, re.MULTILINE)
ROOMS = ("registry", "tasks", "flows", "deployments")


@cache
def said() -> tuple[str, ...]:
    """Return every text in the code; of an f-string, the parts that do not differ."""
    found = []
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [str(one.value) if isinstance(one, ast.Constant) else "…" for one in node.values]
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def test_there_are_twenty_in_order():
    assert [int(number) for number, *_ in QUESTIONS] == list(range(1, 21))


@pytest.mark.parametrize("quoted", [one[2] for one in QUESTIONS], ids=[one[0] for one in QUESTIONS])
def test_a_message_is_one_that_is_said(quoted):
    message = " ".join(line.removeprefix("> ") for line in quoted.strip().splitlines())
    assert len(message) > 9
    assert any(message in text for text in said())
