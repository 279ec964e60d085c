"""The deployments, as data: what the local worker serves and what `prefect.yaml` deploys to a Prefect server."""

from __future__ import annotations

from dataclasses import dataclass

from esci_tournament.registry.settings import Settings

# A review must be answered while a tournament trains for hours: pools, like limits, are apart.
HEAVY_POOL = "tournaments"
LIGHT_POOL = "reviews"
GPU_LIMIT = "gpu"
NEW_DATA_EVENT = "tournament.data"  # whoever has new data sends it, and the weekly run does not wait for its day


@dataclass(frozen=True)
class Deployment:
    """One deployment.

    Attributes:
        flow: name of the flow.
        name: name of the deployment; together `flow/name`.
        entrypoint: where the flow is, as a module path.
        work_pool: which machines run it in production.
        concurrency_limit: runs at once, the others wait in line; None for any number.
        cron: when it runs by itself, in UTC; None for never.
        event: an event that starts a run; None for none.
        description: what it does, in one line.
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
        return f"{self.flow}/{self.name}"


def deployments_of(settings: Settings) -> tuple[Deployment, ...]:
    """Return every deployment under these settings."""
    return (
        Deployment(
            flow="tournament",
            name="tournament",
            entrypoint="esci_tournament.flows.tournament.tournament",
            work_pool=HEAVY_POOL,
            concurrency_limit=1,
            description="Candidates that were registered take their chances",
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
