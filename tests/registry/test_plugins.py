"""Plug-ins: found without an import, checked on first use, named in errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.plugins import distribution_of, families, installed, load_family, spec_class
from esci_tournament.registry.specs import parse_spec

OURS = {"language_model", "graph_network", "scores", "pyfunc"}
SPEC = """
from typing import Literal
from esci_tournament.registry.plugins import Family
from esci_tournament.registry.specs import NamedSpec

class Spec(NamedSpec):
    family: Literal["light"] = "light"
"""
MODEL = """
from light import Spec
from esci_tournament.tasks.families.protocol import Candidate

class Light(Candidate):
    spec_class = Spec
    def __init__(self, spec): ...
    def fit(self, data): ...
    def predict_proba(self, pairs, products): ...
    def save(self, folder): ...
    @classmethod
    def load(cls, folder, device="cpu"): ...
    def parameters(self): ...
"""
POINTER = SPEC + '\nFAMILY = Family(Spec, "light_model:Light")\n'


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Lay modules and a distribution that offers a family into a folder as an installer would."""

    def put(entry: str = "light = light:FAMILY", light: str = POINTER, light_model: str = MODEL) -> None:
        (tmp_path / "light.py").write_text(light, encoding="utf-8")
        (tmp_path / "light_model.py").write_text(light_model, encoding="utf-8")
        info = tmp_path / "light-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: light\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[esci_tournament.families]\n{entry}\n", encoding="utf-8")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield put
    for module in ("light", "light_model"):
        sys.modules.pop(module, None)


def test_the_families_of_this_product_are_found_as_any_other() -> None:
    assert set(families()) >= OURS
    assert {distribution_of(name) for name in OURS} == {""}
    assert {spec_class(name).model_fields["family"].default for name in OURS} == OURS
    assert spec_class("oracle") is None
    assert installed("esci_tournament.no_such_group") == {}


def test_what_is_installed_meanwhile_is_found(plug_in) -> None:
    assert "light" not in families()
    plug_in()
    assert list(families())[-1] == "light"
    assert distribution_of("light") == "light 1.0"


def test_a_spec_is_read_without_the_class_and_the_class_found_through_it(plug_in) -> None:
    plug_in()
    assert parse_spec({"name": "x", "family": "light"}).family == "light"
    assert "light_model" not in sys.modules
    assert load_family("light").__name__ == "Light"


def test_a_family_of_this_product_is_not_taken_over(plug_in) -> None:
    plug_in(entry="scores = light:FAMILY")
    assert distribution_of("scores") == ""
    assert spec_class("scores").__name__ == "ScoresSpec"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"light_model": "import no_such_module"}, r"light 1\.0 as light:FAMILY: cannot be imported.*no_such_module"),
        ({"light": POINTER.replace(":Light", ":Heavy")}, "cannot be imported.*Heavy"),
        ({"light_model": MODEL.replace("def parameters", "def size")}, "has no parameters"),
        ({"light_model": MODEL.replace("def load", "def open")}, "has no load"),
    ],
    ids=["import", "name", "abstract", "abstract class method"],
)
def test_a_class_that_is_none_is_named_when_it_is_asked_for(plug_in, change: dict[str, str], complaint: str) -> None:
    plug_in(**change)
    assert parse_spec({"name": "x", "family": "light"}).name == "x"
    with pytest.raises(SpecError, match=complaint):
        load_family("light")


def test_a_spec_of_another_name_is_refused(plug_in) -> None:
    plug_in(light=POINTER.replace('Literal["light"] = "light"', 'Literal["dark"] = "dark"'))
    with pytest.raises(SpecError, match="needs an attribute spec_class"):
        parse_spec({"name": "x", "family": "light"})
