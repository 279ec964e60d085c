"""Find the class of a family, and make new or load saved candidates with it."""

from __future__ import annotations

import json
from pathlib import Path

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.registry.plugins import families, load_family
from esci_tournament.registry.specs import CandidateSpec, parse_spec
from esci_tournament.tasks.families.protocol import Candidate, with_defaults

SPEC_FILE = "spec.json"


def candidate_class(family: str) -> type[Candidate]:
    """Return the class of a family; its module, and so torch, is imported only now.

    Args:
        family: name of an installed family, such as "language_model".

    Returns:
        The class, with the optional attributes of :class:`Candidate` added where it lacks them.

    Raises:
        SpecError: If no such family exists, or it cannot be imported.
    """
    if family not in families():
        raise SpecError(f"family {family!r} is not known; it must be one of {', '.join(families())}")
    return with_defaults(load_family(family))


def make_candidate(spec: CandidateSpec) -> Candidate:
    """Return an unfitted candidate of the spec's family.

    Raises:
        SpecError: if the family is not known or cannot be imported.
    """
    return candidate_class(spec.family)(spec)


def load_candidate(folder: Path, device: str = "cpu") -> Candidate:
    """Return the fitted candidate that its `save` wrote into `folder`.

    Args:
        folder: holds spec.json and the files of the family.
        device: torch device to put it on, such as "cpu" or "cuda:0".

    Returns:
        A candidate that is ready to predict.

    Raises:
        CandidateError: if the folder holds no fitted candidate.
        SpecError: if its spec has an unknown key or a wrong value.
    """
    return class_of(folder).load(folder, device)


def class_of(folder: Path) -> type[Candidate]:
    """Return the class of the fitted candidate in `folder`, from its spec.json alone.

    Args:
        folder: what a candidate's `save` wrote.

    Returns:
        The class of its family.

    Raises:
        CandidateError: if spec.json is missing or is no JSON.
        SpecError: if the spec has an unknown key or a wrong value, or its family is not known.
    """
    path = folder / SPEC_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CandidateError(f"{folder} holds no fitted candidate: {path.name} cannot be read ({error})") from error
    return candidate_class(parse_spec(content, str(path)).family)
