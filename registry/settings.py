"""One settings object for every default, read from `tournament.toml` and from `TOURNAMENT_*` variables."""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from registry.errors import UsageError

Metric = Literal["macro_f1", "weighted_f1", "accuracy"]


class Settings(BaseSettings):
    """Every default of the product, in one place.

    Precedence, highest first: arguments, `TOURNAMENT_*` environment variables, `tournament.toml` in the current
    folder, the defaults below. Relative paths are resolved against the current folder when the object is made.
    """

    model_config = SettingsConfigDict(
        env_prefix="TOURNAMENT_", toml_file="tournament.toml", extra="forbid", frozen=True, validate_default=True
    )

    # Where things are kept
    home: Path = Field(Path(".tournament"), description="folder of everything that the product writes")
    mlflow_uri: str | None = Field(None, description="MLflow tracking and registry URI; default: SQLite in `home`")
    ledger_url: str | None = Field(None, description="SQLAlchemy URL of the ledger; default: SQLite in `home`")
    ensemble_name: str = Field("esci-ensemble", description="registered model that holds the champion")

    # Which behaviour counts
    behaviour_cutoff: datetime | None = Field(
        None, description="events and edges after this moment are left out (UTC unless it says otherwise)"
    )
    bot_events: int = Field(5000, ge=1, description="a client with more events than this in one log is a bot")

    # How a tournament runs
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    seed: int = Field(0, ge=0, description="seed of every random choice")
    out_of_sample: Literal["blend", "kfold"] = Field("blend", description="where the aggregator's scores come from")
    blend_share: float = Field(0.25, gt=0, lt=1, description="share of the train queries that no model trains on")
    validation_share: float = Field(0.1, gt=0, lt=0.5, description="share of the fit queries that choose the epoch")
    workers: int | None = Field(None, ge=1, description="candidates trained at once; default: one a GPU, or a core")
    candidate_timeout_s: float | None = Field(
        None, gt=0, description="seconds a candidate may train; default: no limit"
    )
    folds: int = Field(5, ge=2, le=20, description="folds of `kfold`")
    candidate_memory_gib: float | None = Field(
        None, gt=0, description="memory a candidate's process may take, GiB; default: no limit"
    )
    allowed_pyfunc_sources: tuple[str, ...] = Field(
        (), description="where pyfuncs may come from: folders, or beginnings of models:/ addresses; default: nowhere"
    )
    pyfunc_memory_gib: float = Field(4.0, gt=0, description="memory a pyfunc's process may take, GiB")
    pyfunc_timeout_s: float = Field(300.0, gt=0, description="seconds a pyfunc may take to open, and for 1,000 pairs")
    keep_score_files: bool = Field(
        False, description="let a score file be a member, though it says nothing of pairs that it does not hold"
    )

    # What may stay
    budget_memory_mib: float | None = Field(None, gt=0, description="memory all members together may use, in MiB")
    budget_latency_ms: float | None = Field(None, gt=0, description="time all members may take, ms a page of 40 pairs")
    selection: Literal["shap", "top_k", "exhaustive", "greedy"] = Field("shap", description="rule of selection")

    execution: Literal["series", "parallel"] = Field(
        "series", description="members run one after the other (times add up) or side by side (the slowest counts)"
    )
    must_keep: tuple[str, ...] = Field(
        (), description="candidates (name or name/version) that stay whatever their worth"
    )
    must_drop: tuple[str, ...] = Field((), description="candidates (name or name/version) that may not be members")

    # When a challenger is better
    primary_metric: Metric = Field("macro_f1", description="the metric a challenger must gain on")
    required_gain: float = Field(0.0, ge=0, description="least gain on the primary metric worth a promotion")
    alpha: float = Field(0.05, gt=0, lt=1, description="chance of a false promotion over the life of a test split")
    resamples: int = Field(10_000, ge=100, description="bootstrap resamples of the judge")
    guardrail_margin: float = Field(0.02, ge=0, description="loss in one locale or class that is not tolerated")
    not_worse_margin: float = Field(0.005, ge=0, description="loss on the primary metric a cheaper challenger may have")
    cheaper_by: float = Field(0.1, gt=0, lt=1, description="share of memory or time to be saved to count as cheaper")
    minimum_test_queries: int = Field(50, ge=2, description="fewer test queries than this cannot be judged")
    inaugurate: bool = Field(True, description="install the first ensemble as champion when there is none to beat")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def model_post_init(self, _context: object) -> None:
        object.__setattr__(self, "home", self.home.expanduser().resolve())

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI, always explicit: MLflow's own default depends on the current folder."""
        return self.mlflow_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def ledger_address(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger_url or f"sqlite:///{self.home / 'ledger.db'}"


def read_settings(**overrides: object) -> Settings:
    """Return the settings in force, `overrides` that are None left out.

    Raises:
        UsageError: if a value or a key is wrong; the message names it.
    """
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"tournament.toml in {Path.cwd()} cannot be read: {error}; correct or remove it") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        raise UsageError(
            f"setting {where}: {first['msg']} (got {first.get('input')!r}); "
            f"correct tournament.toml, the variable TOURNAMENT_{where.upper()} or the option"
        ) from error
