"""The stored report of a tournament: written when it ends, and again when a reviewer decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from esci_tournament.registry.addresses import masked, sqlite_address
from esci_tournament.registry.files import write_atomically
from esci_tournament.registry.versions import EnsembleVersion
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.report import sealing
from esci_tournament.tasks.report.summary import Summary


def reports_folder(workspace: Workspace, tournament: str) -> Path:
    """Return the folder of a tournament's report, made when it is missing."""
    return workspace.folder("tournaments", tournament)


def write_report(workspace: Workspace, summary: Summary, with_figures: bool = True) -> Path:
    """Write summary, page and figures of a tournament.

    Args:
        workspace: The home that the report stands in.
        summary: What the report says.
        with_figures: Whether the figures are drawn, which takes seconds; those that stand and are not drawn again are
            removed.

    Returns:
        The page, `report.html`; `summary.json` and `figures/` stand beside it.
    """
    from esci_tournament.tasks.report.figures import save_all  # they draw, which takes seconds to import
    from esci_tournament.tasks.report.page import render

    folder = reports_folder(workspace, summary.tournament)
    write_atomically(folder / "summary.json", summary.to_json().encode())
    write_atomically(folder / "report.html", render(summary).encode())
    if with_figures:
        figures = folder / "figures"
        drawn = save_all(summary, figures)
        for outdated in set(figures.iterdir()) - set(drawn):
            outdated.unlink()
    return folder / "report.html"


def read_summary(workspace: Workspace, tournament: str, version: EnsembleVersion) -> Summary:
    """Return the summary of a tournament that was held here, or elsewhere and is known from MLflow.

    Args:
        workspace: The home and the model registry.
        tournament: Id of the tournament.
        version: The ensemble version that it built.

    Returns:
        The summary; that of this home when there are both.

    Raises:
        NotFoundError: If neither this home nor MLflow has it.
    """
    here = workspace.settings.home / "tournaments" / tournament / "summary.json"
    if here.is_file():
        return stored_summary(workspace, tournament, registered=True)
    return sealing.read(workspace.models.report(version) / "summary.json", registered=True)


def stored_summary(workspace: Workspace, tournament: str, registered: bool = False) -> Summary:
    """Return the summary of a tournament of this home as it may be told.

    The addresses in it are those of this home, also when the home was moved or copied since.

    Args:
        workspace: The home.
        tournament: Id of a tournament that was finished here.
        registered: Whether its challenger is known to be registered; else the summary says so.

    Returns:
        The summary. Its settings stay those that were in force.
    """
    summary = sealing.read(reports_folder(workspace, tournament) / "summary.json", registered)
    home, former = workspace.settings.home, Path(str(summary.settings.get("home") or workspace.settings.home))
    if former == home:
        return summary
    moved = {masked(sqlite_address(former / name)): sqlite_address(home / name) for name in ("mlflow.db", "ledger.db")}
    docs = Path(summary.data_docs)
    return replace(
        summary,
        links={title: masked(moved.get(address, address)) for title, address in summary.links.items()},
        data_docs=str(home / docs.relative_to(former)) if docs.is_relative_to(former) else summary.data_docs,
    )


def log_report(workspace: Workspace, tournament: str, with_figures: bool = False) -> None:
    """Log page, summary and perhaps figures of a tournament to its ensemble's run in MLflow, as they stand now."""
    folder = reports_folder(workspace, tournament)
    names = ["report.html", "summary.json", *(["figures"] if with_figures else [])]
    workspace.models.log_report(tournament, [folder / name for name in names])
