"""The functions of `import esci_tournament as et`: what the command line does, for notebooks and scripts.

Nothing heavy is imported before a function's work begins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from esci_tournament.deployments.champion import ChampionModel
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.specs import CandidateSpec, NamedSpec, parse_spec, read_specs
from esci_tournament.registry.versions import CandidateVersion
from esci_tournament.registry.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from esci_tournament.flows.progress_reporting import Reporter
    from esci_tournament.tasks.report.summary import Summary

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Result:
    """What a tournament came to.

    Attributes:
        summary: Everything that was measured, the document that report page and `--json` are made from.
        report: Path of the report page.
        unchanged: Whether this tournament had been held before and nothing has changed since: nothing was trained.
    """

    summary: Summary
    report: Path
    unchanged: bool = False

    @property
    def promoted(self) -> bool:
        """Whether the challenger became champion."""
        return self.summary.promoted

    @property
    def verdict(self) -> str:
        """`promote`, `refuse` or `not_evaluable`; `summary.verdict` has the reason and every check."""
        return str(self.summary.verdict["outcome"])

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row a model, the ensemble first; see :func:`esci_tournament.tasks.report.leaderboard.leaderboard`."""
        from esci_tournament.tasks.report.leaderboard import leaderboard

        return leaderboard(self.summary)

    def _repr_html_(self) -> str:
        """Show verdict and leaderboard in a notebook."""
        from html import escape

        return f"<p>{escape(str(self.summary.verdict['reason']))}</p>{self.leaderboard.to_html(index=False)}"


def run(
    data: StrPath,
    candidates: StrPath | Sequence[NamedSpec | Mapping[str, Any]] | None = None,
    *,
    home: StrPath | None = None,
    progress: bool = True,
    **settings: object,
) -> Result:
    """Hold one tournament, as `tournament run` does.

    A run that was interrupted continues where it stopped; one with nothing new trains nothing.

    Args:
        data: Folder with the official files of the Shopping Queries Dataset, or where they come from: a URL, `sql`.
        candidates: TOML file with `[[candidate]]` tables, or specs; default: those registered and untried.
        home: Folder of all state; default: the setting `home`, `.tournament` in the current folder.
        progress: Whether the progress of stages is shown on standard error.
        **settings: Further settings, by the names that `tournament doctor` lists.

    Returns:
        The result; a challenger that waits for a reviewer is not promoted yet.

    Raises:
        BusyError: if another tournament runs in the same home.
        TournamentError: whatever else ends a tournament; its subclasses say what.
    """
    from esci_tournament.deployments.local import run_tournament

    if candidates is None:
        specs: list[CandidateSpec] = []
    elif isinstance(candidates, str | os.PathLike):
        specs = read_specs(Path(candidates))
    else:
        specs = [_spec(one) for one in candidates]
    outcome = run_tournament(_settings(home, settings), os.fspath(data), specs, _shown(progress))
    return Result(outcome.summary, outcome.report, outcome.unchanged)


def register(
    candidate: NamedSpec | Mapping[str, Any], *, home: StrPath | None = None, **settings: object
) -> CandidateVersion:
    """Check a candidate's spec and register it, as `tournament register` does.

    Args:
        candidate: Its spec: the keys of a `[[candidate]]` table.
        home: Folder of all state; default: the setting `home`.
        **settings: Further settings.

    Returns:
        Its version in MLflow, the one that it has already when the same spec was registered before.

    Raises:
        SpecError: if the spec is wrong.
        StoreError: if MLflow cannot be reached or written.
    """
    return register_all(Workspace(_settings(home, settings)), [_spec(candidate)])[0]


def register_all(workspace: Workspace, specs: Sequence[CandidateSpec]) -> list[CandidateVersion]:
    """Check all of several specs, then register each, and return their versions; errors as in :func:`register`."""
    from esci_tournament.tasks.candidates.enter import check_spec

    for spec in specs:
        check_spec(spec, workspace.settings)
    return [workspace.models.register_candidate(spec) for spec in specs]


def load_champion(home: StrPath | None = None, *, device: str = "auto", **settings: object) -> ChampionModel:
    """Load the champion of a home, as `tournament score` does.

    Args:
        home: Folder of all state; default: the setting `home`.
        device: auto, cpu, cuda or cuda:N.
        **settings: Further settings, such as `mlflow_uri`.

    Returns:
        The champion; its `predict` takes a frame with the dataset's column names.

    Raises:
        NotFoundError: if there is none.
    """
    from esci_tournament.deployments import champion

    return champion.load_champion(Workspace(_settings(home, settings)), device)


def synthesize(
    folder: StrPath,
    *,
    queries: int = 1200,
    seed: int = 0,
    noise: float = 0.05,
    behaviour: bool | Literal["shuffled"] = True,
) -> Path:
    """Generate a small ESCI-like world, as `tournament data synthesize` does.

    Args:
        folder: Where its files are written, under the official names.
        queries: Judged queries over all locales.
        seed: The same seed gives the same files.
        noise: Share of labels that are wrong, in [0, 1).
        behaviour: Whether to write events of customers; "shuffled": such as say nothing.

    Returns:
        The folder.
    """
    from esci_tournament.tasks.data.synthesize import synthesize as write_world

    return write_world(Path(folder), queries=queries, seed=seed, noise=noise, behaviour=behaviour)


def _settings(home: StrPath | None, settings: Mapping[str, object]) -> Settings:
    return read_settings(home=None if home is None else Path(home), **settings)


def _spec(candidate: NamedSpec | Mapping[str, Any]) -> CandidateSpec:
    content = candidate.model_dump(mode="json") if isinstance(candidate, NamedSpec) else dict(candidate)
    return parse_spec(content, f"candidate {content.get('name', 'without a name')}")


def _shown(progress: bool) -> AbstractContextManager[Reporter]:
    if not progress:
        return nullcontext(lambda name, share, doing: None)
    from rich.console import Console

    from esci_tournament.deployments.cli.progress import bars

    return bars(Console(stderr=True, highlight=False))
