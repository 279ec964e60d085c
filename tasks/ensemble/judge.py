"""Judge whether a challenger replaces the champion; the same counts, settings and looks give the same verdict."""

from __future__ import annotations

from typing import Any

import numpy as np

from esci_tournament.registry import checks
from esci_tournament.registry.extensions import LOG_LOSS
from esci_tournament.registry.labels import LABEL_NAMES, LABELS
from esci_tournament.registry.spelling import counted
from esci_tournament.tasks.ensemble.bootstrap import Difference, quantile
from esci_tournament.tasks.ensemble.case import Answers, JudgeInput, JudgeSettings, digest_of
from esci_tournament.tasks.ensemble.conditional import given_that_it_won
from esci_tournament.tasks.ensemble.evidence import SINGLE, Evidence
from esci_tournament.tasks.ensemble.spending import LITTLE_LEFT, look_at
from esci_tournament.tasks.ensemble.verdict import Check, Outcome, Verdict

__all__ = ["Answers", "JudgeInput", "JudgeSettings", "guard", "judge"]

SAME = "refused: it answers as the champion does"
_OTHER = "gain in "  # and the name of another metric than the primary one
_PRIMARY_SHARE = 0.8  # of a look's level: a gain in probabilities shows at a small one too, a gain in labels does not
_GUARD_LEVEL = 0.025  # a true loss as large as the margin passes a guardrail with this probability
_GUARD_POWER = 0.2  # a guardrail is fit to judge if an equal challenger passes it with probability 1 - this
_HARM_LEVEL = 0.1  # where data is too little for that, a loss this significant still refuses


def judge(case: JudgeInput, settings: JudgeSettings | None = None) -> Verdict:
    """Return the verdict on a challenger.

    Promote when the lower bound of the gain on one of the gain metrics, at its part of the level of this look, is above
    the required gain (or, for a cheaper challenger, above what is left of minus `not_worse_margin`) and no guardrail is
    hurt. A gain on another metric than the primary one counts only if the primary one does not fall short of the
    required gain on the test split.

    Args:
        case: counts and costs of both sides.
        settings: the thresholds; None for the defaults.

    Returns:
        The verdict, with every check and metric.

    Raises:
        UsageError: if the input contradicts itself.
    """
    settings = settings or JudgeSettings()
    case = case.canonical()
    look = look_at(case.before, settings.alpha)
    present = sorted(set(case.locale.tolist()))
    numbers = Evidence(case, present, settings)
    metrics = numbers.table()
    missing = _missing(case, present, settings)
    single = _single_checks(numbers)
    budget = _budget_checks(case)
    digest = digest_of(case, settings)
    if missing:
        return Verdict(
            "not_evaluable", "not evaluable: " + "; ".join(text for _, text in missing), "", (*single, *budget),
            metrics, tuple(code for code, _ in missing), tuple(check.sentence for check in single if not check.passed),
            look.number, look.level, look.before, False, digest,
        )  # fmt: skip
    tested, cheaper = settings.tested(numbers.scored), _saving(case, settings)
    compared = dict.fromkeys((*tested, *((settings.primary_metric,) if cheaper else ())))
    levels = _levels(tuple(compared), settings.primary_metric, look.level)
    gains = {name: numbers.loss() if name == LOG_LOSS else numbers.difference(name) for name in tested}
    gain = gains.get(settings.primary_metric) or numbers.difference(settings.primary_metric)
    wins = [
        _gain_check(gain, levels[name], settings)
        if name == settings.primary_metric
        else _other_gain_check(name, gains[name], gain, levels[name], settings)
        for name in tested
    ]
    if cheaper:
        wins.append(_cheaper_check(gain, levels[settings.primary_metric], settings, cheaper, case.given_up))
    guards = _guards(numbers, present, settings)
    outcome, route, reason = _decide(wins, guards + single + budget)
    cautions = [check.sentence for check in guards if not check.judged]
    if look.left < LITTLE_LEFT:
        cautions.append(look.sentence)
    spends = outcome == "promote" or not _same_answers(case)
    if not spends:  # whatever the labels are, so that nothing is risked by it
        reason = SAME
    return Verdict(
        outcome, reason, route, (*wins, *guards, *single, *budget), metrics, (), tuple(cautions), look.number,
        look.level, look.left if spends else look.before, spends, digest, _conditional(gains, gain, wins, route),
    )  # fmt: skip


def _same_answers(case: JudgeInput) -> bool:
    """Return whether both sides give the same labels and probabilities, as far as the counts and losses tell."""
    sides = ((case.challenger, case.champion), (case.challenger_loss, case.champion_loss))
    return all(one is not None and other is not None and np.array_equal(one, other) for one, other in sides)


def _conditional(
    gains: dict[str, Difference], primary: Difference, wins: list[Check], route: str
) -> dict[str, Any] | None:
    """Return what the gain is worth by which a challenger won, and which metric it is on; None if it did not win."""
    name = route.removeprefix(_OTHER) if route.startswith(_OTHER) else ""
    found = given_that_it_won(gains[name] if name else primary, wins, route)
    return None if found is None else ({"metric": name} if name else {}) | found


