"""Build the rules of behaviour logs: events, edges, and what was left out of them."""

from __future__ import annotations

from esci_tournament.tasks.data.dataset import ACTIONS, LOCALES, Dataset
from esci_tournament.tasks.data.expectations import Offenders, Rule, gxe
from esci_tournament.tasks.data.layout import EDGES_FILE, EVENTS_FILE, TABLE_RELATIONS
from esci_tournament.tasks.data.logs import REASONS
from esci_tournament.tasks.data.offenders import Mask, edges_where, events_where, left_out_for
from esci_tournament.tasks.data.rule_frames import edges_frame, kept_shares

MOST_WEIGHT = 1e12  # of an edge


def log_rules(dataset: Dataset, least_kept: float) -> list[Rule]:
    """Return the rules of the logs that a data set has.

    Args:
        dataset: The data set.
        least_kept: Share of the rows of each log, in [0, 1], that must be of use.

    Returns:
        The rules, in the order in which they are reported; [] if it has no logs.
    """
    rules = _events_rules() if dataset.events is not None else []
    rules += _edges_rules() if dataset.edges is not None else []
    if dataset.events is None and dataset.edges is None:
        return []
    return [*rules, *_left_out_rules(dataset), _kept_rule(least_kept)]


def _events_rules() -> list[Rule]:
    def rule(
        name: str,
        expectation: gxe.Expectation,
        critical: bool,
        column: str,
        expected: str,
        holds: str,
        broken: str,
        rows: Offenders,
    ) -> Rule:
        return Rule(name, "events", expectation, critical, EVENTS_FILE, column, expected, holds, broken, rows)

    return [
        rule(
            "action_known",
            gxe.ExpectColumnValuesToBeInSet(column="action", value_set=list(ACTIONS)),
            True,
            "action",
            f"one of {', '.join(ACTIONS)}",
            f"every action is one of {', '.join(ACTIONS)}",
            f"an action is not one of {', '.join(ACTIONS)}",
            rows=events_where(lambda events: ~events["action"].isin(ACTIONS), "action"),
        ),
        rule(
            "event_locale_known",
            gxe.ExpectColumnValuesToBeInSet(column="locale", value_set=list(LOCALES)),
            True,
            "locale",
            f"one of {', '.join(LOCALES)}",
            f"every locale of an event is one of {', '.join(LOCALES)}",
            f"a locale of an event is not one of {', '.join(LOCALES)}",
            rows=events_where(lambda events: ~events["locale"].isin(LOCALES), "locale"),
        ),
    ]


def _edges_rules() -> list[Rule]:
    def rule(
        name: str, expectation: gxe.Expectation, column: str, expected: str, holds: str, broken: str, mask: Mask
    ) -> Rule:
        rows = edges_where(mask, column.partition(",")[0])
        return Rule(name, "edges", expectation, True, EDGES_FILE, column, expected, holds, broken, rows)

    listed = ", ".join(TABLE_RELATIONS)
    return [
        rule(
            "edge_relation_known",
            gxe.ExpectColumnValuesToBeInSet(column="relation", value_set=list(TABLE_RELATIONS)),
            "relation",
            f"one of {listed}",
            f"every relation of an edge is one of {listed}",
            f"a relation of an edge is not one of {listed}",
            lambda edges: ~edges["relation"].isin(TABLE_RELATIONS),
        ),
        rule(
            "edge_locale_known",
            gxe.ExpectColumnValuesToBeInSet(column="locale", value_set=list(LOCALES)),
            "locale",
            f"one of {', '.join(LOCALES)}",
            f"every locale of an edge is one of {', '.join(LOCALES)}",
            f"a locale of an edge is not one of {', '.join(LOCALES)}",
            lambda edges: ~edges["locale"].isin(LOCALES),
        ),
        rule(
            "edge_weight_positive",
            gxe.ExpectColumnValuesToBeBetween(column="weight", min_value=0, strict_min=True, max_value=MOST_WEIGHT),
            "weight",
            "a positive number",
            "every edge has a weight above 0",
            f"an edge's weight is not above 0 and at most {MOST_WEIGHT:g}",
            lambda edges: ~((edges["weight"] > 0) & (edges["weight"] <= MOST_WEIGHT)),
        ),
        rule(
            "edge_origin",
            gxe.ExpectColumnValuesToBeInSet(column="one_origin", value_set=[True]),
            "query, source_product_id",
            "a query, or a product where the relation is between products",
            "every edge starts at what its relation starts at, a query or a product",
            "an edge starts at none, at both, or not at what its relation starts at",
            lambda edges: ~edges_frame(edges)["one_origin"],
        ),
    ]


_ADVICE = {
    "other_action": "nothing stops; say what they are in tournament.toml, such as "
    'behaviour_actions = { view = "impression", wishlist = "ignore" }',
    "implausible_time": "nothing stops; write times as ISO 8601, or as timestamps of the right unit",
}
_CHECK_OF = {
    "other_action": "event_action_clear",
    "implausible_time": "behaviour_time_plausible",
    "after_cutoff": "behaviour_before_cutoff",
    "bot": "behaviour_of_customers",
    "product_unknown": "event_product_exists",
    "query_unknown": "event_query_exists",
    "locale_unknown": "event_locale_clear",
}


def _left_out_rules(dataset: Dataset) -> list[Rule]:
    """Return one warning per reason for which rows of logs are left out.

    An event of an action that is known to say nothing of a product, such as a filter that was set, gets no warning.
    """
    rules = []
    for reason, name in _CHECK_OF.items():
        files = [one.file for one in dataset.left_out if one.reason == reason]
        rules.append(
            Rule(
                name,
                "logs",
                gxe.ExpectColumnValuesToBeBetween(column=reason, max_value=0),
                False,
                ", ".join(files),
                "",
                "none",
                f"no row of a log is left out because {REASONS[reason]}",
                f"rows of logs are left out, each because {REASONS[reason]}",
                left_out_for(reason),
                _ADVICE.get(
                    reason, "nothing stops; see whether the log, the catalogue and the settings are those you mean"
                ),
            )
        )
    return rules


def _kept_rule(least: float) -> Rule:
    """Return the rule that most of each log is of use: a log that is not understood must not pass for an empty one."""

    def find(dataset: Dataset) -> tuple[list[str], int]:
        few = {file: share for file, share in kept_shares(dataset).items() if share < least}
        return [f"{file}: {share:.1%} of its rows are usable" for file, share in few.items()], len(few)

    return Rule(
        "behaviour_mostly_kept",
        "logs",
        gxe.ExpectColumnValuesToBeBetween(column="least_kept", min_value=least),
        True,
        "",
        "",
        f"at least {least:.0%} of the rows of each log",
        "most rows of every log are usable",
        "most rows of a log are left out",
        find,
        "the warnings above say why; correct the log or the settings, or lower behaviour_kept in tournament.toml",
    )
