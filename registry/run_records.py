"""What people compare in MLflow: the parameters of every candidate, its numbers in each tournament, curves and log.

All of it is for information; nothing reads it back. Numbers are those on the pairs that the aggregator learns from:
those of the test split are told of a promoted ensemble alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from esci_tournament.registry.models import Models
from esci_tournament.registry.versions import CandidateVersion

_OWN_TAGS = ("tournament.name", "tournament.candidate")  # one of them is on every run that we have made
_LONGEST_LOG = 2**20  # bytes of a log's end


def parameters_of(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the parameters of a spec, nested ones under names with dots.

    Args:
        spec: The spec as JSON holds it.
        prefix: What the names begin with.

    Example:
        >>> dict(parameters_of({"family": "graph_network", "recipe": {"epochs": 3}, "teacher": None}))
        {'family': 'graph_network', 'recipe.epochs': '3'}
    """
    for name, value in spec.items():
        if isinstance(value, Mapping):
            yield from parameters_of(value, f"{prefix}{name}.")
        elif value not in (None, ""):
            yield f"{prefix}{name}", str(value)


def record_outcome(
    models: Models,
    version: CandidateVersion,
    step: int,
    metrics: Mapping[str, float],
    curves: Mapping[str, Sequence[float | None]],
    log: Path | None = None,
) -> None:
    """Log what a tournament found out about a candidate to its run; the same again changes nothing that is seen.

    A run that somebody else has made gets the numbers, and neither parameters nor a log.

    Args:
        models: The model registry.
        version: The candidate; without a run nothing is logged.
        step: Number of the tournament, which is the step of the metrics.
        metrics: Metric -> value.
        curves: Metric -> its value after each epoch, from the first; None where there is none.
        log: File with what its training printed; its end is put beside the weights.

    Raises:
        NotFoundError: If its run was deleted.
        StoreError: If MLflow fails.
    """
    tracking, run_id = models.tracking, version.run_id
    if not run_id:
        return
    with tracking.guard(f"log what a tournament found out about {version.id}", f"the run of {version.id} was deleted"):
        is_ours = any(tag in tracking.client.get_run(run_id).data.tags for tag in _OWN_TAGS)
        tracking.log_metrics(run_id, metrics, step)
        found = {name: {place: value for place, value in enumerate(values, 1) if value is not None}
                 for name, values in curves.items()}  # fmt: skip
        tracking.log_curves(run_id, found)
        if not is_ours:
            return
        if version.spec is not None:
            tracking.log_params(run_id, dict(parameters_of(version.spec.model_dump(mode="json"))))
        if log is not None and log.is_file():
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - _LONGEST_LOG))
                text = file.read().decode("utf-8", "replace")
            if text:
                tracking.client.log_text(run_id, text, "training.log")
