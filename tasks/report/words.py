"""Write the report's numbers with their units, and its sentences.

Page, figures and terminal table take their texts from here, so that they agree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from esci_tournament.registry.addresses import without_password
from esci_tournament.registry.checks import SINGLE
from esci_tournament.registry.extensions import LOG_LOSS
from esci_tournament.registry.labels import LABEL_NAMES, LABELS, LOCALES
from esci_tournament.registry.reviews import NO_PERSON
from esci_tournament.tasks.report import shown
from esci_tournament.tasks.report.summary import Metrics, ModelSummary, Summary

METRIC_NAMES: dict[str, str] = {"accuracy": "accuracy", "macro_f1": "macro F1", "weighted_f1": "weighted F1"}
CLASS_NAMES: dict[str, str] = dict(zip(LABELS, LABEL_NAMES, strict=True))
ABSENT = "–"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]+")


def printable(text: object) -> str:
    """Return text that cannot steer a terminal, a browser or an XML reader.

    Control characters, lone surrogates and direction overrides become a space; a password in an address becomes `***`.

    Args:
        text: Any object; it is shown as `str` shows it.

    Returns:
        The text, white space around it kept.

    Example:
        >>> printable("postgresql://me:secret@db/ledger")
        'postgresql://me:***@db/ledger'
    """
    return without_password(_CONTROL.sub(" ", str(text)))


def clean(text: object) -> str:
    """Return printable text without white space around it."""
    return printable(text).strip()


def number(value: float | None, digits: int = 3) -> str:
    """Return a metric with a fixed number of decimals, or a dash when there is none.

    Args:
        value: The metric; None, NaN and infinity count as none.
        digits: Decimals.

    Returns:
        The number, with a true minus sign (U+2212).

    Example:
        >>> number(0.56342), number(0.56342, 4), number(None)
        ('0.563', '0.5634', '–')
    """
    return ABSENT if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def plain(value: object) -> str:
    """Return a check's value, which may be a number, a text, a truth value or None.

    Args:
        value: The value.

    Returns:
        "yes" or "no"; a dash for None; for a number below 2, what :func:`number` returns; for another number, one
        decimal or, if it is whole, none; a text as it is.

    Example:
        >>> plain(True), plain(0.5), plain(12345), plain(2.26)
        ('yes', '0.500', '12,345', '2.3')
    """
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ABSENT}[value]
    if isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) < 2:
            return number(value)
        return (count(value) if float(value).is_integer() else f"{value:,.1f}").replace("-", "−")
    return clean(value)


def signed(value: float | None) -> str:
    """Return a difference of metrics with its sign; what rounds to zero has none.

    Example:
        >>> signed(0.0123), signed(-0.0001)
        ('+0.012', '0.000')
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{value:+.3f}".replace("-", "−")
    return "0.000" if text[1:] == "0.000" else text


def share(value: float | None) -> str:
    """Return a share in [0, 1] in per cent with one decimal, or a dash when there is none.

    Example:
        >>> share(0.4123), share(None)
        ('41.2 %', '–')
    """
    return ABSENT if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """Return an interval of metrics, or "" when there is none."""
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def memory(mib: float | None) -> str:
    """Return an amount of memory given in MiB, in MiB or, from 10 GiB, in GiB.

    Example:
        >>> memory(12.34), memory(20480)
        ('12.3 MiB', '20.0 GiB')
    """
    if mib is None or not math.isfinite(mib):
        return ABSENT
    if mib >= 10_240:
        return f"{mib / 1024:.1f} GiB"
    return f"{mib:.1f} MiB" if mib < 100 else f"{mib:,.0f} MiB"


def milliseconds(value: float | None) -> str:
    """Return a time given in ms, with one decimal below 100 ms."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def count(value: float | None) -> str:
    """Return a whole number with separators of thousands, or a dash when there is none."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:,.0f}"


