"""What is usual in data; apart from the rules, because Great Expectations takes seconds to load."""

from __future__ import annotations

from dataclasses import dataclass, field

from esci_tournament.registry.settings import Settings


@dataclass(frozen=True)
class Bounds:
    """What is usual; outside of it a warning is given, except for `crossing_*`, which bounds what is tolerated.

    Attributes:
        class_share: Label -> least and greatest share of it, in [0, 1]. The official large version has 65/22/3/10 %,
            the small one 44/34/5/17 % (E/S/C/I).
        rows_per_locale: Fewer judged pairs than this in a locale are too few to learn or to judge.
        title_share: Share of products, in [0, 1], that must have a title.
        crossing_share: Share of the train queries, in [0, 1], that may stand in the test split too, letter by letter or
            by their id; their train pairs are put in quarantine. The official release has such a query.
        crossing_least_queries: With fewer train queries than this, none is tolerated: there it is a mistake.
        test_share: Share of the queries that are test queries where the data has no test split; with 0, a data set
            without a test pair is refused.
        behaviour_kept: Share of the rows of each log, in [0, 1], that must be of use.
    """

    class_share: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"E": (0.2, 0.85), "S": (0.05, 0.5), "C": (0.005, 0.3), "I": (0.02, 0.5)}
    )
    rows_per_locale: int = 100
    title_share: float = 0.99
    crossing_share: float = 0.001
    crossing_least_queries: int = 20_000
    test_share: float = 0.0
    behaviour_kept: float = 0.5

    @classmethod
    def of(cls, settings: Settings) -> Bounds:
        """Return the bounds with those that settings name: `test_share` and `behaviour_kept`."""
        return cls(test_share=settings.test_share, behaviour_kept=settings.behaviour_kept)
