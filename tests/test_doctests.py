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


CLIENT = Path("deployments/client")  # a distribution of its own


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=str)
def test_the_examples_of_a_module_give_what_they_say(path):
    alone = path.is_relative_to(CLIENT)
    place = path.relative_to(CLIENT) if alone else "esci_tournament" / path
    module = importlib.import_module(".".join(place.with_suffix("").parts).removesuffix(".__init__"))
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted
    assert not outcome.failed
