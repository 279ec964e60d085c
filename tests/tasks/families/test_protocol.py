"""Optional attributes of a family have defaults, whether or not its class derives from the protocol's."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.tasks.families.protocol import Candidate, refreshes, with_defaults

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "candidates.md"
OPTIONAL = {
    name
    for name, value in vars(Candidate).items()
    if not name.startswith("_") and not getattr(value, "__isabstractmethod__", False)
}
SPEC = SimpleNamespace(name="x", description="a few words")


class Plain:
    """A class that derives from nothing and has what is asked of every family, but for what no test here calls."""

    forkable = True
    spec = SPEC

    def cover(self, pairs):
        return 1


class Derived(Candidate):
    def __init__(self, spec):
        self.spec = spec

    fit = predict_proba = save = load = parameters = None

    def refresh(self, edges, products):
        return 3


def test_a_class_that_derives_from_nothing_is_given_the_defaults_and_keeps_its_own() -> None:
    kind = with_defaults(Plain)
    assert kind is Plain
    model = Plain()
    assert (kind.forkable, kind.answers_new_pairs, kind.reads_settings, kind.imports) == (True, True, (), ())
    assert kind.describe(SPEC) == "a few words"
    assert kind.relations_of(SPEC) == ()
    assert kind.mend(Path("x")) is None
    assert kind.keys_of_version("models:/x/1", None) is None
    assert (model.cover(pd.DataFrame()), model.resident_bytes(), model.products_ahead) == (1, 0, 0)
    assert not model.embeds_products
    for call in (model.embed_products, model.use_products):
        with pytest.raises(SpecError, match="computes nothing of a product alone"):
            call(*[None] * (2 if call == model.embed_products else 1))
    with pytest.raises(CandidateError, match="nothing that could be refreshed"):
        model.refresh(None, None)


def test_a_family_is_refreshed_only_when_it_has_a_way_to() -> None:
    assert refreshes(Derived)
    assert not refreshes(with_defaults(Plain))
    assert not refreshes(object)
    assert Derived(SPEC).cover(pd.DataFrame({"x": [1, 2]})) == 2


def test_the_guide_lists_what_is_optional() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    table = text[text.index("| attribute | what for |") : text.index("If the class imports a heavy library")]
    listed = {name for row in table.strip().splitlines() for name in re.findall(r"`(\w+)[`(]", row.split("|")[1])}
    assert listed == OPTIONAL