def parameters(value: float | None) -> str:
    """Return a number of parameters, shortened to thousands (k), millions (M) or billions (G).

    Example:
        >>> parameters(22_713_604), parameters(812)
        ('22.7 M', '812')
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """Return a duration given in seconds: seconds below 100, minutes below two hours, else hours and minutes.

    Example:
        >>> duration(59.94), duration(1284.6), duration(9000)
        ('59.9 s', '21 min', '2 h 30 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def enumerate_words(words: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"; "" for no words.

    Example:
        >>> enumerate_words(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def display_name(model: ModelSummary) -> str:
    """Return the name under which a model is shown, with its version."""
    return clean(f"{model.name} v{model.version}" if model.version else model.name)


def metric_name(metric: str) -> str:
    """Return how a metric is written in text.

    Example:
        >>> metric_name("macro_f1"), metric_name("cohen_kappa")
        ('macro F1', 'cohen kappa')
    """
    return METRIC_NAMES.get(metric, clean(metric.replace("_", " ")))


def metric_names(summary: Summary) -> dict[str, str]:
    """Return metric -> how it is written, of those that every table shows: the three, and the declared one."""
    primary = primary_metric(summary)
    return METRIC_NAMES | {primary: metric_name(primary)}


def in_words(summary: Summary, text: object) -> str:
    """Return clean text, of a verdict say, that names metrics as every table does: macro F1 for macro_f1."""
    names = metric_names(summary) | {LOG_LOSS: "log loss"}
    metrics = "|".join(map(re.escape, names))
    return re.sub(rf"(?<![\w/-])(?:{metrics})(?![\w/-])", lambda found: names[found[0]], clean(text))


def primary_metric(summary: Summary) -> str:
    """Return the name of the metric that the tournament was decided on."""
    return str(summary.settings.get("primary_metric", "macro_f1"))


def members(summary: Summary) -> list[ModelSummary]:
    """Return the members of the challenger, in the order of the summary."""
    return [model for model in summary.models if model.status == "member"]


def others(summary: Summary, status: str) -> list[ModelSummary]:
    """Return the models of one status ("evicted" or "failed"), in the order of the summary."""
    return [model for model in summary.models if model.status == status]


def locales(summary: Summary) -> list[str]:
    """Return every locale that the data or the metrics have, in the order of the data set, then by name."""
    known = {str(row["locale"]) for row in summary.data.get("by_split_locale", ())} | set(shown.by_locale(summary))
    return [name for name in LOCALES if name in known] + sorted(known - set(LOCALES))


def test_rows(summary: Summary) -> dict[str, dict[str, Any]]:
    """Return locale -> its row of `by_split_locale` for the test split; a locale without test pairs is not in it."""
    return {str(row["locale"]): row for row in summary.data.get("by_split_locale", ()) if row["split"] == "test"}


def best_single(summary: Summary, metric: str, locale: str | None = None) -> tuple[ModelSummary, float] | None:
    """Return the model that is best alone, of those that are shown on the same pairs as the ensemble.

    Args:
        summary: The summary of a tournament.
        metric: The metric that decides, of those in :class:`~esci_tournament.tasks.report.summary.Metrics`.
        locale: A locale, to look at its pairs alone.

    Returns:
        The model and its value; None when no model was measured.
    """
    found = []
    for model in summary.models:
        value = shown.value(shown.alone(summary, model, locale), metric)
        if value is not None:
            found.append((model, value))
    return max(found, key=lambda pair: pair[1], default=None)


def best_shown(summary: Summary) -> dict[str, str]:
    """Return, for each metric, the best value among ensemble and models as it is shown.

    Every value that looks the same is set in bold, so the texts are compared and not the numbers.

    Args:
        summary: The summary of a tournament.

    Returns:
        Metric -> text.
    """
    every: list[Metrics | None] = [shown.ensemble(summary), *(shown.alone(summary, model) for model in summary.models)]
    best = {}
    for metric in metric_names(summary):
        known = [value for value in (shown.value(metrics, metric) for metrics in every) if value is not None]
        best[metric] = number(max(known, default=None))
    return best


def single(summary: Summary) -> str:
    """Return what a model is called that is shown on the same pairs as the ensemble."""
    return "member alone" if any(shown.aside(summary, model) for model in summary.models) else "single model"


def alone_text(summary: Summary, model: ModelSummary, metric: str) -> str:
    """Return a metric of a model alone as it is shown.

    Args:
        summary: The summary of a tournament.
        model: One of its models.
        metric: Name of the metric.

    Returns:
        The number on the same pairs as the ensemble's; in parentheses that on the aggregator's pairs, where the former
        is sealed for this model alone; a dash where neither was measured.
    """
    aside = shown.value(shown.aside(summary, model), metric)
    return number(shown.value(shown.alone(summary, model), metric)) if aside is None else f"({number(aside)})"


# What a verdict is called that is not evaluable for one of these reasons alone, which are no trouble
_NOTHING_TO_COMPARE = {("champion",): "First champion", ("newcomers",): "Nothing new"}
_SAID = ("promote", "refused", "not evaluable")  # how the judge's reasons begin


def outcome(summary: Summary) -> str:
    """Return "promote", "refuse", "not-evaluable", "no-verdict", or what else the verdict has as its outcome."""
    return clean(summary.verdict.get("outcome", "")).replace("_", "-").replace(" ", "-") or "no-verdict"


def verdict_words(summary: Summary) -> str:
    """Return the verdict in two or three words."""
    words = {"promote": "Promote", "refuse": "Refuse", "not-evaluable": "Not evaluable", "no-verdict": "No verdict"}
    if outcome(summary) == "not-evaluable":
        missing = tuple(summary.verdict.get("missing", ()))
        return _NOTHING_TO_COMPARE.get(missing, words["not-evaluable"])
    return words.get(outcome(summary), outcome(summary))


def tone(summary: Summary) -> str:
    """Return "good", "bad" or "warn", the colour of a verdict; a first champion is no cause for a warning."""
    is_good = outcome(summary) == "promote" or verdict_words(summary) in _NOTHING_TO_COMPARE.values()
    return "good" if is_good else "bad" if outcome(summary) == "refuse" else "warn"


def verdict_reason(summary: Summary) -> str:
    """Return why the verdict is as it is, capitalised, without the word for the outcome that it may begin with."""
    reason = in_words(summary, summary.verdict.get("reason", ""))
    said, _, rest = reason.partition(": ")
    return capitalised(rest if rest and said.lower() in _SAID else reason)


def is_first(summary: Summary) -> bool:
    """Return whether there was no champion to compare with."""
    return summary.champion is None and not (summary.sealed and summary.champion_version)


def look_sentence(summary: Summary) -> str:
    """Return what a sealed verdict has cost and what it was reached on, in a sentence; "" for one that is told."""
    verdict = summary.verdict
    if not summary.sealed or verdict.get("look") is None:
        return ""
    sizes = [f"{count(verdict[key])} {key}" for key in ("queries", "pairs") if verdict.get(key)]
    split = f"a test split of {' and '.join(sizes)}" if sizes else "the test split"
    left = f"{100 * verdict['alpha_left']:.0f} % of the error probability is left"
    if not verdict["spends_look"]:
        return f"No look at {split} was spent; {left}."
    return f"Look {count(verdict['look'])} at {split}, at level {verdict['level']:.2g}; {left}."


def headline(summary: Summary) -> str:
    """Return what happened, in one sentence, and in another one that no ensemble beats the best model, if so."""
    return " ".join(filter(None, (_what_happened(summary), nobody_beats(summary))))


def nobody_beats(summary: Summary) -> str:
    """Return that the challenger is no better than the best model alone, in a sentence; "" where it is."""
    check = next((one for one in summary.verdict.get("checks", ()) if one["name"] == SINGLE), None)
    if check is not None and not check["passed"]:
        best = (summary.selection.get("best_alone") or {}).get("member", "its best model")
        return f"On the test split it is worse than {clean(best)} alone."
    alone = (summary.selection.get("combination") or {}).get("alone")
    return f"No ensemble is ahead of the best model: it answers as {clean(alone)} alone." if alone else ""


def _what_happened(summary: Summary) -> str:
    old = f"champion version {clean(summary.champion_version)}" if summary.champion_version else "the champion"
    new = f"version {clean(summary.ensemble_version)}" if summary.ensemble_version else "the challenger"
    if summary.promoted:
        if summary.champion is None:
            return f"The first champion is installed: {new}."
        return f"The challenger is champion now: {new} replaces {old.removeprefix('champion ')}."
    reigns = summary.champion is not None or summary.champion_version
    stays = f"{old} stays" if reigns else "there is still no champion"
    if summary.awaits_review:
        if outcome(summary) == "promote":
            return f"The challenger passed and waits for review; until then {stays}."
        return f"There is nothing to compare the challenger with, and it waits for review; until then {stays}."
    if outcome(summary) == "promote" and not summary.decision:
        return f"The challenger passed and awaits a decision; until then {stays}."
    if outcome(summary) == "promote":
        became = "the challenger passed, but was not promoted"
    elif outcome(summary) == "refuse":
        became = "the challenger is refused"
    elif "newcomers" in summary.verdict.get("missing", ()):
        became = "there was nothing new to judge"
    else:
        became = "the challenger could not be judged"
    # What serves comes first: nobody must take a refused challenger for a success
    return f"{capitalised(stays)}; {became}." if reigns else f"{capitalised(became)}; {stays}."


def decision_sentence(summary: Summary) -> str:
    """Return who decided what and why, or "" without a decision; with what has a person decide, where none did."""
    if not summary.decision:
        return ""
    by, reason = clean(summary.decision.get("by", "")), clean(summary.decision.get("reason", ""))
    if by == NO_PERSON:
        repeated = reason == clean(summary.verdict.get("reason", ""))  # it stands beside the verdict already
        return (
            "Decision: approved by the verdict alone, without a person, because no review is required in this home"
            f"{'' if repeated else ': '}{'' if repeated else reason.rstrip('.')}. A person decides once `tournament "
            "up` or another Prefect server was used, or after `tournament policy set review=required --reason WHY`."
        )
    sentence = f"Decision: {clean(summary.decision.get('decision', 'none'))}"
    return sentence + (f", by {by}" if by else "") + (f": {reason}" if reason else "") + ("" if reason else ".")


def capitalised(text: object) -> str:
    """Return clean text that begins with a capital."""
    cleaned = clean(text)
    return cleaned[:1].upper() + cleaned[1:]


def machine(summary: Summary) -> str:
    """Return the machine the tournament ran on, in a line; "" when nothing is known of it."""
    forms = {
        "device": "device {}",
        "cpu": "{}",
        "cores": "{} cores",
        "memory_gib": "{} GiB of memory",
        "platform": "{}",
        "python": "Python {}",
    }
    known = {key: value for key, value in summary.machine.items() if value not in (None, "")}
    parts = [forms[key].format(clean(known.pop(key))) for key in forms if key in known]
    return ", ".join(parts + [f"{clean(key)} {clean(value)}" for key, value in known.items()])


def composition(summary: Summary) -> list[str]:
    """Return which members are in, which of them are new, and which models were evicted or failed, a sentence each."""
    inside = members(summary)
    names = {status: [display_name(model) for model in others(summary, status)] for status in ("evicted", "failed")}
    size = "1 member" if len(inside) == 1 else f"{len(inside)} members"
    sentences = [f"The ensemble has {size}: {enumerate_words([display_name(model) for model in inside])}."]
    if fresh := [display_name(model) for model in inside if model.entry == "candidate"]:
        sentences.append(f"New in it: {enumerate_words(fresh)}.")
    sentences += [f"{status.capitalize()}: {enumerate_words(found)}." for status, found in names.items() if found]
    return sentences if inside else [f"The ensemble has no member.{''.join(' ' + one for one in sentences[1:])}"]


def comparison(summary: Summary) -> str:
    """Return whether the ensemble is better than the models alone, metric by metric, on the exact values."""
    ahead, behind = [], []
    others = f"every {single(summary)}"
    for metric, name in metric_names(summary).items():
        best, own = best_single(summary, metric), shown.value(shown.ensemble(summary), metric)
        if own is None:
            return "The numbers of the test split are sealed."
        if best is None:
            return f"No single model has metrics {shown.place(summary)} to compare the ensemble with."
        model, value = best
        if own > value:
            ahead.append(name)
        else:
            verb = "equals it" if own == value else "is ahead"
            behind.append(f"on {name} {display_name(model)} {verb} ({number(value, 4)} against {number(own, 4)})")
    start = f"{capitalised(shown.place(summary))} the ensemble beats {others} on {enumerate_words(ahead)}"
    if not behind:
        return f"{start}."
    rest = enumerate_words(behind)
    if ahead:
        return f"{start}; {rest}."
    return f"{capitalised(shown.place(summary))} the ensemble does not beat {others}: {rest}."


def budget_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return the use of each resource against its limit.

    Args:
        summary: The summary of a tournament.

    Returns:
        One row for memory and one for latency: `name`, `used`, `limit` and `sentence` as text, and `share`, the used
        share of the limit (above 1 when it is exceeded), None without a limit or a use.
    """
    budget, used = summary.selection.get("budget") or {}, summary.selection.get("used") or {}
    rows = []
    for key, name, write in (
        ("memory_mib", "Memory", memory),
        ("latency_ms", "Latency a page of 40 pairs", milliseconds),
    ):
        limit, amount = budget.get(key), used.get(key)
        part = amount / limit if limit and amount is not None else None
        if part is None:
            known = "use not known" if amount is None else f"{write(amount)} used"
            sentence = f"{known}, {'no limit set' if limit is None else f'limit {write(limit)}'}"
        else:
            sentence = f"{write(amount)} of {write(limit)} ({100 * part:.0f} %)"
        rows.append({"name": name, "used": write(amount), "limit": write(limit), "share": part, "sentence": sentence})
    return rows


def regret_sentence(summary: Summary) -> str:
    """Return how far the chosen set is from the best one known, after how many re-fits, and how it is combined."""
    selection, metric = summary.selection, metric_name(primary_metric(summary))
    regret, refits = selection.get("regret"), selection.get("refits")
    effort = f" after {count(refits)} re-fits" if refits is not None else ""
    if regret is None:
        return f"Rule {clean(selection.get('rule', 'unknown'))}{effort}; the best possible set is not known."
    known = "the best set known that fits the budget"
    best = f"it is {known}" if regret <= 0 else f"{known} has {number(regret, 4)} more {metric}"
    return f"Rule {clean(selection.get('rule', 'unknown'))}{effort}; on validation, {best}.{combination_words(summary)}"


def combination_words(summary: Summary) -> str:
    """Return how the members are combined and how labels are decided, in sentences that begin with a space; or ""."""
    found = summary.selection.get("combination") or {}
    if not found:
        return ""
    if found["alone"]:
        return (
            f" No combination is ahead of the best member out of fold: the answer is that of {clean(found['alone'])}."
        )
    rounds = found["rounds"]
    trees = f", and {count(rounds)} rounds of trees on top of it" if rounds else ""
    offsets = [
        f"{label} {signed(offset)}" for label, offset in zip(LABELS, found["offsets"], strict=True) if round(offset, 3)
    ]
    decided = f" A label is decided by log-probability plus an offset: {', '.join(offsets)}." if offsets else ""
    return f" The members are combined log-linearly{trees}.{decided}"


def cost_row(model: ModelSummary) -> dict[str, str]:
    """Return a model's cost as it is shown.

    Args:
        model: The model.

    Returns:
        `memory`, `p50` and `p95` (times of a page of 40 pairs), `parameters` and `fit`, all as text.
    """
    cost = model.cost
    return {
        "memory": memory(cost.get("memory_mib")),
        "p50": milliseconds(cost.get("milliseconds_per_page_p50")),
        "p95": milliseconds(cost.get("milliseconds_per_page_p95")),
        "parameters": parameters(cost.get("parameters")),
        "fit": duration(model.fit_seconds),
    }


def ensemble_cost_row(summary: Summary) -> dict[str, str]:
    """Return the cost of the whole ensemble: what the selection counted, and sums over members where all are known.

    Args:
        summary: The summary of a tournament.

    Returns:
        The keys of :func:`cost_row`; `p95` is a dash.
    """
    used = summary.selection.get("used") or {}
    inside = members(summary)
    sizes = [model.cost.get("parameters") for model in inside]
    times = [model.fit_seconds for model in inside]
    return {
        "memory": memory(used.get("memory_mib")),
        "p50": milliseconds(used.get("latency_ms")),
        "p95": ABSENT,
        "parameters": parameters(total(sizes)),
        "fit": duration(total(times)),
    }


def total(parts: Sequence[float | None]) -> float | None:
    """Return the sum of a cost over members, None unless it is known of every one of them.

    Example:
        >>> total([1.5, 2.0]), total([1.5, None])
        (3.5, None)
    """
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None
