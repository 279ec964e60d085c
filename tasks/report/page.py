"""Render the report page: one self-contained HTML document from which a reviewer can decide."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from esci_tournament.registry.checks import BUDGET
from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.report import drawing, exits, figures, glossary, selected, shown, words, worth_words
from esci_tournament.tasks.report.answers import answers, is_unjudged
from esci_tournament.tasks.report.curve_figures import with_curves
from esci_tournament.tasks.report.summary import ModelSummary, Summary

_COLOURS = {
    drawing.INK: "var(--ink)",
    drawing.FAINT: "var(--faint)",
    drawing.LINE: "var(--line)",
    drawing.PAPER: "var(--paper)",
    drawing.ACCENT: "var(--accent)",
    drawing.SECOND: "var(--second)",
    drawing.THIRD: "var(--third)",
}


def render(summary: Summary) -> str:
    """Return the whole page as HTML: no script, no network, every text escaped.

    Args:
        summary: What the page shows; anything optional in it may be absent.

    Returns:
        An HTML document.
    """
    changed, kept = setting_rows(summary)
    digest = figures.digest_of(summary)
    page = _template().render(
        summary=summary,
        answers=answers(summary),
        checks=check_rows(summary),
        examples=example_tables(summary),
        with_curves=with_curves(summary),
        glossary_place=Markup(glossary.PLACE),
        words=words,
        exits=exits,
        shown=shown,
        data=summary.data,
        selection=summary.selection,
        primary=words.metric_name(words.primary_metric(summary)),
        rows=model_rows(summary),
        best=words.best_shown(summary),
        changes=change_rows(summary),
        selected=selected,
        locale_rows=locale_rows(summary),
        worth=worth_tables(summary),
        drop_one={f"{model.name}/{model.version}": worth_words.drop_one(model) for model in summary.models},
        worth_words=worth_words,
        confusion=confusion_rows(summary),
        calibration=calibration_rows(summary),
        settings={"changed": changed, "kept": kept},
        figure={name: inline_svg(summary, name, digest) for name in figures.FIGURES if name != "confusion_matrix"},
    )
    return glossary.explain(page)


@functools.cache
def _template() -> Template:
    """Return the page's template, compiled once: a tournament writes its page three times."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_presentable,
    )
    environment.filters["link"] = link
    environment.filters["commands"] = commands
    return environment.get_template("page.html.j2")


def commands(text: str) -> Markup:
    """Return text as HTML, what stands between backticks as code.

    Example:
        >>> print(commands("run `tournament <x>`"))
        run <code>tournament &lt;x&gt;</code>
    """
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(words.printable(text)))))


def link(address: str, title: str = "") -> Markup:
    """Return an anchor when the address is a web address or a path, else the bare text: no other scheme is followed.

    Args:
        address: An http, https or file address, or a path, absolute or relative to the page.
        title: Text of the anchor; default: the address.

    Returns:
        HTML, escaped.

    Example:
        >>> print(link("https://example.org", "a <b>"))
        <a href="https://example.org" rel="noreferrer">a &lt;b&gt;</a>
        >>> print(link("javascript:alert(1)", "a"))
        a: javascript:alert(1)
    """
    address, title = words.clean(address), words.clean(title or address)
    scheme = urlsplit(address).scheme if "://" in address or ":" in address.split("/")[0] else ""
    if scheme in ("http", "https", "file"):
        target = address
    elif scheme or not address:
        return escape(title if title == address else f"{title}: {address}")
    else:
        target = Path(address).as_uri() if Path(address).is_absolute() else quote(address, safe="/#?=&%.-_~")
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(target, title)


def inline_svg(summary: Summary, name: str, digest: str = "") -> Markup | None:
    """Return a figure as SVG that can stand inside the page, or None when it has nothing to show.

    Its colours become the page's variables, its ids get the figure's name in front (ids are unique in a page), and
    what only a file of its own needs (prologue, metadata, a style sheet) goes.

    Args:
        summary: The summary of a tournament.
        name: A key of :data:`esci_tournament.tasks.report.figures.FIGURES`; the page has its caption under
            `<name>-caption`.
        digest: As for :func:`esci_tournament.tasks.report.figures.drawn_once`.

    Returns:
        An svg element, or None.
    """
    image = figures.drawn_once(summary, name, digest)
    if image is None:
        return None
    text = image.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<[^<>]*?\sid=")', rf"\g<1>{name}-", text)
    text = re.sub(r'((?:url\(|href=")#)', rf"\g<1>{name}-", text)
    text = re.sub(r'style="[^"]*"', lambda found: _themed(found.group()), text)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-labelledby="{name}-caption" ', 1))