def _finite(bound: float) -> float | None:
    """Return a bound, or None for an infinite one, which JSON cannot hold."""
    return float(bound) if np.isfinite(bound) else None


def _missing(case: JudgeInput, present: list[str], settings: JudgeSettings) -> list[tuple[str, str]]:
    missing = []
    if case.absent:
        text = f"the champion cannot be compared with: its member {case.absent[0]} has no scores on this data; it stays"
        advice = "see in that member's log why it failed, bring its checkpoint back, and run the tournament again"
        missing.append(("members", f"{text}; {advice}"))
    elif case.nothing_new:
        missing.append(("newcomers", case.nothing_new))
    elif case.champion is None:
        missing.append(("champion", "there is no champion to compare with"))
    if (queries := len(case.query_key)) < settings.minimum_test_queries:
        text = f"too few test queries: {queries}, and {settings.minimum_test_queries} are needed"
        missing.append(("queries", text))
    for place in case.expected_locales:
        if place not in present:
            missing.append((f"locale {place}", f"locale {place} is served but has no test data"))
    return missing


def _levels(tested: tuple[str, ...], primary: str, level: float) -> dict[str, float]:
    """Return the error probability of each metric that may win; they add up to the look's, by the union bound."""
    share = _PRIMARY_SHARE if primary in tested and len(tested) > 1 else 0.0
    others = len(tested) - bool(share)
    return {name: level * (share if share and name == primary else (1 - share) / others) for name in tested}


def _lower(gain: Difference, level: float) -> float:
    """Return the lower bound of a gain; minus infinity where nothing of alpha is left."""
    return gain.lower(level) if level > 0 else -np.inf


def _gain_check(gain: Difference, level: float, settings: JudgeSettings) -> Check:
    bound = _lower(gain, level)
    passed = bound > settings.required_gain
    sentence = (
        f"{settings.primary_metric} changes by {gain.value:+.4f}; at this look's level ({level:.2g}) it is "
        f"at least {bound:+.4f}, {'' if passed else 'not '}above the required gain of {settings.required_gain:+.4f}"
    )
    return Check(checks.GAIN, passed, True, _finite(bound), settings.required_gain, sentence)


def _other_gain_check(name: str, gain: Difference, primary: Difference, level: float, settings: JudgeSettings) -> Check:
    """Return the check of a gain on another metric than the primary one, which must not be lost for it."""
    bound, required = _lower(gain, level), settings.required_gain
    kept = primary.value >= required
    at = f"at this look's level ({level:.2g})"
    if name == LOG_LOSS:
        moved = "falls" if gain.value >= 0 else "rises"
        change = f"log loss {moved} by {abs(gain.value):.4f} nats; {at} it falls by at least {bound:+.4f}"
    else:
        change = f"{name} changes by {gain.value:+.4f}; {at} it is at least {bound:+.4f}"
    sentence = (
        f"{change}, {'' if bound > 0 else 'not '}above 0; {settings.primary_metric} changes by {primary.value:+.4f}, "
        f"{'not ' if kept else ''}below the required gain of {required:+.4f}"
    )
    return Check(f"{_OTHER}{name}", bound > 0 and kept, True, _finite(bound), 0.0, sentence)


def _cheaper_check(gain: Difference, level: float, settings: JudgeSettings, saving: str, given_up: float) -> Check:
    """Return the check that a cheaper challenger loses little: all of them together, since the best champion so far."""
    bound, left = _lower(gain, level), max(settings.not_worse_margin - given_up, 0.0)
    passed, threshold = bound > -left, -left
    sentence = (
        f"it is cheaper ({saving}); {settings.primary_metric} is at least {bound:+.4f} of the champion's, "
        f"{'within' if passed else 'not within'} the loss of {left:.4f} that a saving may cost"
    )
    if given_up:
        sentence += f" (of {settings.not_worse_margin:.4f}, {given_up:.4f} was given up for cheaper ensembles before)"
    return Check(checks.CHEAPER, passed, True, _finite(bound), threshold, sentence)


def _saving(case: JudgeInput, settings: JudgeSettings) -> str:
    """Return what the challenger saves, in words; empty unless it is cheaper on one axis and no dearer on the other."""
    new, old = case.challenger_cost, case.champion_cost
    if new is None or old is None or new.memory_mib > old.memory_mib or new.milliseconds > old.milliseconds:
        return ""
    parts = []
    for name, ours, theirs in (
        ("memory", new.memory_mib, old.memory_mib),
        ("time", new.milliseconds, old.milliseconds),
    ):
        if theirs > 0 and (saved := 1 - ours / theirs) >= settings.cheaper_by:
            parts.append(f"{saved:.0%} less {name}")
    return ", ".join(parts)


