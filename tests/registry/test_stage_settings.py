"""Every setting changes the key of the stages it affects, or is listed as one that changes no result."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.tournaments import tournament_digest
from esci_tournament.tasks.data import split
from esci_tournament.tasks.data.bounds import Bounds
from esci_tournament.tasks.data.logs import LogLimits
from esci_tournament.tasks.ensemble import challenge, equipment, trial

# Where things are, how fast they go, who is asked and what happens around a tournament: none of it changes a result.
CHANGES_NO_RESULT = {
    *("home", "mlflow_uri", "mlflow_ui", "ledger_url", "data", "host", "prefect_port", "mlflow_port", "watcher_port"),
    *("startup_timeout_s", "hang_timeout_s", "worker_processes", "gpu_slots", "weekly_cron", "notify_block"),
    *("watch_interval_s", "full_look_s", "share_tournament", "dispatch_failures", "dispatch_losses", "retry_s"),
    "verify_ledger_s",
    *("lost_after_s", "webhook_secret", "webhook_url", "webhook_age_s", "lease", "lease_s"),
    *("data_sql_url", "data_sql_examples", "data_sql_products", "data_sql_behaviour", "data_sql_rows"),
    *("workers", "threads", "device", "candidate_timeout_s", "manifest_digest"),
    # What is refused at entry never takes part; what labels mean is in the data version itself
    *("data_extra_columns", "data_labels"),
    *("candidate_parameters", "allowed_checkpoint_roots"),
    *("review", "reviewers", "quorum", "allow_self_review", "review_deadline_h", "review_reminder_h", "review_rounds"),
    *("review_stuck_s", "scorer_port", "deadline_ms", "batch_window_ms", "batch_pairs", "queued_pairs", "replicas"),
    *("members_at_once", "member_timeout_s", "page_timeout_s", "member_failures", "member_retry_s", "swap_interval_s"),
    *("body_mib", "bodies_mib", "connections", "connections_per_address", "trusted_proxies", "public_hosts"),
    *("head_timeout_s", "body_timeout_s", "idle_timeout_s", "data_max_gib"),
    *("rate_per_s", "rate_burst_s", "exit_check_share", "drain_s", "cache_max_mib", "cache_redis_url"),
    *("cache_redis_timeout_ms", "cache_redis_days", "warm_pairs", "warm_s", "refresh_served", "precomputed_products"),
    # Who takes part in a re-evaluation is an input of its tournament, and so of its key
    "bench_size",
    # What is told of drift is stored under the limits themselves (flows/preparation.py)
    *("drift_distance", "drift_level", "drift_queries"),
    "report_examples",
}
OTHERS: dict[str, Any] = {
    "behaviour_actions": {"view": "click"},
    "behaviour_cutoff": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    "out_of_sample": "kfold",
    "selection": "greedy",
    "execution": "parallel",
    "primary_metric": "accuracy",
    "gain_metrics": ("primary",),
    "budget_memory_mib": 1.0,
    "budget_latency_ms": 1.0,
    "candidate_memory_gib": 1.0,
    "allowed_pyfunc_sources": ("models:/house",),
    "must_keep": ("a",),
    "must_drop": ("b",),
    "ensemble_name": "another",
}


def keys(settings: Settings) -> dict[str, Any]:
    """Return what each stage is stored under, as far as it follows from settings."""
    limits = LogLimits.of(settings)
    stages = {"split": split.SETTINGS, "challenge": challenge.SETTINGS, "equipment": equipment.SETTINGS}
    found: dict[str, Any] = {name: settings.model_dump(mode="json", include=set(of)) for name, of in stages.items()}
    found["load"] = [str(limits.cutoff), limits.bot_events, limits.actions]
    found["validate"] = asdict(Bounds.of(settings))
    found["question"] = tournament_digest("data", [], settings.model_dump(mode="json"))
    return found


def other(name: str, settings: Settings) -> Any:
    """Return a value of a setting that is not the one in force."""
    if name in OTHERS:
        return OTHERS[name]
    value = getattr(settings, name)
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value * 0.99 + 0.0001


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return read_settings(home=tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - CHANGES_NO_RESULT))
def test_a_setting_that_changes_a_result_changes_a_key(name: str, plain: Settings) -> None:
    changed = read_settings(**{"home": plain.home, name: other(name, plain)})
    assert keys(changed) != keys(plain)


def test_settings_that_are_said_to_change_no_result_are_there_and_in_no_key() -> None:
    declared = {*split.SETTINGS, *challenge.SETTINGS, *equipment.SETTINGS, *trial.SETTINGS}
    assert set(Settings.model_fields) >= CHANGES_NO_RESULT | declared
    assert CHANGES_NO_RESULT.isdisjoint(declared)


def test_the_question_of_a_tournament_has_every_setting_of_its_stages(plain: Settings) -> None:
    """A tournament that is found held before must have been held under the same settings."""
    before = keys(plain)["question"]
    for name in {*split.SETTINGS, *challenge.SETTINGS, *trial.SETTINGS}:
        assert keys(read_settings(**{"home": plain.home, name: other(name, plain)}))["question"] != before, name


@hypothesis_settings(max_examples=40)
@given(
    st.sets(st.sampled_from(sorted(Settings.model_fields)), max_size=8), st.sampled_from(sorted(Settings.model_fields))
)
def test_a_stage_reads_what_it_declares_and_nothing_else(declared: set[str], name: str) -> None:
    settings = Settings(home=Path("home"))
    given_to_stage = settings.only(declared)
    if name in declared:
        assert getattr(given_to_stage, name) == getattr(settings, name)
    else:
        with pytest.raises(AttributeError, match=f"does not declare the setting '{name}'"):
            getattr(given_to_stage, name)