def model_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return the table of models.

    Args:
        summary: The summary of a tournament.

    Returns:
        One row per model, in the summary's order: `model` (its :class:`ModelSummary`), and as text `name`, `kind`,
        `values` (metric -> value, see `alone_text` in `words.py`) and `cost` (memory, p50, p95, parameters and fit).
    """
    return [
        {
            "model": model,
            "name": words.display_name(model),
            "kind": _kind(model),
            "values": {metric: words.alone_text(summary, model, metric) for metric in words.metric_names(summary)},
            "cost": words.cost_row(model),
        }
        for model in summary.models
    ]


def change_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return the table of metrics before and after.

    Args:
        summary: The summary of a tournament.

    Returns:
        One row per metric: `name`, `primary` (bool: the metric decides), and as text `before` (the champion), `after`
        (the challenger), `interval`, `difference`, `single` and `single_name` (the best single model).
    """
    rows = []
    for metric, name in words.metric_names(summary).items():
        after, before = shown.value(shown.ensemble(summary), metric), shown.value(summary.champion, metric)
        low, high = summary.ensemble_intervals.get(metric) or (None, None)
        single = words.best_single(summary, metric)
        rows.append(
            {
                "name": name,
                "primary": metric == words.primary_metric(summary),
                "before": words.number(before),
                "after": words.number(after),
                "interval": words.interval(low, high),
                "difference": words.signed(None if before is None or after is None else after - before),
                "single": words.ABSENT if single is None else words.number(single[1]),
                "single_name": "" if single is None else words.display_name(single[0]),
            }
        )
    return rows


