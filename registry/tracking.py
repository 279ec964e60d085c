"""The connection to MLflow: client, experiments, runs, versions, a lock for writers, and errors as our own classes."""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlparse

import yaml
from filelock import FileLock, Timeout

from esci_tournament.registry.addresses import sqlite_file
from esci_tournament.registry.answers import Answers
from esci_tournament.registry.errors import (
    BusyError,
    IntegrityError,
    NotFoundError,
    StoreError,
    TournamentError,
)
from esci_tournament.registry.files import is_disk_full, sync
from esci_tournament.registry.foreign import DEEPEST
from esci_tournament.registry.manifests import text_of
from esci_tournament.registry.relocation import ARTIFACTS, local_path, location, settle
from esci_tournament.registry.versions import Version

if TYPE_CHECKING:  # importing it takes a second, and most commands ask it nothing
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

# MLflow reads these when it is imported: they keep standard output free and switch telemetry off.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}.items():
    os.environ.setdefault(_name, _value)

Read = TypeVar("Read")

WAIT_SECONDS = 120.0
_NAMED = "the setting mlflow_uri, or the variable MLFLOW_TRACKING_URI where that is not set"
_LONGEST_MLMODEL = 256 * 2**10  # bytes; that of an ensemble has less than one KiB, a signature takes a few
_MOST_METRICS, _MOST_PARAMS = 1000, 100  # of one request, by MLflow's limits
_LONGEST_PARAM = 6000
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class Tracking:
    """MLflow at one address, with a folder for locks and, when MLflow is a database, for artifacts.

    Args:
        uri: MLflow's tracking and registry URI; a database URL or an http(s) server.
        home: The folder of the locks and artifacts.
        remembers: Whether what a SQLite database answered is taken from the home while its file has not changed: for
            commands that show what is there, and neither decide nor write by it.
    """

    def __init__(self, uri: str, home: Path, remembers: bool = False) -> None:
        self.uri = uri
        self.home = Path(home).resolve()
        self._experiments: dict[str, str] = {}
        file = sqlite_file(uri) if remembers else None
        self._answers = Answers(self.home, file) if file else None
        self.when_opened: Callable[[], object] | None = None  # called once, after the first question that needed MLflow

    @property
    def remembers(self) -> bool:
        """Whether answers are taken from the home while MLflow's database has not changed."""
        return self._answers is not None

    @cached_property
    def client(self) -> MlflowClient:
        """The client, its database created when missing, and put right when its home was moved or copied.

        Raises:
            StoreError: If MLflow cannot be opened.
            BusyError: If another process writes to the registry of this home for longer than `WAIT_SECONDS`.
        """
        from mlflow.tracking import MlflowClient

        with self.lock("create"):  # two first migrations of one database at once break each other
            if (file := sqlite_file(self.uri)) is not None:
                settle(file, self.home)
            try:
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                quieten()
                client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                with _few_retries():
                    client.search_registered_models(max_results=1)
            except Exception as error:  # MLflow lets errors of SQLAlchemy, alembic and requests through as they are
                said = _first_line(error)
                raise StoreError(f"MLflow at {self.uri} cannot be opened: {said}; check {_NAMED}") from error
            finally:
                quieten()  # a migration sets the levels of alembic's logger itself
        return client

    # Runs

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, made when it is missing.

        Args:
            name: Name of the experiment.

        Returns:
            MLflow's id; artifacts of a new one stand below `home`, or with the server when MLflow is one.
        """
        if name not in self._experiments:
            known = self.client.get_experiment_by_name(name)
            if known is None:
                is_server = urlparse(self.uri).scheme in ("http", "https")
                place = None if is_server else location(self.home / ARTIFACTS / name)
                self._experiments[name] = self.client.create_experiment(name, artifact_location=place)
            else:
                self._experiments[name] = known.experiment_id
        return self._experiments[name]

    def run_with(self, experiment: str, name: str, tags: dict[str, str]) -> Run:
        """Return the run with these tags, made when missing: a killed registration finds its own again.

        Args:
            experiment: Name of the experiment, made when missing.
            name: Name of a new run.
            tags: Tags that the run must have, and that a new run gets.

        Returns:
            The oldest such run.
        """
        same = " and ".join(f"tags.`{key}` = {_quoted(value)}" for key, value in tags.items())
        place = self.experiment(experiment)
        found = self.client.search_runs([place], same, max_results=1, order_by=["attributes.start_time ASC"])
        return found[0] if found else self.client.create_run(place, run_name=name, tags=tags)

    def sync_artifacts(self, run_id: str, place: str) -> None:
        """Have the disk keep artifacts before the registry names them, where they lie in a folder of this machine.

        An MLflow server keeps its own.

        Args:
            run_id: The run that they were logged to.
            place: Their folder below its artifacts.
        """
        local = local_path(self.client.get_run(run_id).info.artifact_uri)
        if local is not None and (local / place).exists():
            sync(local / place)

    def metrics(self, experiment: str) -> dict[str, dict[str, float]]:
        """Return the metrics of every run of an experiment: id of the run -> metric -> last value."""
        return self._asked(["metrics", experiment], lambda: self._metrics(experiment))

    def _metrics(self, experiment: str) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        token = None
        while True:
            page = self.client.search_runs([self.experiment(experiment)], max_results=1000, page_token=token)
            found |= {run.info.run_id: run.data.metrics for run in page}
            token = page.token
            if not token:
                return found

    def metrics_of(self, run_id: str) -> dict[str, float]:
        """Return the metrics of one run; {} for no run (""), or one that was deleted."""
        if not run_id:
            return {}
        return self._asked(
            ["metrics of", run_id],
            lambda: _unless_deleted(lambda: dict(self.client.get_run(run_id).data.metrics), {}),
        )

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics to a run, at a step and the current moment."""
        self.log_curves(run_id, {key: {step: value} for key, value in metrics.items()})

    def log_curves(self, run_id: str, curves: Mapping[str, Mapping[int, float]]) -> None:
        """Log metrics that have a value at several steps.

        Args:
            run_id: The run.
            curves: Metric -> step -> value; what is not finite is left out.
        """
        from mlflow.entities import Metric

        now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
        rows = [
            Metric(key, float(value), now, step)
            for key, points in curves.items()
            for step, value in points.items()
            if math.isfinite(value)
        ]
        for start in range(0, len(rows), _MOST_METRICS):
            self.client.log_batch(run_id, metrics=rows[start : start + _MOST_METRICS])

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log those parameters to a run that it does not have; one that it has cannot change."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        rows = [Param(key, value[:_LONGEST_PARAM]) for key, value in params.items() if key not in known]
        for start in range(0, len(rows), _MOST_PARAMS):
            self.client.log_batch(run_id, params=rows[start : start + _MOST_PARAMS])

    # Versions

    def _asked(self, question: list[str], ask: Callable[[], Read]) -> Read:
        """Return what MLflow answers, or what it answered when its database was what it is now; JSON-able content."""
        if self._answers is None:
            return ask()
        answer = cast(Read, self._answers.recall(question, ask))
        if self.when_opened and "client" in vars(self):
            look, self.when_opened = self.when_opened, None
            look()
        return answer

    def version(self, name: str, number: str) -> Version:
        """Return a model version.

        Raises:
            MlflowException: If there is none, or MLflow fails; callers stand inside :meth:`guard`.
        """
        return Version(
            **self._asked(
                ["version", name, number], lambda: asdict(Version.of(self.client.get_model_version(name, number)))
            )
        )

    def versions(self, condition: str) -> list[Version]:
        """Return what :meth:`search` returns, of each version what :class:`Version` has."""
        found = self._asked(
            ["versions", condition], lambda: [asdict(Version.of(one)) for one in self.search(condition)]
        )
        return [Version(**one) for one in found]

    def search(self, condition: str) -> list[ModelVersion]:
        """Return all model versions that meet a condition in MLflow's filter language, such as `name = 'minilm'`."""
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self.client.search_model_versions(condition, max_results=10_000, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def search_pages(self, condition: str, size: int, order: list[str]) -> tuple[list[ModelVersion], str | None, int]:
        """Return all model versions that meet a condition, and where the last page begins.

        Args:
            condition: In MLflow's filter language.
            size: Versions of a page.
            order: Columns to order by.

        Returns:
            The versions; the token of the last page, None when it is the first; how many versions stand before it.
        """
        found: list[ModelVersion] = []
        token = None
        while True:
            page = self.client.search_model_versions(condition, size, order, token)
            before = len(found)
            found.extend(page)
            if not page.token:
                return found, token, before
            token = page.token

    def search_some(
        self, condition: str, most: int, order: list[str] | None = None, token: str | None = None
    ) -> list[ModelVersion]:
        """Return the first model versions that meet a condition.

        Args:
            condition: In MLflow's filter language.
            most: How many at most.
            order: Columns to order by, such as `creation_timestamp DESC`; default: MLflow's own order.
            token: Page token to go on from; default: from the beginning.

        Returns:
            The versions of one page.
        """
        return list(self.client.search_model_versions(condition, most, order, token))

    def create_version(
        self,
        name: str,
        run: Run,
        folder: str,
        tags: Mapping[str, str],
        description: str = "",
        taken: Collection[int] = (),
    ) -> ModelVersion:
        """Register the artifact folder of a run as the next version of a registered model, and end the run.

        Args:
            name: The registered model, made when missing.
            run: The run that holds the artifacts.
            folder: Path of the folder among its artifacts.
            tags: Tags of the version.
            description: Description of the version.
            taken: Numbers that it must not get; versions that get one are deleted again.

        Returns:
            The new version.

        Raises:
            MlflowException: If MLflow refuses or fails; callers stand inside :meth:`guard`.
        """
        try:
            self.client.create_registered_model(name)
        except Exception as error:
            if not _is_of_mlflow(error) or _code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{run.info.artifact_uri.rstrip('/')}/{folder}"
        words = {key: str(value) for key, value in tags.items()}
        passed = []
        while True:
            version = self.client.create_model_version(
                name, source, run.info.run_id, words, description=description or None
            )
            if int(version.version) not in taken:
                break
            passed.append(str(version.version))
        for number in passed:  # only now: MLflow counts from the highest number that there is
            self.client.delete_model_version(name, number)
        self.client.set_terminated(run.info.run_id)
        return version

    def aliased(self, name: str, alias: str) -> Version | None:
        """Return the version of `name` under an alias, or None."""

        def ask() -> dict[str, Any] | None:
            found = _unless_deleted(lambda: self.client.get_model_version_by_alias(name, alias), None)
            return asdict(Version.of(found)) if found else None

        found = self._asked(["aliased", name, alias], ask)
        return Version(**found) if found else None

    def users(self, name: str, version: int, run_id: str) -> list[str]:
        """Return who made a version: by the version itself, by its run and by its logged model, where each says."""
        return self._asked(["users", name, str(version), run_id], lambda: self._users(name, version, run_id))

    def _users(self, name: str, version: int, run_id: str) -> list[str]:
        known = self.client.get_model_version(name, str(version))
        found = [getattr(known, "user_id", None) or ""]
        model_id = (known.source or "").removeprefix("models:/")
        if run_id:
            found.append(_unless_deleted(lambda: self.client.get_run(run_id).data.tags.get("mlflow.user", ""), ""))
        if model_id.startswith("m-"):
            found.append(
                _unless_deleted(lambda: self.client.get_logged_model(model_id).tags.get("mlflow.user", ""), "")
            )
        return [name for name in found if name]

    def addresses(self, ui: str, name: str, version: int, run_id: str) -> dict[str, str]:
        """Return where MLflow's UI shows a version, its run and its report.

        Args:
            ui: Address of the UI; anything but http(s) counts as none.
            name: The registered model.
            version: Its version.
            run_id: Run of the version, "" for none.

        Returns:
            Title -> web address; without a UI, `MLflow version` alone, as `models:/NAME/VERSION`.
        """
        if not is_web(ui):
            return {"MLflow version": f"models:/{name}/{version}"}
        found = {"MLflow version": f"{ui.rstrip('/')}/#/models/{name}/versions/{version}"}
        experiment = self._experiment_of(run_id)
        return found | (run_addresses(ui, experiment, run_id) if experiment else {})

    def _experiment_of(self, run_id: str) -> str:
        """Return the experiment of a run, "" without a run or when it was deleted."""
        if not run_id:
            return ""
        return self._asked(
            ["experiment of", run_id],
            lambda: _unless_deleted(lambda: str(self.client.get_run(run_id).info.experiment_id), ""),
        )

    # Files

    def artifacts_of(self, run_id: str) -> str:
        """Return where the artifacts of a run lie, as MLflow keeps places."""
        return self._asked(["artifacts of", run_id], lambda: str(self.client.get_run(run_id).info.artifact_uri))

    def fetch(self, run_id: str, place: str, destination: Path | None) -> Path | None:
        """Return a local folder with an artifact folder's content.

        Args:
            run_id: The run that has the artifacts.
            place: Path of the folder among them.
            destination: Folder to copy to; without one, artifacts that lie on this machine are not copied.

        Returns:
            The folder, None when there is no such artifact folder.
        """
        local = local_path(self.artifacts_of(run_id))
        if local is not None:
            source = local / place
            if not source.is_dir():
                return None
            if destination is None:
                return source
            # A link is copied as a link, never what it leads to: whoever compares the copy finds it
            return Path(shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True))
        if not self.client.list_artifacts(run_id, place):
            return None
        if destination is None:
            return Path(self.client.download_artifacts(run_id, place))
        destination.mkdir(parents=True, exist_ok=True)
        fetched = Path(self.client.download_artifacts(run_id, place, str(destination)))
        return Path(shutil.copytree(fetched, destination, symlinks=True, dirs_exist_ok=True))

    def upload(self, run_id: str, folder: Path, place: str) -> None:
        """Copy the files of a folder among the artifacts of a run.

        Args:
            run_id: The run.
            folder: What is copied.
            place: Path of the folder among the artifacts.
        """
        self.client.log_artifacts(run_id, str(folder), place)

    # Guards

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the writers' lock `name` of this home; it ends with its process.

        Args:
            name: Which lock.

        Yields:
            Nothing; the lock is held until the block ends.

        Raises:
            BusyError: If another process holds it for longer than `WAIT_SECONDS`.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.home / f".mlflow-{name}.lock")
        try:
            lock.acquire(timeout=WAIT_SECONDS, poll_interval=0.02)
        except Timeout:
            complaint = f"another process has been writing to the model registry of {self.home} for {WAIT_SECONDS:g} s"
            raise BusyError(f"{complaint}; end it or wait") from None
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def guard(self, doing: str, missing: str | None = None) -> Iterator[None]:
        """Turn MLflow's errors and OSErrors inside the block into ours.

        Args:
            doing: What is done, as the message begins.
            missing: Message for when the thing asked for does not exist; without one, that is a StoreError too.

        Yields:
            Nothing.

        Raises:
            TournamentError: If the block raised one; it passes as it is.
            NotFoundError: If `missing` is given and MLflow says that the thing does not exist.
            StoreError: If anything else fails in MLflow, or the disk is full.
        """
        try:
            yield
        except TournamentError:
            raise
        except Exception as error:
            if not isinstance(error, OSError) and not _is_of_mlflow(error):
                raise
            if missing and _code(error) in _MISSING:
                raise NotFoundError(missing) from error
            if is_disk_full(error):
                raise StoreError(f"{doing}: the disk is full; make room and run the same command again") from error
            raise StoreError(f"{doing}: MLflow at {self.uri} failed: {_first_line(error)}") from error


