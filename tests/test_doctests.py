"""Run the examples in docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TOPS = ("registry", "tasks", "flows", "deployments")
WITH_EXAMPLES = [
    path.relative_to(ROOT)
    for top in TOPS
    for path in sorted((ROOT / top).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=str)
def test_the_examples_of_a_module_give_what_they_say(path):
    module = importlib.import_module(
        "esci_tournament." + ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    )
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted
    assert not outcome.failed
