"""Hold a tournament in this process, with nothing started by hand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry.settings import Settings
from registry.specs import CandidateSpec

if TYPE_CHECKING:
    from deployments.cli.common import Output
    from flows.held import Outcome


def hold(settings: Settings, data: Path, specs: Sequence[CandidateSpec], output: Output) -> Outcome:
    """Hold one tournament and return its outcome; progress goes to standard error.

    Raises:
        BusyError: if another tournament runs in the same home.
        TournamentError: whatever else ends a tournament.
    """
    from registry.locks import tournament_lock

    with tournament_lock(settings.home):
        quiet_prefect(settings)
        from prefect.task_runners import ThreadPoolTaskRunner

        from deployments.cli.progress import board
        from flows import reporting
        from flows.competition import workers_of
        from flows.tournament import tournament

        held_here = tournament.with_options(task_runner=ThreadPoolTaskRunner(max_workers=workers_of(settings)))
        with board(output) as shown, reporting.to(shown.report):
            return held_here(
                str(data),
                [spec.model_dump(mode="json") for spec in specs],
                settings.model_dump(mode="json"),
            )


def quiet_prefect(settings: Settings) -> None:
    """Make Prefect embedded and silent, unless the environment says otherwise; must come before its import.

    An error that ends a flow is said once, by the command that ran it, and not again by Prefect with its traceback.
    Without PREFECT_API_URL Prefect starts a temporary server of its own; its database stays in the home folder.
    """
    defaults = {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