def _guards(numbers: Evidence, present: list[str], settings: JudgeSettings) -> list[Check]:
    margin = settings.guardrail_margin
    guards = []
    shown = settings.tested(numbers.scored) == (settings.primary_metric,)  # whoever wins has shown no loss on it then
    for name in numbers.names:
        if name != settings.primary_metric or not shown:
            guards.append(guard(name, numbers.difference(name), margin))
    for place, locale in enumerate(present):
        change = numbers.difference(settings.primary_metric, place)
        guards.append(guard(f"{settings.primary_metric} in locale {locale}", change, margin))
    truth = numbers.counts(0, None)[0].sum(axis=1)
    for label, word, pairs in zip(LABELS, LABEL_NAMES, truth, strict=True):
        name = f"F1 of class {label} ({word})"
        if pairs:
            guards.append(guard(name, numbers.difference(f"f1 {label}"), margin))
        else:
            sentence = f"{name}: no test pair has this label, so nothing is known"
            guards.append(Check(name, True, False, None, -margin, sentence))
    if numbers.calibrated:
        guards.append(guard("calibration", numbers.calibration(), margin))
    return guards


def guard(name: str, change: Difference, margin: float) -> Check:
    """Return the check that `change` is no loss of `margin` or more.

    Three cases. The lower bound is above minus the margin: shown to be not worse. It is not, although the data is fine
    enough that an equal challenger would have passed four times in five: refused. The data is too coarse for that: the
    check is marked as not judged, and only a significant loss refuses. So a locale with 50 pairs neither blocks each
    challenger nor passes a collapse, and the report never calls it judged.

    Args:
        name: what is checked, for the report.
        change: challenger minus champion; a loss is negative.
        margin: the loss that is tolerated, in the metric's unit, above 0.

    Returns:
        The check.
    """
    bound = change.lower(_GUARD_LEVEL)
    needed = quantile(_GUARD_LEVEL, change.effective) + quantile(_GUARD_POWER, change.effective)
    fine = needed * change.error <= margin
    facts = (
        f"{name} changes by {change.value:+.4f} (at least {bound:+.4f}, {counted(change.queries, 'query', 'queries')})"
    )
    if bound > -margin:
        return Check(name, True, True, bound, -margin, f"{facts}: not worse by {margin:g}")
    if fine:
        return Check(name, False, True, bound, -margin, f"{facts}: a loss of {margin:g} cannot be ruled out")
    harmed = change.upper(_HARM_LEVEL) < 0
    if harmed:
        sentence = f"{facts}: the data is coarse, yet the loss is significant"
        return Check(name, False, True, change.upper(_HARM_LEVEL), 0.0, sentence)
    if np.isfinite(change.error):
        wanted = f"about {int(np.ceil(change.queries * (needed * change.error / margin) ** 2)):,} queries are needed"
    else:
        wanted = "at least five queries are needed to say anything"
    sentence = (
        f"{facts}: too little data to rule out a loss of {margin:g}, {wanted}; no significant loss was found so far"
    )
    return Check(name, True, False, _finite(bound), -margin, sentence.replace("-inf", "an unknown amount"))


def _single_checks(numbers: Evidence) -> list[Check]:
    """Return the check that the challenger is not worse than the best model alone, where one is known."""
    case = numbers.case
    if case.single is None or not len(case.query_key):
        return []
    title = checks.SINGLE
    if np.array_equal(case.single, case.challenger):
        return [Check(title, True, True, 0.0, 0.0, f"it answers as {case.single_name} alone, the best model")]
    changes = {name: numbers.difference(name, against=SINGLE) for name in numbers.names}
    level = _GUARD_LEVEL / len(changes)
    worst = min(changes, key=lambda name: changes[name].upper(level))
    bound = changes[worst].upper(level)
    facts = ", ".join(f"{name} {change.value:+.4f}" for name, change in changes.items())
    compared = f"against {case.single_name} alone, the best model: {facts}"
    if bound < 0:
        sentence = f"{compared}; on {worst} it is worse, by {-bound:.4f} at least: serve that model alone instead"
    else:
        ahead = [name for name, change in changes.items() if change.lower(level) > 0]
        sentence = f"{compared}; " + (f"ahead on {', '.join(ahead)}" if ahead else "no difference is beyond chance")
    return [Check(title, bound >= 0, True, _finite(bound), 0.0, sentence)]


def _budget_checks(case: JudgeInput) -> list[Check]:
    if case.budget is None or case.challenger_cost is None:
        return []
    excess = case.budget.excess(case.challenger_cost)
    words = "fits the budget" if excess <= 0 else "exceeds the budget"
    sentence = f"the challenger takes {case.budget.describe(case.challenger_cost)}: it {words}"
    return [Check(checks.BUDGET, excess <= 0, True, excess, 0.0, sentence)]


def _decide(wins: list[Check], guards: list[Check]) -> tuple[Outcome, str, str]:
    won = next((check for check in wins if check.passed), None)
    hurt = [check for check in guards if not check.passed]
    unjudged = [check.name for check in guards if not check.judged]
    if won is None:
        return "refuse", "", "refused: " + "; ".join(check.sentence for check in wins)
    if hurt:
        return "refuse", "", "refused although it wins: " + "; ".join(check.sentence for check in hurt)
    reason = f"promote: {won.sentence}; no guardrail is hurt"
    if unjudged:
        reason += f"; too little data to judge {', '.join(unjudged)}"
    return "promote", won.name, reason
