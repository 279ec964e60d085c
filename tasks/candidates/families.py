"""Which class makes, and opens again, the models of a family."""

from __future__ import annotations

import json
from pathlib import Path

from registry.errors import CandidateError, SpecError
from registry.specs import CandidateSpec, parse_spec
from tasks.candidates.protocol import Candidate

SPEC_FILE = "spec.json"


def candidate_class(family: str) -> type[Candidate]:
    """Return the class of a family; its module, and so torch, is imported only now.

    Raises:
        SpecError: if no such family exists.
    """
    if family == "language_model":
        from tasks.candidates.language_model import LanguageModel

        return LanguageModel
    if family == "graph_network":
        from tasks.candidates.graph_network import GraphNetwork

        return GraphNetwork
    raise SpecError(f"family {family!r} is not known; it must be language_model or graph_network")


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