def is_web(ui: str) -> bool:
    """Tell whether an address of MLflow's UI, or of MLflow, is one that a browser opens."""
    return urlparse(ui).scheme in ("http", "https")


def run_addresses(ui: str, experiment: str, run_id: str) -> dict[str, str]:
    """Return where MLflow's UI shows a run of an ensemble and the report in it.

    Args:
        ui: Web address of the UI.
        experiment: Id of the run's experiment.
        run_id: Id of the run.

    Returns:
        Title -> web address.
    """
    run = f"{ui.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
    return {"MLflow run": run, "Full report": f"{run}/artifacts/report/report.html"}


def name_is(name: str) -> str:
    """Return the condition, in MLflow's filter language, that a registered model has a name.

    Args:
        name: The name; it may have one kind of quotation marks, the language has no way to write both.

    Returns:
        The condition.

    Example:
        >>> print(name_is("BERT"), name_is("O'Brien's"))
        name = 'BERT' name = "O'Brien's"
    """
    return f"name = {_quoted(name)}"


def _quoted(text: str) -> str:
    mark = '"' if "'" in text else "'"
    return f"{mark}{text}{mark}"


def pyfunc_data(path: Path) -> Path:
    """Return the folder that the loader of a saved pyfunc model is given.

    Nothing else that the model's `MLmodel` says is followed: no module is imported, no environment made.

    Args:
        path: Folder of the model, with its `MLmodel`.

    Returns:
        The folder below `path`.

    Raises:
        IntegrityError: If `MLmodel` cannot be read, or names a folder that is not below `path`.
    """
    try:
        data = _text(mlmodel(path)["flavors"]["python_function"]["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path / 'MLmodel'} does not say where the model's data is: {error}") from error
    return inside(path, data, "data")


def mlmodel(path: Path) -> dict[str, Any]:
    """Return what the file `MLmodel` of a model's folder holds.

    Args:
        path: Folder of the model.

    Returns:
        Plain dicts, lists, text and numbers; no object that YAML names is made.

    Raises:
        ValueError: If there is no such file, or it is a link, too large, no YAML mapping, or refers to itself.
    """
    try:
        content = _yaml(text_of(path / "MLmodel", _LONGEST_MLMODEL))
    except (OSError, yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no plain YAML: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError("it is no mapping")
    return content


def _text(value: Any) -> str:
    """Return a value that is text and not empty; ValueError for others."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"it says {str(value)[:100]!r}")
    return value


def inside(folder: Path, name: str, what: str) -> Path:
    """Return a folder below another, by a relative path that somebody else wrote.

    Args:
        folder: The outer folder.
        name: The path, with `/`.
        what: What names it, as the message begins.

    Returns:
        The folder, which need not exist.

    Raises:
        IntegrityError: If the path is absolute, goes up, or leads through a symbolic link.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise IntegrityError(f"{what}: {name[:200]!r} leaves {folder}; it is not followed")
    place = folder
    for part in parts:
        place = place / part
        if place.is_symlink():
            raise IntegrityError(
                f"{what}: {name[:200]!r} leads through a symbolic link in {folder}; it is not followed"
            )
    return place


def _yaml(text: str) -> Any:
    """Return what a YAML text holds.

    Raises:
        ValueError: If it is deep, has text that is no Unicode, or refers to itself: a few references can stand for
            gigabytes.
    """
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):  # read piece by piece, so that it ends at the first that is wrong
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it refers to a part of itself")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    content = yaml.safe_load(text)
    # UnicodeEncodeError, a ValueError, for half of a surrogate pair, which an escape of YAML can stand for
    json.dumps(content, ensure_ascii=False, default=str, skipkeys=True).encode()
    return content


@contextmanager
def _few_retries() -> Iterator[None]:
    """Let MLflow give up in seconds inside the block, unless the environment says how often it tries again.

    By default it takes minutes, which is right for a server that is restarted while a tournament runs, and not for an
    address that is wrong.
    """
    if _RETRIES in os.environ:
        yield
        return
    os.environ[_RETRIES] = "2"
    try:
        yield
    finally:
        os.environ.pop(_RETRIES, None)


def quieten() -> None:
    """Let MLflow and alembic log warnings only."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _unless_deleted(read: Callable[[], Read], otherwise: Read) -> Read:
    """Return what is read from MLflow, or something else when it was deleted there."""
    try:
        return read()
    except Exception as error:
        if _is_of_mlflow(error) and _code(error) in _MISSING:
            return otherwise
        raise


def _is_of_mlflow(error: Exception) -> bool:
    """Tell whether an error is MLflow's own; nothing is imported: without MLflow there is none."""
    module = sys.modules.get("mlflow.exceptions")
    return module is not None and isinstance(error, module.MlflowException)


def _code(error: Exception) -> str:
    return str(getattr(error, "error_code", ""))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
