"""ESCI tournament: keeps an ensemble of product-search relevance models at the state of the art.

The names that this package exports are its public interface; docs/python.md shows how to use them. Everything in the
sub-packages is private and may change, except for the protocol of plugged-in families (docs/candidates.md).

    import esci_tournament as et

    world = et.synthesize("world")
    result = et.run(world, "candidates.toml", home="home")
    result.leaderboard
    et.load_champion("home").predict(frame)

Names are imported when they are first used, so that importing the package, as every command does, is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esci_tournament.deployments.api import Result, load_champion, register, run, synthesize
    from esci_tournament.deployments.champion import ChampionModel
    from esci_tournament.registry.errors import (
        BudgetError,
        BusyError,
        CandidateError,
        DataError,
        NotFoundError,
        SpecError,
        StoreError,
        TournamentError,
        UsageError,
    )
    from esci_tournament.registry.specs import NamedSpec, read_specs
    from esci_tournament.registry.versions import CandidateVersion
    from esci_tournament.tasks.report.summary import Metrics, ModelSummary, Summary

    __version__: str

_MODULES = {
    "deployments.api": ("Result", "load_champion", "register", "run", "synthesize"),
    "deployments.champion": ("ChampionModel",),
    "registry.errors": (
        *("BudgetError", "BusyError", "CandidateError", "DataError", "NotFoundError", "SpecError", "StoreError"),
        *("TournamentError", "UsageError"),
    ),
    "registry.specs": ("NamedSpec", "read_specs"),
    "registry.versions": ("CandidateVersion",),
    "tasks.report.summary": ("Metrics", "ModelSummary", "Summary"),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}

__all__ = [
    "BudgetError",
    "BusyError",
    "CandidateError",
    "CandidateVersion",
    "ChampionModel",
    "DataError",
    "Metrics",
    "ModelSummary",
    "NamedSpec",
    "NotFoundError",
    "Result",
    "SpecError",
    "StoreError",
    "Summary",
    "TournamentError",
    "UsageError",
    "__version__",
    "load_champion",
    "read_specs",
    "register",
    "run",
    "synthesize",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("esci-tournament")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