def check_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return the table of the verdict's checks.

    Args:
        summary: The summary of a tournament.

    Returns:
        One row per check, as text: `name`, `sentence`, `value`, `threshold`, and `result` ("passed", "failed" or "not
        judged", where there was too little data).
    """
    limits = [one for one in (summary.selection.get("budget") or {}).values() if one is not None]
    rows = []
    for check in summary.verdict.get("checks") or ():
        is_measured = check["name"] != BUDGET or limits  # without a limit nothing was compared
        rows.append(
            {
                "name": words.in_words(summary, check["name"]),
                "sentence": words.capitalised(words.in_words(summary, check.get("sentence") or "")),
                "value": words.plain(check.get("value")) if is_measured else words.ABSENT,
                "threshold": words.plain(check.get("threshold")) if is_measured else words.ABSENT,
                "result": "failed" if not check["passed"] else "not judged" if is_unjudged(check) else "passed",
            }
        )
    return rows


def example_tables(summary: Summary) -> dict[str, Any]:
    """Return the lists of examples, as they are shown.

    Args:
        summary: The summary of a tournament.

    Returns:
        `pairs` (text), `changed` (None, or what :func:`esci_tournament.tasks.report.examples.examples` tells, each
        example with `moved` as text) and `errors`: for each member its `name`, `count` and `shown`, with
        `probability` as text; {} without examples.
    """
    found = summary.examples
    if not found:
        return {}
    names = {f"{model.name}/{model.version}": words.display_name(model) for model in summary.models}
    changed = found["changed"]
    if changed is not None:
        shown_pairs = [one | {"moved": words.number(one["moved"], 2)} for one in changed["shown"]]
        changed = changed | {"shown": shown_pairs}
    errors = [
        {
            "name": names.get(candidate, words.clean(candidate)),
            "count": words.count(one["count"]),
            "shown": [pair | {"probability": words.number(pair["probability"], 2)} for pair in one["shown"]],
        }
        for candidate, one in found["errors"].items()
    ]
    return {"pairs": words.count(found["pairs"]), "changed": changed, "errors": errors}


def setting_rows(summary: Summary) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings that differ from their defaults, and all others.

    Args:
        summary: The summary of a tournament, perhaps of another release.

    Returns:
        Name -> value, both as text, twice. `home`, which is a place and no choice, is among the others.
    """
    changed = {
        name: value
        for name, value in summary.settings.items()
        if name != "home" and (name not in Settings.model_fields or value != _default(name))
    }
    kept = {name: value for name, value in summary.settings.items() if name not in changed}
    return dict(_flat(changed)), dict(_flat(kept))


def _default(name: str) -> Any:
    """Return the default of a setting as a summary holds settings, which is as JSON."""
    default = Settings.model_fields[name].get_default(call_default_factory=True, validated_data={})
    return json.loads(json.dumps(default, default=str))


def locale_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return the table of locales.

    Args:
        summary: The summary of a tournament.

    Returns:
        One row per locale, all as text: `locale`, `pairs` and `queries` in the test split, `values` (metric -> value of
        the challenger, or None where it was not measured) and `single` (the best single model by macro F1).
    """
    test = words.test_rows(summary)
    rows = []
    for locale in words.locales(summary):
        metrics = shown.by_locale(summary).get(locale)
        single = words.best_single(summary, "macro_f1", locale)
        rows.append(
            {
                "locale": words.clean(locale),
                "pairs": words.count(test.get(locale, {}).get("pairs", 0)),
                "queries": words.count(test.get(locale, {}).get("queries", 0)),
                "values": None
                if metrics is None
                else {m: words.number(metrics.value(m)) for m in words.metric_names(summary)},
                "single": "" if single is None else f"{words.display_name(single[0])} ({words.number(single[1])})",
            }
        )
    return rows


def worth_tables(summary: Summary) -> list[dict[str, Any]]:
    """Return the tables of utility by class and by locale; one without values is left out.

    Args:
        summary: The summary of a tournament.

    Returns:
        For each table `title`, `columns` (headings) and `rows`: (member, cells), each cell its text and its share in
        [0, 1] for the shading.
    """
    tables = []
    for title, shares in (("by class", summary.utility_by_class), ("by locale", summary.utility_by_locale)):
        columns = list(dict.fromkeys(column for row in shares.values() for column in row))
        if columns:
            body = [(words.clean(name), [_cell(row.get(column)) for column in columns]) for name, row in shares.items()]
            heads = [words.CLASS_NAMES.get(column, words.clean(column)) for column in columns]
            tables.append({"title": title, "columns": heads, "rows": body})
    return tables


def confusion_rows(summary: Summary) -> list[tuple[str, list[tuple[str, str, float]]]]:
    """Return the challenger's confusion matrix, as it is shown.

    Args:
        summary: The summary of a tournament.

    Returns:
        One row per true class: its name and, for each predicted class, (share of the row, a dash where the row has no
        pair, count, share as a number in [0, 1]); [] when nothing was counted.
    """
    counts = shown.confusion(summary)
    if not any(any(row) for row in counts):
        return []
    rows = []
    for name, row in zip(words.CLASS_NAMES.values(), counts, strict=True):
        total = sum(row)
        shares = [value / total if total else 0.0 for value in row]
        texts = [words.share(part) if total else words.ABSENT for part in shares]
        rows.append((name, [(text, words.count(n), part) for text, n, part in zip(texts, row, shares, strict=True)]))
    return rows


def calibration_rows(summary: Summary) -> list[tuple[str, str, str, str]]:
    """Return the table of calibration errors.

    Args:
        summary: The summary of a tournament.

    Returns:
        (name, temperature, error, error when tempered), all as text, of the ensemble and of each model that was
        measured; [] without any.
    """
    rows = []
    if summary.ensemble_calibration_error is not None:
        rows.append(("Ensemble", words.ABSENT, words.number(summary.ensemble_calibration_error), words.ABSENT))
    for model in summary.models:
        if model.calibration_error is not None:
            before, after = words.number(model.calibration_error), words.number(model.calibration_error_after)
            rows.append((words.display_name(model), words.number(model.temperature), before, after))
    return rows


def _cell(value: float | None) -> tuple[str, float]:
    return words.share(value), min(max(value or 0.0, 0.0), 1.0)


def _kind(model: ModelSummary) -> str:
    family = words.clean(model.family).replace("_", " ")
    part = "" if model.cover is None or model.cover >= 1 else f", covers {words.share(model.cover)} of the pairs"
    return (f"{family}, {words.clean(model.detail)}" if model.detail else family) + part


def _presentable(value: object) -> object:
    """Clean every text the template prints, and have a dash say what it means; markup made here is clean already."""
    if value == words.ABSENT:
        return Markup('<span title="not measured, or nothing to measure">{}</span>').format(value)
    return words.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _themed(style: str) -> str:
    for colour, variable in _COLOURS.items():
        style = style.replace(colour, variable)
    return style


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "not set" if value is None else str(value)
