"""Show the report in the terminal, about one screen of it, and as Markdown."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from esci_tournament.tasks.report import exits, selected, shown, words, worth_words
from esci_tournament.tasks.report.markdown import Bold, escape, grid
from esci_tournament.tasks.report.summary import Metrics, ModelSummary, Summary

_TONES = {"good": "bold green", "bad": "bold red", "warn": "bold yellow"}
_STATUS = {"member": "green", "failed": "red", "champion": "bold green", "challenger": "bold"}


def render_table(summary: Summary, console: Console) -> None:
    """Print what a reviewer needs: verdict, models and ensemble, locales, budget, where everything is.

    Args:
        summary: What is shown; anything optional in it may be absent.
        console: Where it goes; less than 116 columns show fewer figures. No name can send escape codes to it.
    """
    console.print(Text(words.headline(summary), style="bold"))
    verdict = Text.assemble(
        ("Verdict: ", "bold"),
        (words.verdict_words(summary), _TONES[words.tone(summary)]),
        ". ",
        words.verdict_reason(summary),
    )
    console.print(verdict)
    if look := words.look_sentence(summary):
        console.print(Text(look))
    for check in summary.verdict.get("checks") or ():
        if not check["passed"]:
            text = f"  not passed: {words.clean(check['name'])}: {words.clean(check.get('sentence', ''))}"
            console.print(Text(text, style="red"))
    if decision := words.decision_sentence(summary):
        console.print(Text(decision))
    console.print()
    console.print(_models(summary, console.width >= 116))
    console.print()
    if note := shown.note(summary):
        console.print(Text(note, style="dim"))
    for model in words.others(summary, "evicted") + words.others(summary, "failed"):
        if model.reason:
            console.print(Text(f"{words.display_name(model)} {model.status}: {words.clean(model.reason)}", style="dim"))
    for text in filter(None, (worth_words.ranking(summary), *summary.interchangeable)):
        console.print(Text(words.clean(text), style="dim"))
    for text in (*summary.mixed_up, *summary.differences.values()):
        console.print(Text(words.clean(text), style="yellow"))
    console.print(Text(words.comparison(summary)))
    console.print(Text(f"{words.capitalised(words.metric_name(words.primary_metric(summary)))}: {_locales(summary)}"))
    console.print(Text("; ".join(f"{row['name']}: {row['sentence']}" for row in words.budget_rows(summary))))
    if early := exits.sentence(summary):
        console.print(Text(early))
    for title, address in summary.links.items():
        # Addresses are never wrapped: a broken path cannot be opened.
        console.print(Text(f"{words.clean(title)}: {words.clean(address)}"), soft_wrap=True)


def as_markdown(summary: Summary) -> str:
    """Return the report as Markdown tables, every foreign text escaped; it ends with a line break."""
    parts = [
        f"**{escape(words.headline(summary))}**",
        f"Verdict: **{escape(words.verdict_words(summary))}**. {escape(words.verdict_reason(summary))}".strip(),
    ]
    if look := words.look_sentence(summary):
        parts.append(escape(look))
    if decision := words.decision_sentence(summary):
        parts.append(escape(decision))
    parts += [
        escape(" ".join(words.composition(summary))),
        escape(words.comparison(summary)),
        _markdown_models(summary),
        *([escape(note)] if (note := shown.note(summary)) else []),
    ]
    parts += [escape(text) for text in (worth_words.ranking(summary), *summary.interchangeable) if text]
    if reasons := [model for model in summary.models if model.reason]:
        lines = (f"- {escape(words.display_name(model))}, {model.status}: {escape(model.reason)}" for model in reasons)
        parts.append("\n".join(lines))
    if told := [*summary.mixed_up, *summary.differences.values()]:
        parts.append("\n".join(f"- {escape(text)}" for text in told))
    parts.append(_markdown_changes(summary))
    if gains := selected.gain_markdown(summary):
        parts.append(gains)
    if checks := summary.verdict.get("checks"):
        rows = [
            [
                check["name"],
                "passed" if check["passed"] else "failed",
                words.plain(check.get("value")),
                words.plain(check.get("threshold")),
                check.get("sentence", ""),
            ]
            for check in checks
        ]
        parts.append(grid(["check", "result", "value", "threshold", "in words"], rows, "llrrl"))
    if by_locale := shown.by_locale(summary):
        rows = [[locale, *_metrics(summary, by_locale.get(locale))] for locale in words.locales(summary)]
        parts.append(
            grid(["locale", *words.metric_names(summary).values()], rows, "l" + "r" * len(words.metric_names(summary)))
        )
    budget = "; ".join(f"{row['name'].lower()}: {row['sentence']}" for row in words.budget_rows(summary))
    parts.append(escape(f"Budget: {budget}. {words.regret_sentence(summary)} {worth_words.value(summary)}".rstrip()))
    if early := exits.sentence(summary):
        parts.append(escape(early))
    if summary.machine:
        parts.append(escape(f"Machine: {words.machine(summary)}. Duration: {words.duration(summary.seconds)}."))
    return "\n\n".join(parts) + "\n"


def _models(summary: Summary, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0) if wide else 0)
    table.add_column("model", overflow="fold")
    table.add_column("status", no_wrap=True)
    names = words.metric_names(summary)
    heads = [
        *(name.replace(" ", "\n") for name in names.values()),
        "utility",
        *(["drop-one"] if wide else []),
        "memory",
        "page\np50",
    ]
    for head in heads + (["parameters", "fit"] if wide else []):
        table.add_column(head, justify="right", no_wrap=True)
    best = words.best_shown(summary)

    def add(name: str, status: str, values: list[str], worth: list[str], cost: dict[str, str]) -> None:
        found = dict(zip(names, values, strict=True))
        cells = [Text(text, style="bold" if text == best[metric] else "") for metric, text in found.items()]
        tail = [cost["memory"], cost["p50"], *([cost["parameters"], cost["fit"]] if wide else [])]
        style = _STATUS.get(status, "dim")
        table.add_row(
            Text(name), Text(status, style=style), *cells, *map(Text, worth if wide else worth[:1]), *map(Text, tail)
        )

    status = "champion" if summary.promoted else "challenger"
    own = _metrics(summary, shown.ensemble(summary))
    add("ensemble", status, own, [words.ABSENT] * 2, words.ensemble_cost_row(summary))
    for model in summary.models:
        worth = [words.share(model.utility), worth_words.drop_one(model)]
        add(words.display_name(model), words.clean(model.status), _alone(summary, model), worth, words.cost_row(model))
    return table


def _locales(summary: Summary) -> str:
    metric = words.primary_metric(summary)
    test, parts = words.test_rows(summary), []
    for locale in words.locales(summary):
        found = shown.by_locale(summary).get(locale)
        unknown = "not measured" if test.get(locale, {}).get("pairs") else "no test pairs"
        parts.append(f"{words.clean(locale)} {words.number(found.value(metric)) if found else unknown}")
    return ", ".join(parts) or "no locale was measured"


def _metrics(summary: Summary, metrics: Metrics | None) -> list[str]:
    return [words.number(shown.value(metrics, metric)) for metric in words.metric_names(summary)]


def _alone(summary: Summary, model: ModelSummary) -> list[str]:
    return [words.alone_text(summary, model, metric) for metric in words.metric_names(summary)]


def _markdown_models(summary: Summary) -> str:
    best = words.best_shown(summary)
    head = [
        "model",
        "kind",
        "status",
        *words.metric_names(summary).values(),
        "utility",
        "drop-one",
        "memory",
        "page p50",
    ]

    def row(texts: list[str], values: list[str], tail: list[str], cost: dict[str, str]) -> list[str]:
        found = zip(words.metric_names(summary), values, strict=True)
        bold = [Bold(text) if text == best[metric] else text for metric, text in found]
        return [*texts, *bold, *tail, cost["memory"], cost["p50"], cost["parameters"], cost["fit"]]

    state = "champion" if summary.promoted else "challenger"
    cost = words.ensemble_cost_row(summary)
    own = _metrics(summary, shown.ensemble(summary))
    rows = [row(["ensemble", "LightGBM over the members", state], own, [words.ABSENT] * 2, cost)]
    for model in summary.models:
        kind = f"{model.family.replace('_', ' ')}, {model.detail}" if model.detail else model.family.replace("_", " ")
        texts = [words.display_name(model), kind, f"{model.status} ({model.entry})"]
        worth = [worth_words.utility(model), worth_words.drop_one(model)]
        rows.append(row(texts, _alone(summary, model), worth, words.cost_row(model)))
    return grid([*head, "parameters", "fit"], rows, "lll" + "r" * (len(words.metric_names(summary)) + 6))


def _markdown_changes(summary: Summary) -> str:
    rows = []
    for metric, name in words.metric_names(summary).items():
        after, before = shown.value(shown.ensemble(summary), metric), shown.value(summary.champion, metric)
        spread = words.interval(*(summary.ensemble_intervals.get(metric) or (None, None))) or words.ABSENT
        difference = words.signed(None if before is None or after is None else after - before)
        rows.append([name, words.number(before), words.number(after), spread, difference])
    if summary.sealed:
        return grid(["metric, out of fold", "challenger"], [[name, after] for name, _, after, *_ in rows], "lr")
    return grid(["metric", "champion before", "challenger after", "interval", "difference"], rows, "lrrlr")
