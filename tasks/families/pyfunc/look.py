"""What the files of a pyfunc say of it before anything of it is executed: whether it can answer with four classes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.foreign import below, read_json_file, shown
from esci_tournament.registry.labels import CLASSES, LABELS, classes_in
from esci_tournament.registry.pyfuncs import check_pyfunc, flavors_of
from esci_tournament.registry.registered import SCHEME, fetch_file
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.families.pyfunc.spec import PyfuncSpec

TASK = "text-classification"


def check_model(spec: PyfuncSpec, settings: Settings) -> None:
    """Refuse a model that cannot compete, by its `MLmodel` and, of a text classifier, by its labels.

    Args:
        spec: The candidate; its source has been allowed.
        settings: MLflow's address is used.

    Raises:
        SpecError: If there is no such model, or it cannot answer; the message says what it would need.
        StoreError: If MLflow does not answer.
    """
    if not spec.model.startswith(SCHEME):
        folder = Path(spec.model).expanduser()
        if not folder.is_dir():
            raise SpecError(
                f"model {spec.model} is no folder; name the folder of an MLflow model, or models:/NAME/VERSION"
            )
        _check(spec, folder, lambda name: folder / name)
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)

        def fetched(name: str) -> Path:
            return fetch_file(spec.model, name, place, settings.tracking_uri)

        fetched("MLmodel")
        _check(spec, place, fetched)


def _check(spec: PyfuncSpec, folder: Path, fetched: Callable[[str], Path]) -> None:
    check_pyfunc(folder)
    flavor = flavors_of(folder).get("transformers")
    if not isinstance(flavor, dict):
        return
    task, binary = flavor.get("task"), str(flavor.get("model_binary") or "model")
    if task != TASK:
        raise SpecError(
            f"pyfunc {spec.name}: {spec.model} is a transformers pipeline for {shown(task)}; needed is one for {TASK} "
            f'with the labels {", ".join(LABELS)}. An encoder can be fine-tuned here: family = "language_model"'
        )
    try:
        below(folder, binary)  # it is a name that somebody else wrote
        config = read_json_file(fetched(f"{binary}/config.json"))
    except (OSError, ValueError, SpecError) as error:
        source = flavor.get("source_model_name")
        hint = f" (it was logged as a reference to {shown(source)}, without weights)" if source else ""
        raise SpecError(f"pyfunc {spec.name}: {spec.model} has no {binary}/config.json{hint}") from error
    complaint = complaint_of_labels(config, spec.order)
    if complaint:
        raise SpecError(f"pyfunc {spec.name}: {spec.model} {complaint}")


def complaint_of_labels(config: Any, declared: str = "") -> str:
    """Return why the labels of a text classifier are not the four classes.

    Args:
        config: Content of its config.json.
        declared: Order of the classes that the spec declares, "" for none.

    Returns:
        The reason; "" when they are, or are declared to be.

    Example:
        >>> complaint_of_labels({"id2label": {"0": "exact", "1": "substitute", "2": "complement", "3": "irrelevant"}})
        ''
        >>> complaint_of_labels({"id2label": {"0": "no", "1": "yes"}})
        "has the labels 'no', 'yes'; needed is one label a class, named E, S, C and I or in words"
    """
    labels = config.get("id2label") if isinstance(config, dict) else None
    named = list(labels.values()) if isinstance(labels, dict) else [f"LABEL_{number}" for number in range(2)]
    if isinstance(config, dict) and config.get("problem_type") == "multi_label_classification":
        return "gives several labels at once (problem_type is multi_label_classification); needed is one a pair"
    if len(named) == CLASSES and (declared or classes_in(named) is not None):
        return ""
    has = f"has the labels {', '.join(map(shown, named[:6]))}"
    if len(named) == CLASSES:
        return (
            f"{has}, which name no classes; log it with id2label, or declare the order in the spec, such as "
            'classes = ["E", "S", "C", "I"]'
        )
    return f"{has}; needed is one label a class, named {', '.join(LABELS[:3])} and {LABELS[3]} or in words"
