"""One settings object for every default, read from `tournament.toml` and from `TOURNAMENT_*` variables."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from esci_tournament.registry.addresses import sqlite_address, sqlite_file
from esci_tournament.registry.complaints import Complaint, complaints_of, failure_of
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.extensions import GAINS, METRICS, SELECTION_RULES, check_gain, check_name
from esci_tournament.registry.labels import LABELS, class_of
from esci_tournament.registry.processes import usable_cores, usable_memory
from esci_tournament.registry.spelling import did_you_mean
from esci_tournament.registry.toml_lines import line_at, lines_of

MLFLOW_VARIABLE = "MLFLOW_TRACKING_URI"
# Settings of earlier releases -> what became of them
RETIRED = {"fresh_share": "fresh test pairs no longer have a share of the error budget of their own"}
_SHARE_OF_MEMORY = 0.8  # what one candidate may take by default: the rest keeps the machine answering


def _networks(given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        ipaddress.ip_network(one, strict=False)
    return given


def _letter(given: str) -> str:
    number = class_of(given)
    if number is None:
        raise ValueError(f"a class is one of {', '.join(LABELS)}")
    return LABELS[number]


def _when_served(given: object) -> object:
    """Return the word for what earlier releases said with true or false."""
    words = {"true": "at_once", "1": "at_once", "false": "never", "0": "never"}
    return words.get(str(given).lower(), given)


def _digest(given: str) -> str:
    if re.fullmatch("[0-9a-f]{64}", given) is None:
        raise ValueError("it is a SHA-256: 64 digits, 0 to 9 and a to f")
    return given


class _Variables(EnvSettingsSource):
    """The `TOURNAMENT_*` variables; where a list or table is needed and one is no JSON, it is checked as text."""

    def prepare_field_value(self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool) -> Any:
        """Return what a variable holds."""
        try:
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        except (ValueError, RecursionError):
            return value


class Settings(BaseSettings):
    """Every default of the product, in one place.

    Precedence, highest first: arguments, `TOURNAMENT_*` environment variables, `tournament.toml` in the current
    folder, MLFLOW_TRACKING_URI for `mlflow_uri`, the defaults below. Relative paths are resolved against the current
    folder when the object is made.
    """

    model_config = SettingsConfigDict(
        env_prefix="TOURNAMENT_", toml_file="tournament.toml", extra="forbid", frozen=True, validate_default=True
    )

    # Where things are kept
    home: Path = Field(Path(".tournament"), description="folder of everything that the product writes")
    mlflow_uri: str | None = Field(
        None, description="MLflow tracking and registry URI; default: MLFLOW_TRACKING_URI, else SQLite in `home`"
    )
    mlflow_ui: str | None = Field(
        None, description="where people see MLflow, for links; default: `mlflow_uri` when it is a web address"
    )
    ledger_url: str | None = Field(None, description="SQLAlchemy URL of the ledger; default: SQLite in `home`")
    ensemble_name: str = Field("esci-ensemble", description="registered model that holds the champion")

    manifest_digest: Annotated[str, AfterValidator(_digest)] | None = Field(
        None,
        description="SHA-256 of the manifest of the one ensemble that a process without a ledger may load",
    )

    # What runs all the time (`tournament up`)
    data: str | None = Field(
        None, description="what registered candidates compete on: a folder with the ESCI files, a URL, or `sql`"
    )
    host: str = Field("127.0.0.1", description="address that the servers listen on; default: this machine alone")
    prefect_port: int = Field(4200, ge=1, le=65535, description="port of the Prefect server")
    mlflow_port: int = Field(5000, ge=1, le=65535, description="port of the MLflow server")
    watcher_port: int = Field(4300, ge=1, le=65535, description="port of the watcher, which receives webhooks")
    startup_timeout_s: float = Field(300.0, gt=0, description="seconds that each service may take until it is healthy")
    hang_timeout_s: float = Field(
        180.0, gt=0, description="seconds that a service which was healthy may not answer until it is started again"
    )
    worker_processes: int = Field(32, ge=4, description="flow runs at once; reviews must never wait for tournaments")
    gpu_slots: int = Field(1, ge=1, description="slots of Prefect's global concurrency limit `gpu`")
    bench_size: int = Field(8, ge=0, description="evicted and refused models that get another chance every week")
    weekly_cron: str = Field("0 3 * * 1", description="when champion and bench are evaluated again, cron in UTC")
    notify_block: str | None = Field(
        None,
        description="Prefect notification block that messages are sent through, as type/name: slack-webhook/relevance",
    )

    # How candidates are watched for and sent into tournaments
    watch_interval_s: float = Field(10.0, gt=0, description="seconds between two looks at the registry")
    full_look_s: float = Field(
        900.0, gt=0, description="seconds between two looks at every version, cheap looks beside them"
    )
    verify_ledger_s: float = Field(
        3600.0, gt=0, description="seconds between two verifications of the ledger's hash chain by the watcher"
    )
    share_tournament: int = Field(1, ge=1, description="waiting candidates that may share one tournament")
    dispatch_failures: int = Field(3, ge=1, description="tournaments of a candidate that may fail until it is given up")
    dispatch_losses: int = Field(
        20, ge=1, description="tournaments of a candidate that may be killed or lack a store until it is given up"
    )
    retry_s: float = Field(
        30.0, ge=0, description="seconds until a failed tournament is tried again, doubled after each failure"
    )
    lost_after_s: float = Field(
        60.0, gt=0, description="seconds until a run that no process holds counts as lost; four times that at its start"
    )
    webhook_secret: SecretStr | None = Field(
        None, exclude=True, description="secret that MLflow signs webhooks with; default: one made in `home`"
    )
    webhook_url: str | None = Field(
        None, description="address of the watcher as the MLflow server reaches it; default: `host` and `watcher_port`"
    )
    webhook_age_s: float = Field(300.0, gt=0, description="age of a webhook at most, seconds; an older one is refused")
    lease: Literal["auto", "always", "never"] = Field(
        "auto", description="lease GPU slots of Prefect's limit `gpu`; auto: on cuda where a Prefect API is configured"
    )
    lease_s: float = Field(60.0, ge=60, le=86_400, description="seconds until the slots of a killed holder come back")

    # Where `sql` data comes from; the URL may hold a password, so it is never shown, stored or handed on
    data_sql_url: SecretStr | None = Field(
        None, exclude=True, description="SQLAlchemy URL of the database that has the newest data"
    )
    data_sql_examples: str | None = Field(None, description="query whose columns are those of the examples file")
    data_sql_products: str | None = Field(None, description="query whose columns are those of the products file")
    data_sql_behaviour: str | None = Field(
        None, description="query whose columns are those of behaviour_events.parquet; default: no behaviour"
    )
    data_sql_rows: int = Field(50_000, ge=1, description="rows that are fetched from the database at a time")

    data_max_gib: float = Field(
        64.0, gt=0, description="size of a file of the newest data that is fetched, and of an unpacked archive, GiB"
    )

    # How data files are read
    data_extra_columns: Literal["refuse", "ignore"] | tuple[str, ...] = Field(
        "refuse", description="columns of data files that are not known: refuse, ignore, or a list of names to ignore"
    )
    data_labels: dict[str, Annotated[str, AfterValidator(_letter)]] = Field(
        {}, description='classes of labels that are neither letters nor words: { "3" = "E", "2" = "S" }'
    )

    # When newer data counts as drifted
    drift_distance: float = Field(
        0.1, gt=0, le=1, description="Jensen-Shannon distance (base 2) from which a distribution may count as drifted"
    )
    drift_level: float = Field(
        0.05, gt=0, lt=1, description="false discovery rate of the drift of all columns together, given no drift"
    )
    drift_queries: int = Field(
        20_000, ge=100, description="queries of each data version that drift is measured on, drawn by `seed`"
    )

    # Which behaviour counts
    behaviour_cutoff: datetime | None = Field(
        None, description="events and edges after this moment are left out (UTC unless it says otherwise)"
    )
    bot_events: int = Field(5000, ge=1, description="a client with more events than this in one log is a bot")
    behaviour_actions: dict[str, Literal["impression", "click", "add", "purchase", "ignore"]] = Field(
        {}, description='what names of actions in UBI logs mean, beside those that are known: { view = "impression" }'
    )
    behaviour_kept: float = Field(
        0.5, ge=0, le=1, description="share of a log's rows that must be usable, or the data is refused; 0: any"
    )

    # How a tournament runs
    device: str = Field("auto", description="where models are trained and scored: auto, cpu, cuda or cuda:N")
    seed: int = Field(0, ge=0, description="seed of every random choice")
    out_of_sample: Literal["blend", "kfold"] = Field("blend", description="where the aggregator's scores come from")
    blend_share: float = Field(0.25, gt=0, lt=1, description="share of the train queries that no model trains on")
    validation_share: float = Field(0.1, gt=0, lt=0.5, description="share of the fit queries that choose the epoch")
    workers: int | None = Field(None, ge=1, description="candidates trained at once; default: one a GPU, or a core")
    threads: int | None = Field(
        None, ge=1, description="threads that compute at once on this machine; default: the cores that may be used"
    )
    candidate_timeout_s: float | None = Field(
        86_400.0, ge=0, description="seconds a process may take to train, score or profile candidates; 0: no limit"
    )
    candidate_parameters: int = Field(
        3_000_000_000, ge=1, description="parameters a candidate's model may have, by its recipe or its checkpoint"
    )
    allowed_checkpoint_roots: tuple[str, ...] = Field(
        (), description="folders that local checkpoints may be in; default: anywhere on this machine"
    )
    refit: bool = Field(
        False, description="fit models again when the data is new; else they are scored on it as they serve (`blend`)"
    )
    test_share: float = Field(
        0.0, ge=0, lt=1, description="share of the queries that are test queries where the data has no test split"
    )
    folds: int = Field(5, ge=2, le=20, description="folds of `kfold`")
    candidate_memory_gib: float | None = Field(
        None,
        ge=0,
        description="memory a candidate's process may take, GiB; default: 80 % of the machine's; 0: no limit",
    )
    allowed_pyfunc_sources: tuple[str, ...] = Field(
        (), description="where pyfuncs may come from: folders, or beginnings of models:/ addresses; default: nowhere"
    )
    pyfunc_memory_gib: float = Field(4.0, gt=0, description="memory a pyfunc's process may take, GiB")
    pyfunc_timeout_s: float = Field(300.0, gt=0, description="seconds a pyfunc may take to open, and for 1,000 pairs")
    keep_score_files: bool = Field(
        False, description="allow score files as members, although they have no scores for pairs that they do not list"
    )

    # What may stay
    budget_memory_mib: float | None = Field(None, gt=0, description="memory all members together may use, in MiB")
    budget_latency_ms: float | None = Field(None, gt=0, description="time all members may take, ms a page of 40 pairs")
    selection: Annotated[str, AfterValidator(partial(check_name, SELECTION_RULES))] = Field(
        "shap", description="rule of selection: shap, top_k, exhaustive, greedy or a plug-in's"
    )

    execution: Literal["series", "parallel"] = Field(
        "series", description="members run one after the other (times add up) or side by side (the slowest counts)"
    )
    must_keep: tuple[str, ...] = Field(
        (), description="candidates (name or name/version) that stay whatever their worth"
    )
    must_drop: tuple[str, ...] = Field((), description="candidates (name or name/version) that may not be members")

    # When a challenger is better
    primary_metric: Annotated[str, AfterValidator(partial(check_name, METRICS))] = Field(
        "macro_f1", description="the metric a challenger must gain on: macro_f1, weighted_f1, accuracy or a plug-in's"
    )
    gain_metrics: tuple[Annotated[str, AfterValidator(check_gain)], ...] = Field(
        GAINS, min_length=1, description="a challenger must gain on any of these: primary, log_loss, a built-in metric"
    )
    required_gain: float = Field(0.0, ge=0, description="least gain on the primary metric worth a promotion")
    alpha: float = Field(
        0.05, gt=0, lt=1, description="chance that a home without any better challenger ever promotes one"
    )
    resamples: int = Field(10_000, ge=100, description="bootstrap resamples of the judge")
    guardrail_margin: float = Field(0.02, ge=0, description="loss in one locale or class that is not tolerated")
    not_worse_margin: float = Field(0.005, ge=0, description="loss on the primary metric a cheaper challenger may have")
    cheaper_by: float = Field(0.1, gt=0, lt=1, description="share of memory or time to be saved to count as cheaper")
    minimum_test_queries: int = Field(50, ge=2, description="fewer test queries than this cannot be judged")
    inaugurate: bool = Field(True, description="install the first ensemble as champion when there is none to beat")

    # What a report shows
    report_examples: int = Field(
        12, ge=0, le=100, description="pairs in each of a report's lists of examples, with query and title; 0: none"
    )

    # Who decides
    review: Literal["auto", "required", "none"] = Field(
        "auto", description="whether a person decides on a promotion; auto: where a Prefect API is configured"
    )
    reviewers: tuple[str, ...] = Field((), description="names that may decide; default: anyone")
    quorum: int = Field(1, ge=1, description="reviewers who must approve a promotion")
    allow_self_review: bool = Field(False, description="let whoever registered a candidate approve it")
    review_deadline_h: float = Field(72.0, gt=0, description="hours until no answer counts as a refusal")
    review_reminder_h: float = Field(24.0, gt=0, description="hours between reminders of a review that waits")
    review_rounds: int = Field(5, ge=1, description="how often a review is opened whose flow run was lost")
    review_stuck_s: float = Field(
        900.0, gt=0, description="seconds after which a review's flow run that should go on counts as dead"
    )

    # How the champion is served
    scorer_port: int = Field(8080, ge=1, le=65535, description="port of the scorer; it listens on `host`")
    deadline_ms: int = Field(2000, ge=1, le=60_000, description="ms a request may take unless it says otherwise")
    batch_window_ms: float = Field(
        2.0, ge=0, le=100, description="ms a member waits for requests that have arrived and are not queued yet"
    )
    batch_pairs: int = Field(512, ge=1, description="pairs a member scores at once at most")
    queued_pairs: int = Field(20_000, ge=1000, description="pairs that may wait for the members; more: refused (429)")
    replicas: int | None = Field(
        None,
        ge=0,
        description="processes that compute, each with all members; default: one a core or GPU; 0: no extra one",
    )
    members_at_once: int | None = Field(
        None, ge=1, description="members that compute at once in a replica; default: one on a CPU, all on a GPU"
    )
    member_timeout_s: float = Field(
        20.0,
        gt=0,
        description="seconds that a member may take for a batch at most; then its replica is ended",
    )
    page_timeout_s: float = Field(
        3.0,
        gt=0,
        description="seconds that a batch may compute, or eight times what is usual for its size, until its replica is "
        "ended and its page fails; never more than member_timeout_s",
    )
    member_failures: int = Field(3, ge=1, description="failures in a row after which a member is fenced off")
    member_retry_s: float = Field(15.0, gt=0, description="seconds until a fenced member is tried again")
    swap_interval_s: float = Field(2.0, gt=0, description="seconds between looks for a new champion")
    body_mib: float = Field(8.0, gt=0, description="size of a request at most, MiB; a larger one is refused (413)")
    bodies_mib: float = Field(
        64.0, gt=0, description="size of all requests under way together, MiB; a request for which none is left is 503"
    )
    connections: int = Field(1000, ge=16, description="connections to the scorer at once; fewer if files are limited")
    connections_per_address: int | None = Field(
        500, ge=1, description="connections of one address at once; those of `trusted_proxies` are not counted"
    )
    trusted_proxies: Annotated[tuple[str, ...], AfterValidator(_networks)] = Field(
        (), description="addresses or networks (10.0.0.0/8) of proxies before the scorer, which come for many clients"
    )
    public_hosts: tuple[str, ...] = Field(
        (), description="names under which a scorer on loopback is asked through a proxy; others than its own are 403"
    )
    head_timeout_s: float = Field(10.0, gt=0, description="seconds that the header of a request may take to arrive")
    body_timeout_s: float = Field(10.0, gt=0, description="seconds that the body of a request may take to arrive")
    idle_timeout_s: float = Field(75.0, gt=0, description="seconds that a connection may be unused")
    rate_per_s: float | None = Field(
        None, gt=0, description="requests a second of one API key, unless the key has its own; default: no limit"
    )
    rate_burst_s: float = Field(2.0, ge=1, description="seconds' worth of requests a key may send at once")
    exit_check_share: float = Field(
        0.01, ge=0, le=1, description="share of pages with early exits that are checked against all members"
    )
    drain_s: float = Field(15.0, gt=0, description="seconds that requests under way get when the scorer is stopped")

    # What is made ready for serving
    subsets_limit: int = Field(
        40, ge=1, description="aggregators of subsets of the members that are kept; prefixes and singles always are"
    )
    early_exit_risk: float = Field(
        0.005, ge=0, lt=1, description="share of labels that early exit may change, with 95 % confidence; 0: it is off"
    )
    cache_max_mib: float = Field(4096.0, ge=4, description="size of the label cache on disk at most, MiB")
    cache_redis_url: SecretStr | None = Field(
        None, exclude=True, description="Redis that several scorers share labels in; default: none, each has a file"
    )
    cache_redis_timeout_ms: float = Field(50.0, gt=0, description="ms to wait for Redis before going on without it")
    cache_redis_days: float = Field(14.0, gt=0, description="days after which a label that is not put again goes")
    warm_pairs: int = Field(
        10_000, ge=0, description="pairs asked for most often that a new champion labels before it goes live"
    )
    warm_s: float = Field(
        20.0, ge=0, description="seconds that a new champion may take for them, while the old one serves"
    )
    refresh_served: Annotated[Literal["at_once", "review", "never"], BeforeValidator(_when_served)] = Field(
        "at_once",
        description="when scorers take up the products and behaviour of newer data: review is after a reviewer's yes",
    )
    precomputed_products: int | None = Field(
        None, ge=1, description="products whose embeddings are held, the most retrieved; default: all"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources of settings, highest precedence first.

        They are arguments, `TOURNAMENT_*` variables, `tournament.toml`, and the variable that names MLflow's address to
        all of its clients.
        """
        named = os.environ.get(MLFLOW_VARIABLE)
        mlflow = InitSettingsSource(settings_cls, {"mlflow_uri": named} if named else {})
        return init_settings, _Variables(settings_cls), TomlConfigSettingsSource(settings_cls), mlflow

    def model_post_init(self, _context: object) -> None:
        """Make paths absolute: processes that these settings are handed to run in other folders."""
        object.__setattr__(self, "home", self.home.expanduser().resolve())
        for name in ("mlflow_uri", "ledger_url"):
            object.__setattr__(self, name, _absolute(getattr(self, name)))
        sources = (
            one if one.startswith("models:/") or not one else _resolved(one) for one in self.allowed_pyfunc_sources
        )
        object.__setattr__(self, "allowed_pyfunc_sources", tuple(sources))
        roots = tuple(_resolved(one) for one in self.allowed_checkpoint_roots if one)
        object.__setattr__(self, "allowed_checkpoint_roots", roots)

    @property
    def cores(self) -> int:
        """Threads that compute at once: the setting, else the cores that this process may use."""
        return self.threads or usable_cores()

    @property
    def candidate_time(self) -> float | None:
        """Seconds that a candidate's process may take, None for no limit."""
        return self.candidate_timeout_s or None

    @property
    def candidate_memory(self) -> float | None:
        """Memory that a candidate's process may take, GiB, None for no limit.

        The default depends on the machine and is not what the setting itself holds: a tournament is the same one on
        every machine, and the one that it was before there was a default.
        """
        if self.candidate_memory_gib is None:
            return _SHARE_OF_MEMORY * usable_memory() / 2**30
        return self.candidate_memory_gib or None

    def only(self, names: Collection[str]) -> Settings:
        """Return these settings for a stage that declares which of them it follows from.

        A stage is stored under the settings that it declares. Reading another one through what this returns raises, so
        that no stage follows from a setting that its key does not have.

        Args:
            names: Names of settings.

        Returns:
            A :class:`StageSettings` that is used as settings are: these settings alone, and `cores`, which changes no
            result.
        """
        return cast(Settings, StageSettings({name: getattr(self, name) for name in sorted(names)}, self.cores))

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI, always explicit: MLflow's own default depends on the current folder."""
        return self.mlflow_uri or sqlite_address(self.home / "mlflow.db")

    @property
    def mlflow_named_by(self) -> str:
        """What names MLflow's address: "MLFLOW_TRACKING_URI", "mlflow_uri", or "home" for the database in `home`."""
        if self.mlflow_uri is None:
            return "home"
        return MLFLOW_VARIABLE if self.mlflow_uri == _absolute(os.environ.get(MLFLOW_VARIABLE)) else "mlflow_uri"

    @property
    def ledger_address(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger_url or sqlite_address(self.home / "ledger.db")


class StageSettings:
    """The settings that a stage declares, and no others; reading another one raises AttributeError.

    Args:
        values: Name -> value.
        cores: Threads that compute at once.

    Example:
        >>> declared = StageSettings({"seed": 3}, cores=1)
        >>> declared.seed, hasattr(declared, "device")
        (3, False)
    """

    def __init__(self, values: Mapping[str, object], cores: int) -> None:
        self._values, self.cores = dict(values), cores

    def __getattr__(self, name: str) -> object:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"the stage does not declare the setting {name!r}, under which it would be stored")
        return self._values[name]


