"""Metrics and selection rules: the names that are built in, and functions that distributions add by entry points."""

from __future__ import annotations

from typing import Any

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.plugins import installed, release_of

METRICS = "esci_tournament.metrics"
SELECTION_RULES = "esci_tournament.selection_rules"
BUILT_IN = {
    METRICS: ("macro_f1", "weighted_f1", "accuracy"),
    SELECTION_RULES: ("shap", "top_k", "exhaustive", "greedy"),
}
PRIMARY, LOG_LOSS = "primary", "log_loss"
GAINS = (PRIMARY, LOG_LOSS)  # what a challenger may gain on: the primary metric, or the probabilities as such
_WORDS = {METRICS: "metric", SELECTION_RULES: "selection rule"}


def check_name(group: str, name: str) -> str:
    """Return `name` if something of that name is built in or installed; nothing is imported.

    Args:
        group: `METRICS` or `SELECTION_RULES`.
        name: What a setting asks for.

    Returns:
        `name`, so that this can be a pydantic validator.

    Raises:
        ValueError: If there is none, as pydantic's validators need it; the message lists what there is.

    Example:
        >>> check_name(METRICS, "macro_f1")
        'macro_f1'
    """
    if name not in BUILT_IN[group] and name not in installed(group):
        raise ValueError(f"there is no {_WORDS[group]} {name!r}; choose one of {_known(group)}")
    return name


def check_gain(name: str) -> str:
    """Return `name` if a challenger may gain on it: "primary", "log_loss" or a built-in metric.

    Args:
        name: What a setting asks for.

    Returns:
        `name`, so that this can be a pydantic validator.

    Raises:
        ValueError: If there is no such metric, as pydantic's validators need it; the message lists what there is.
    """
    if name not in (known := (*GAINS, *BUILT_IN[METRICS])):
        raise ValueError(f"nothing can be gained on {name!r}; choose of {', '.join(known)}")
    return name


def load_function(group: str, name: str) -> Any:
    """Return the function of a metric or rule that another distribution offers.

    Args:
        group: `METRICS` or `SELECTION_RULES`.
        name: Name of the entry point; one that is built in is not found here.

    Returns:
        The function; docs/extending.md shows what it is called with.

    Raises:
        UsageError: If there is none, or it cannot be imported or is no function; the message names the distribution.
    """
    point = installed(group).get(name)
    if point is None:
        raise UsageError(f"{_WORDS[group]} {name!r} is unknown; choose one of {_known(group)}")
    origin = f"{_WORDS[group]} {name!r}, plugged in by {release_of(group, name)} as {point.value}"
    try:
        found = point.load()
    except Exception as error:  # whatever a plug-in's module raises while it is imported
        raise UsageError(f"{origin}: cannot be imported ({type(error).__name__}: {error}); install it again") from error
    if not callable(found):
        raise UsageError(f"{origin}: it is no function; docs/extending.md shows one")
    return found


def _known(group: str) -> str:
    return ", ".join([*BUILT_IN[group], *installed(group)])
