"""Loading families: a class by name, a model from a folder, and no heavy imports before that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.specs import parse_spec
from esci_tournament.tasks.families.graph_network.model import GraphNetwork
from esci_tournament.tasks.families.language_model.model import LanguageModel
from esci_tournament.tasks.families.loading import SPEC_FILE, candidate_class, load_candidate, make_candidate

SPECS = {
    LanguageModel: {"name": "text", "family": "language_model", "architecture": "bert"},
    GraphNetwork: {"name": "graph", "family": "graph_network", "architecture": "gcn"},
}


@pytest.mark.parametrize("kind", SPECS)
def test_a_spec_makes_an_unfitted_model_of_its_family(kind: type) -> None:
    spec = parse_spec(SPECS[kind])
    made = make_candidate(spec)
    assert type(made) is candidate_class(spec.family) is kind
    assert made.spec == spec


def test_an_unknown_family_is_named_with_those_there_are() -> None:
    with pytest.raises(SpecError, match=r"'oracle' is not known.*graph_network.*language_model"):
        candidate_class("oracle")


def test_a_spec_with_an_unknown_key_is_refused_with_its_file(tmp_path: Path) -> None:
    (tmp_path / SPEC_FILE).write_text('{"name": "x", "family": "graph_network", "architecture": "gcn", "code": "x"}')
    with pytest.raises(SpecError, match=rf"{SPEC_FILE}: unknown key 'code'"):
        load_candidate(tmp_path)


@pytest.mark.parametrize("content", [None, "{", "\x80"])
def test_a_folder_without_a_readable_spec_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / SPEC_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(CandidateError, match=rf"{tmp_path.name} holds no fitted candidate: {SPEC_FILE}"):
        load_candidate(tmp_path)


def test_torch_is_not_imported_before_a_family_is_asked_for() -> None:
    script = "import sys, esci_tournament.tasks.families.loading as _; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=120).returncode == 0
