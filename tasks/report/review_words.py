"""Write what a reviewer sees beside the form: what would change, what it gains, what it costs, and where to read on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from esci_tournament.tasks.ensemble.budget import Budget, Cost
from esci_tournament.tasks.report import shown, words, worth_words
from esci_tournament.tasks.report.markdown import Bold, Plain, escape, grid, link
from esci_tournament.tasks.report.selected import gain_markdown
from esci_tournament.tasks.report.summary import ModelSummary, Summary


def review_title(summary: Summary) -> str:
    """Return the question that the reviewer is to answer, in one line."""
    version = f"version {words.clean(summary.ensemble_version)}" if summary.ensemble_version else "the challenger"
    if words.is_first(summary):
        return f"Install {version} as the first champion?"
    return f"Promote {version} over champion version {words.clean(summary.champion_version)}?"


def review_markdown(
    summary: Summary,
    before: Sequence[str],
    links: Mapping[str, str],
    notes: Sequence[str] = (),
    deadline: str = "",
    manifest: str = "",
) -> str:
    """Return all that a reviewer needs to decide, as Markdown with every foreign text escaped.

    Args:
        summary: Of the tournament, its verdict being the one that is to be decided.
        before: Members of the champion that it was judged against, candidate ids; () without one.
        links: Title -> address; what is no web address is shown as text.
        notes: What to say first, such as why the question is asked again; a sentence each.
        deadline: When the review closes without an answer, in words such as "on 3 May"; "" leaves it out.
        manifest: Digest of the manifest of the challenger's files, "" leaves it out.

    Returns:
        Markdown that ends with a line break.
    """
    parts = [f"> **{escape(note)}**" for note in notes]
    parts.append(f"### {escape(review_title(summary))}")
    said, reason = words.verdict_words(summary), words.verdict_reason(summary)
    for metric, name in words.metric_names(summary).items():
        reason = reason.replace(metric, name)
    parts.append(f"**Verdict: {escape(said)}.** {escape(reason)}".strip())
    if summary.sealed:
        parts.append(escape(f"{words.look_sentence(summary)} {shown.note(summary)}"))
    parts.append(changes(summary, before))
    parts.append(metrics_table(summary))
    if gains := gain_markdown(summary):
        parts.append(gains)
    if by_locale := locales_table(summary):
        parts.append(by_locale)
    parts.append(cost_table(summary, before))
    if worth := worth_table(summary):
        parts.append(worth)
    parts += findings(summary)
    if links:
        parts.append("  \n".join(link(title, address) for title, address in links.items() if address))
    if manifest:
        parts.append(f"The decision is on the files of manifest `{escape(manifest[:12])}`; others are never served.")
    if deadline:
        parts.append(f"Without an answer the challenger is not promoted: the review closes {escape(deadline)}.")
    return "\n\n".join(parts) + "\n"


def changes(summary: Summary, before: Sequence[str]) -> str:
    """Return which members come in, go and stay.

    Args:
        summary: The summary of a tournament.
        before: Members of the champion, candidate ids.

    Returns:
        Three lines of Markdown.
    """
    after = {_id(model): words.display_name(model) for model in words.members(summary)}
    known = {_id(model): words.display_name(model) for model in summary.models}
    come = [name for member, name in after.items() if member not in before]
    gone = [known.get(member, member.replace("/", " v")) for member in before if member not in after]
    stay = [name for member, name in after.items() if member in before]
    rows = (("Members in", come), ("Members evicted", gone), ("Members that stay", stay))
    return "  \n".join(f"{title}: {escape(words.enumerate_words(found)) or 'none'}" for title, found in rows)


def metrics_table(summary: Summary) -> str:
    """Return every metric before and after with their 95 % intervals, as a Markdown table."""
    primary, rows = words.primary_metric(summary), []
    for metric, name in words.metric_names(summary).items():
        row = _row(summary, "all", metric)
        cells = [_spread(row, "champion"), _spread(row, "challenger"), _spread(row, "difference", words.signed)]
        rows.append([Bold(name) if metric == primary else name, *cells])
    return grid([f"metric {shown.place(summary)}", "before", "after", "difference"], rows, "lrrr")


def locales_table(summary: Summary) -> str:
    """Return the primary metric by locale before and after, as a Markdown table; "" without any locale."""
    metric = words.primary_metric(summary)
    rows = []
    for locale in words.locales(summary):
        if locale in shown.by_locale(summary):
            row = _row(summary, locale, metric)
            cells = [_spread(row, "champion"), _spread(row, "challenger"), _spread(row, "difference", words.signed)]
            rows.append([locale, *cells])
        else:
            rows.append([locale, words.ABSENT, "not measured", words.ABSENT])
    return (
        grid([f"{words.metric_name(metric)} by locale", "before", "after", "difference"], rows, "lrrr") if rows else ""
    )


def cost_table(summary: Summary, before: Sequence[str]) -> str:
    """Return memory and latency before and after beside the budget.

    Args:
        summary: The summary of a tournament.
        before: Members of the champion, candidate ids; their costs are shown when all of them took part.

    Returns:
        A Markdown table.
    """
    used, old = summary.selection.get("used") or {}, _cost_of(summary, before)
    limits = summary.selection.get("budget") or {}
    rows = []
    for key, name, write, was in (
        ("memory_mib", "memory", words.memory, old.memory_mib if old else None),
        ("latency_ms", "latency, a page of 40 pairs", words.milliseconds, old.milliseconds if old else None),
    ):
        limit = limits.get(key)
        rows.append([name, write(was), write(used.get(key)), "no limit" if limit is None else write(limit)])
    return grid(["cost", "before", "after", "budget"], rows, "lrrr")


def worth_table(summary: Summary) -> str:
    """Return what each member is worth in the challenger and what it costs, as a Markdown table; "" without members."""
    metric = words.metric_name(words.primary_metric(summary))
    rows = []
    for model in words.members(summary):
        price = words.cost_row(model)
        worth = [worth_words.utility(model), worth_words.drop_one(model)]
        rows.append([words.display_name(model), *worth, price["memory"], price["p50"]])
    heads = ["member", "SHAP share (95 % interval)", f"{metric} lost without it", "memory", "page"]
    notes = [escape(text) for text in (worth_words.ranking(summary), *summary.interchangeable) if text]
    return "\n\n".join([grid(heads, rows, "lrrrr"), *notes]) if rows else ""


def findings(summary: Summary) -> list[str]:
    """Return what stands against a promotion or should be known.

    Args:
        summary: The summary of a tournament.

    Returns:
        Markdown lists with a heading each, as far as there is anything: failed checks, cautions, models that failed or
        whose columns seem to be mixed up, what MLflow says otherwise than the record, failed checks of the data.
    """
    failed = [check["sentence"] for check in summary.verdict.get("checks", ()) if not check["passed"]]
    cautions = list(summary.verdict.get("cautions", ()))
    broken = [f"{words.display_name(model)} failed: {model.reason}" for model in words.others(summary, "failed")]
    data = [check["sentence"] for check in summary.checks if not check["passed"]]
    edited = list(summary.differences.values())
    rows = (
        *(("Checks that failed", failed), ("Cautions", cautions), ("Models", [*broken, *summary.mixed_up])),
        *(("Edited or deleted in MLflow", edited), ("Data", data)),
    )
    return [f"**{title}:**\n" + "\n".join(f"- {escape(one)}" for one in found) for title, found in rows if found]


def _row(summary: Summary, scope: str, metric: str) -> Mapping[str, Any]:
    """Return the verdict's row of a metric; what an older summary lacks is made of its other fields."""
    for row in summary.verdict.get("metrics", ()):
        if (row["scope"], row["metric"]) == (scope, metric):
            return row
    own = shown.ensemble(summary) if scope == "all" else shown.by_locale(summary)[scope]
    old = summary.champion if scope == "all" else None
    low, high = (summary.ensemble_intervals.get(metric) if scope == "all" else None) or (None, None)
    after, was = shown.value(own, metric), shown.value(old, metric)
    return {
        "challenger": after,
        "challenger_low": low,
        "challenger_high": high,
        "champion": was,
        "difference": None if was is None or after is None else after - was,
    }


def _spread(row: Mapping[str, Any], side: str, write: Any = words.number) -> str:
    low, high = row.get(f"{side}_low"), row.get(f"{side}_high")
    value = write(row.get(side))
    if low is None or high is None:
        # A row of the verdict says so by its None; one that was made of an older summary knows of no interval
        return f"{value} (too few)" if "scope" in row and row.get(side) is not None else value
    return Plain(f"{escape(value)} ({write(low)} to {write(high)})")


def _cost_of(summary: Summary, members: Sequence[str]) -> Cost | None:
    """Return what the members of the champion cost together, None when one of them was not measured here."""
    costs = {
        _id(model): Cost(model.cost["memory_mib"], model.cost["milliseconds_per_page_p50"], model.cost.get("kind", ""))
        for model in summary.models
        if model.cost
    }
    if not members or any(member not in costs for member in members):
        return None
    return Budget(execution=summary.settings.get("execution", "series")).used(members, costs)


def _id(model: ModelSummary) -> str:
    return f"{model.name}/{model.version}"
