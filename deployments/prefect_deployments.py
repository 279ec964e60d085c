"""The deployments, as data: what the local worker serves and what `prefect.yaml` deploys to a Prefect server."""

from __future__ import annotations

from dataclasses import dataclass

from esci_tournament.registry.settings import Settings

# Pools and limits are separate, because a review must be answered while a tournament trains for hours.
HEAVY_POOL = "tournaments"
LIGHT_POOL = "reviews"
GPU_LIMIT = "gpu"
NEW_DATA_EVENT = "tournament.data"  # sent when there is new data: it starts the weekly run at once


@dataclass(frozen=True)
class Deployment:
    """One deployment of a flow.

    Attributes:
        flow: name of the flow.
        name: name of the deployment.
        entrypoint: module path of the flow function.
        work_pool: name of the work pool whose machines run it in production.
        concurrency_limit: number of runs at the same time, further ones wait; None for no limit.
        description: what it does, in one line.
        cron: schedule in cron's notation, in UTC; None for no schedule.
        event: name of an event that starts a run; None for none.
    """

    flow: str
    name: str
    entrypoint: str
    work_pool: str
    concurrency_limit: int | None
    description: str
    cron: str | None = None
    event: str | None = None

    @property
    def full_name(self) -> str:
        """The name that Prefect shows: `flow/name`."""
        return f"{self.flow}/{self.name}"


def deployments_of(settings: Settings) -> tuple[Deployment, ...]:
    """Return every deployment; the setting `weekly_cron` is the schedule of the weekly one."""
    return (
        Deployment(
            flow="tournament",
            name="tournament",
            entrypoint="esci_tournament.flows.tournament.tournament",
            work_pool=HEAVY_POOL,
            concurrency_limit=1,
            description="Tries the candidates that were registered",
        ),
        Deployment(
            flow="review",
            name="review",
            entrypoint="esci_tournament.flows.review.review",
            work_pool=LIGHT_POOL,
            concurrency_limit=None,
            description="A reviewer decides whether a challenger becomes champion",
        ),
        Deployment(
            flow="reevaluate",
            name="weekly",
            entrypoint="esci_tournament.flows.reevaluate.reevaluate",
            work_pool=HEAVY_POOL,
            concurrency_limit=1,
            description="Champion and bench are evaluated again on the newest data",
            cron=settings.weekly_cron,
            event=NEW_DATA_EVENT,
        ),
    )
