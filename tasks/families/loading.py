"""Which class makes, and opens again, the models of a family."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.plugins import GROUP, distribution_of, load_family, plugged_in
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.tasks.families.protocol import Candidate

SPEC_FILE = "spec.json"

# The families that come with the product, written as a plug-in would write its own: modules are imported when needed.
BUILT_IN = {
    name: EntryPoint(name, value, GROUP)
    for name, value in {
        "language_model": "esci_tournament.tasks.families.language_model.model:LanguageModel",
        "graph_network": "esci_tournament.tasks.families.graph_network.model:GraphNetwork",
        "scores": "esci_tournament.tasks.families.score_file.model:ScoreFile",
        "pyfunc": "esci_tournament.tasks.families.pyfunc.model:Pyfunc",
    }.items()
}


def candidate_class(family: str) -> type[Candidate]:
    """Return the class of a family; its module, and so torch, is imported only now.

    Raises:
        SpecError: if no such family exists, or it is plugged in and cannot be imported.
    """
    if family in BUILT_IN:
        return BUILT_IN[family].load()
    if family in plugged_in():
        return load_family(family)
    known = ", ".join([*BUILT_IN, *plugged_in()])
    raise SpecError(f"family {family!r} is not known; it must be one of {known}")


def code_of(family: str) -> str:
    """Return the distribution that a plugged-in family comes from, "" for one that is built in."""
    return "" if family in BUILT_IN or family not in plugged_in() else distribution_of(plugged_in()[family])


def make_candidate(spec: CandidateSpec) -> Candidate:
    """Return an unfitted candidate of the spec's family."""
    return candidate_class(spec.family)(spec)


def load_candidate(folder: Path, device: str = "cpu") -> Candidate:
    """Return the fitted candidate that its `save` wrote into `folder`.

    Raises:
        CandidateError: if the folder holds no fitted candidate.
        SpecError: if its spec has an unknown key or a wrong value.
    """
    path = folder / SPEC_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CandidateError(f"{folder} holds no fitted candidate: {path.name} cannot be read ({error})") from error
    spec = parse_spec(content, str(path))
    return candidate_class(spec.family).load(folder, device)