def _absolute(address: str | None) -> str | None:
    """Return a database's address with an absolute path where it names a file of SQLite by a relative one."""
    file = sqlite_file(address or "")
    if address is None or file is None or file.is_absolute():
        return address
    scheme, _, rest = address.partition(":///")
    _, mark, options = rest.partition("?")
    return f"{sqlite_address(_resolved(str(file)), scheme)}{mark}{options}"


def _resolved(path: str) -> str:
    return str(Path(path).expanduser().resolve())


_given: ContextVar[Settings | None] = ContextVar("settings", default=None)


@contextmanager
def using(settings: Settings) -> Iterator[None]:
    """Let :func:`settings_in_force` return these settings while the block runs, in this thread and what it starts."""
    token = _given.set(settings)
    try:
        yield
    finally:
        _given.reset(token)


def settings_in_force() -> Settings:
    """Return the settings that this process was given by :func:`using`, else those of file and environment.

    Raises:
        UsageError: as :func:`read_settings`.
    """
    return _given.get() or read_settings()


def read_settings(**overrides: object) -> Settings:
    """Return the settings in force.

    Args:
        overrides: Setting -> value, with the highest precedence; those that are None are left out.

    Returns:
        The settings, with `tournament.toml` of the current folder and the `TOURNAMENT_*` variables read now.

    Raises:
        UsageError: If a value or a key is wrong; the message has each of them, and where it was set.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"tournament.toml in {Path.cwd()} cannot be read: {error}; correct or remove it") from error
    except ValidationError as error:
        if not (complaints := _complaints(given)):
            raise UsageError(f"settings: {error}") from error
        told = failure_of(UsageError, complaints, lines=True)
        raise told from error
    except (ValueError, RecursionError) as error:  # a list that is no JSON, a number or nesting without end
        raise UsageError(f"settings: {error}; correct the variable TOURNAMENT_... or tournament.toml") from error


def _complaints(given: Mapping[str, object]) -> list[Complaint]:
    """Return everything that is wrong with the settings in force, each with where its value comes from."""
    variables = dict(_Variables(Settings)())
    file = Path(str(Settings.model_config["toml_file"]))
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    in_file, lines = tomllib.loads(text), lines_of(text)
    content: dict[str, Any] = {**in_file, **variables, **given}
    # Without the sources: a wrong value that is left out to check the others would come back from them
    fields: Any = {key: (field.annotation, field) for key, field in Settings.model_fields.items()}
    plain = create_model("plain", __config__=ConfigDict(extra="forbid"), **fields)
    told = []
    for one in complaints_of(content, plain):
        name = one.key.partition(".")[0]
        if name in given:
            source = "the option or argument"
        elif name in variables:
            source = f"the variable {Settings.model_config['env_prefix']!s}{name.upper()}"
        elif name in in_file:
            line = line_at(lines, tuple(one.key.split(".")))
            one = replace(one, file=str(file), line=line)
            source = f"line {line} of {file}" if line else str(file)
        else:
            source = MLFLOW_VARIABLE
        if name in RETIRED:
            problem = f"setting {name} is gone: {RETIRED[name]}; remove it from {source}"
        elif name not in Settings.model_fields:
            hint = did_you_mean(name, Settings.model_fields)
            problem = (
                f"there is no setting {name}{hint}; correct {source}; `tournament doctor --all` lists the settings"
            )
        else:
            problem = f"setting {one.problem}; correct {source}"
        told.append(replace(one, problem=problem))
    return told


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that looks like a setting's and is none, so that it is ignored.

    Args:
        environment: Name -> value.

    Example:
        >>> unknown_variables({"TOURNAMENT_ALHPA": "0.1", "TOURNAMENT_SEED": "1", "PATH": "/bin"})
        ['the variable TOURNAMENT_ALHPA is no setting and is ignored; did you mean TOURNAMENT_ALPHA?']
    """
    prefix = str(Settings.model_config["env_prefix"])
    named = {name.upper().removeprefix(prefix): name for name in environment if name.upper().startswith(prefix)}
    known = [name.upper() for name in Settings.model_fields]
    return [
        f"the variable {name} is ignored: the setting is gone; {RETIRED[word.lower()]}"
        if word.lower() in RETIRED
        else f"the variable {name} is no setting and is ignored{did_you_mean(word, known, prefix)}"
        for word, name in sorted(named.items())
        if word not in known
    ]
