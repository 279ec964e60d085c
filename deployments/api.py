"""The functions of `import esci_tournament as et`: what the command line does, for notebooks and scripts.

Heavy packages (torch, prefect, mlflow) are imported inside the functions, so that importing this module is fast.
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
from esci_tournament.registry.specs import CandidateSpec, NamedSpec, parse_spec, parse_specs, read_specs
from esci_tournament.registry.versions import CandidateVersion
from esci_tournament.registry.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    import shap
    from matplotlib.axes import Axes

    from esci_tournament.flows.progress_reporting import Reporter
    from esci_tournament.tasks.report.summary import Summary

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Result:
    """The outcome of a tournament. In a notebook it is shown as the verdict and the leaderboard.

    Attributes:
        summary: Everything that was measured; the report page and the output of `--json` are made from it.
        report: Path of the report page, an HTML file below the home.
        unchanged: Whether the same tournament was held before and nothing has changed since; nothing was trained then.
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
        """The verdict on the challenger: `promote`, `refuse` or `not_evaluable`.

        `summary.verdict` has the reason and every check.
        """
        return str(self.summary.verdict["outcome"])

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row a model: the ensemble first, then its members by utility, then the other candidates.

        Text columns: model, version, family, status and reason. All others are float64, NaN where a figure was not
        measured: the metrics of the test split and the utilities (shares, 0 to 1), memory_mib (MiB), page_ms (median
        milliseconds for a page of 40 pairs), parameters and fit_seconds. Every column is described at
        :func:`esci_tournament.tasks.report.leaderboard.leaderboard`.
        """
        from esci_tournament.tasks.report.leaderboard import leaderboard

        return leaderboard(self.summary)

    @property
    def explanation(self) -> shap.Explanation | None:
        """What each member adds to each class's raw score, on 200 of the pairs that the aggregator learns from.

        `values` (n, k, 4), `base_values` (n, 4), `data` (n, k, 4), the members' own probabilities, to four decimals;
        `shap.plots.beeswarm(result.explanation[:, :, "Exact"])` draws one class. None for a tournament of an earlier
        release.
        """
        from esci_tournament.tasks.ensemble.explanation import from_json

        return from_json(self.summary.contributions) if self.summary.contributions else None

    def plot(self, metric: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw one metric of the ensemble, of the champion that it met and of every model alone.

        Args:
            metric: "accuracy", "macro_f1", "weighted_f1" or the one that the tournament was decided on; default: that.
            ax: Where to draw; default: a new figure, which a notebook shows.

        Returns:
            The axes, one row a model. The ensemble has its 95 % interval; a hollow dot is a model that was measured on
            the pairs that the aggregator learns from, because its test numbers are sealed.

        Raises:
            UsageError: if no such metric was measured.
        """
        from esci_tournament.tasks.report.plots import plot_metric

        return plot_metric(self.summary, metric, ax)

    def plot_worth(self, ax: Axes | None = None) -> Axes:
        """Draw what each member is worth: its share of the ensemble's SHAP values, with its interval over re-fits.

        Args:
            ax: Where to draw; default: a new figure, which a notebook shows.

        Returns:
            The axes, in per cent, one row a member, the one of most worth first.

        Raises:
            NotFoundError: if there are no members.
        """
        from esci_tournament.tasks.report.plots import plot_worth

        return plot_worth(self.summary, ax)

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

    The data is validated, every new candidate is trained and scored, members are chosen within the budget, and the
    challenger is tested against the champion. A run that was interrupted continues where it stopped. A run with nothing
    new trains nothing.

    Args:
        data: Folder with the official files of the Shopping Queries Dataset, or where they come from: the URL of an
            archive or of a folder, or "sql" for the database that the settings name.
        candidates: TOML file with `[[candidate]]` tables, or the specs themselves: :class:`NamedSpec` objects, or
            mappings with the keys of such a table. None or an empty sequence: the candidates that are registered and
            have not been tried.
        home: Folder of all state; default: the setting `home`, which is `.tournament` in the current folder unless it
            is set.
        progress: Whether the progress of stages is shown on standard error.
        **settings: Further settings, by the names that `tournament doctor --all` lists, such as `seed`.

    Returns:
        The result. A challenger that waits for a reviewer is not promoted yet.

    Raises:
        UsageError: if a setting has an unknown name or a wrong value.
        SpecError: if the candidates file or a spec is wrong.
        DataError: if the data cannot be used.
        BudgetError: if not even a single member fits the budget.
        BusyError: if another tournament runs in the same home.
        TournamentError: for every other failure; all of the above are subclasses of it.

    Example:
        With a data set and a candidates file at hand::

            result = et.run("esci/", "candidates.toml", home="home", budget_latency_ms=50)
            print(result.verdict, result.report)
    """
    from esci_tournament.deployments.local import run_tournament

    if candidates is None:
        specs: list[CandidateSpec] = []
    elif isinstance(candidates, str | os.PathLike):
        specs = read_specs(Path(candidates))
    else:
        specs = parse_specs([_content(one) for one in candidates])
    outcome = run_tournament(_settings(home, settings), os.fspath(data), specs, _shown(progress))
    return Result(outcome.summary, outcome.report, outcome.unchanged)


def register(
    candidate: NamedSpec | Mapping[str, Any], *, home: StrPath | None = None, **settings: object
) -> CandidateVersion:
    """Check a candidate's spec and register it, as `tournament register` does.

    Args:
        candidate: Its spec: a :class:`NamedSpec`, or a mapping with the keys of a `[[candidate]]` table.
        home: Folder of all state; default: the setting `home`.
        **settings: Further settings, by the names that `tournament doctor --all` lists.

    Returns:
        Its version in MLflow. A spec that was registered before keeps its version.

    Raises:
        UsageError: if a setting has an unknown name or a wrong value.
        SpecError: if the spec is wrong, or the settings do not allow it.
        StoreError: if MLflow cannot be reached or written.

    Example:
        A graph network on the edges of clicks::

            spec = {"name": "clicks", "family": "graph_network", "architecture": "graphsage", "relation": "clicks"}
            version = et.register(spec, home="home")
    """
    return register_all(Workspace(_settings(home, settings)), [_spec(candidate)])[0]


def register_all(
    workspace: Workspace, specs: Sequence[CandidateSpec], *, checked: bool = False
) -> list[CandidateVersion]:
    """Check all specs, then register them one by one; nothing is registered when one of them is wrong.

    Args:
        workspace: Where they are registered; its settings say what is allowed.
        specs: The candidates' specs.
        checked: Whether they have been checked already.

    Returns:
        One version for each spec, in the same order. A spec that was registered before keeps its version, and competes
        again if it was withdrawn.

    Raises:
        SpecError: if a spec is wrong, or the settings do not allow it.
        StoreError: if MLflow cannot be reached or written.
    """
    from esci_tournament.registry.withdrawals import reinstate
    from esci_tournament.tasks.candidates.enter import check_specs

    check_specs([] if checked else specs, workspace.settings)
    versions = [workspace.roll.register(spec).version for spec in specs]
    for one in versions:
        reinstate(workspace.ledger, one.id, "registered again")
    return versions


def register_version(workspace: Workspace, address: str, content: Mapping[str, Any]) -> CandidateVersion:
    """Make a registered version a candidate: write its tag `tournament.spec`.

    Args:
        workspace: Where it stands; its settings say what is allowed.
        address: `models:/NAME/VERSION`, `models:/NAME@ALIAS` or `models:/NAME/latest`; the version it names now counts.
        content: Keys of its spec. Default of `family`: the first one that takes such a version. A Hugging Face
            checkpoint is fine-tuned; everything else takes part as it is, as a pyfunc.

    Returns:
        The candidate.

    Raises:
        SpecError: if there is no such version, its spec is wrong or not allowed, or it is on record with another one.
        StoreError: if MLflow cannot be reached or written.
    """
    from esci_tournament.registry.errors import SpecError
    from esci_tournament.registry.plugins import families
    from esci_tournament.registry.registered import version_of
    from esci_tournament.registry.withdrawals import reinstate
    from esci_tournament.tasks.candidates.enter import check_spec
    from esci_tournament.tasks.families.loading import candidate_class

    name, version = version_of(address, workspace.settings.tracking_uri)
    pinned = f"models:/{name}/{version}"
    known: dict[str, Any] = {}
    for family in [content["family"]] if "family" in content else families():
        keys = candidate_class(str(family)).keys_of_version(pinned, workspace.settings)
        if keys is not None:
            known = {"family": family} | keys
            break
    spec = parse_spec({**known, **content, "name": name}, pinned)
    check_spec(spec, workspace.settings)
    before = workspace.roll.seen(workspace.models.candidate(f"{name}/{version}"))
    if before.recorded and before.version.digest != spec.digest():
        raise SpecError(f"{before.id} is on record with another spec, and that counts; register a new version")
    entered = workspace.models.enter_version(version, spec)
    reinstate(workspace.ledger, entered.id, "registered again")
    return entered


def load_champion(home: StrPath | None = None, *, device: str = "auto", **settings: object) -> ChampionModel:
    """Load the champion of a home into this process, as `tournament score` does.

    Args:
        home: Folder of all state; default: the setting `home`.
        device: Where its members compute: "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N".
        **settings: Further settings, by the names that `tournament doctor --all` lists, such as `mlflow_uri`.

    Returns:
        The champion; its `predict` takes a frame with the dataset's column names.

    Raises:
        NotFoundError: if there is no champion yet, or MLflow has no files of it.
        StoreError: if MLflow cannot be reached.
        UsageError: if the machine has no such device, or a setting is wrong.

    Example:
        The frame has one row a pair::

            frame = pd.DataFrame({"query": ["red lamp"], "product_locale": ["us"], "product_title": ["Velo red lamp"]})
            labels = et.load_champion("home").predict(frame)["label"]
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
    """Generate a small data set like ESCI, as `tournament data synthesize` does.

    Args:
        folder: Where its parquet files are written, under the official names; it is made if missing.
        queries: Number of judged queries over all locales, 12 to 20,000, with 8 to 16 products each.
        seed: The same seed gives the same files, byte for byte.
        noise: Share of labels that are replaced by a wrong one, in [0, 1).
        behaviour: Whether to write customers' events too. "shuffled" writes events whose products are permuted, so
            that they hold no information about relevance.

    Returns:
        The folder.

    Raises:
        UsageError: if a number is out of its range.
        StoreError: if the folder or a file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     world = synthesize(folder, queries=12, behaviour=False)
        ...     sorted(path.name for path in world.glob("shopping*"))
        ['shopping_queries_dataset_examples.parquet', 'shopping_queries_dataset_products.parquet']
    """
    from esci_tournament.tasks.data.synthesize import synthesize as write_world

    return write_world(Path(folder), queries=queries, seed=seed, noise=noise, behaviour=behaviour)


def _settings(home: StrPath | None, settings: Mapping[str, object]) -> Settings:
    return read_settings(home=None if home is None else Path(home), **settings)


def _content(candidate: NamedSpec | Mapping[str, Any]) -> dict[str, Any]:
    return candidate.model_dump(mode="json") if isinstance(candidate, NamedSpec) else dict(candidate)


def _spec(candidate: NamedSpec | Mapping[str, Any]) -> CandidateSpec:
    content = _content(candidate)
    return parse_spec(content, f"candidate {content.get('name', 'without a name')}")


def _shown(progress: bool) -> AbstractContextManager[Reporter]:
    if not progress:
        return nullcontext(lambda name, share, doing: None)
    from rich.console import Console

    from esci_tournament.deployments.cli.progress import bars

    return bars(Console(stderr=True, highlight=False))
