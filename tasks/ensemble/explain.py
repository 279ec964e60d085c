"""Explain the label of one pair by what each member added to each class, as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.labels import LABEL_NAMES, LABELS
from esci_tournament.tasks.ensemble.aggregate import Aggregator, softmax
from esci_tournament.tasks.ensemble.attribution import Forest, attribute


@dataclass(frozen=True)
class PairExplanation:
    """The label of one pair, and what each member added to it.

    Attributes:
        name: of the pair, for people.
        label: E, S, C or I.
        probabilities: of each class.
        scores: raw score of each class before the softmax.
        base: what it is on average over the pairs learnt from.
        contributions: for each member what it added to each class's raw score; base + sum over members = scores.
        given: for each member its own probabilities of each class.
        offsets: of each class, what is added to its score when the label is decided; 0 for none.
    """

    name: str
    label: str
    probabilities: dict[str, float]
    scores: dict[str, float]
    base: dict[str, float]
    contributions: dict[str, dict[str, float]]
    given: dict[str, dict[str, float]]
    offsets: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LABELS, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    def to_json(self) -> str:
        """Return one JSON document."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def support(self) -> list[tuple[str, float, str]]:
        """Return what each member did for the label against the runner-up, strongest first.

        Scores are compared because a softmax depends on their differences only.

        Returns:
            Member, what it added to the label's score less what it added to the runner-up's, and the runner-up.
        """
        rival = self.runner_up()
        gaps = {m: row[self.label] - row[rival] for m, row in self.contributions.items()}
        return [(m, gap, rival) for m, gap in sorted(gaps.items(), key=lambda item: (-abs(item[1]), item[0]))]

    def runner_up(self) -> str:
        """Return the class that comes next to the label when the label is decided."""
        others = (label for label in LABELS if label != self.label)
        return max(others, key=lambda label: self.scores[label] + self.offsets[label])

    def to_text(self) -> str:
        """Return a few lines for a terminal."""
        words = dict(zip(LABELS, LABEL_NAMES, strict=True))
        width = max(len("on average"), *(len(member) for member in self.contributions))
        lines = [
            f"{self.name}: {words[self.label]} with probability {self.probabilities[self.label]:.1%}",
            "",
            f"  {'':<{width}}  " + "  ".join(f"{words[label]:>10}" for label in LABELS),
            f"  {'on average':<{width}}  " + _cells(self.base),
        ]
        lines += [f"  {member:<{width}}  " + _cells(self.contributions[member]) for member, _, _ in self.support()]
        lines += [
            f"  {'score':<{width}}  " + _cells(self.scores),
            f"  {'probability':<{width}}  " + "  ".join(f"{self.probabilities[label]:>10.1%}" for label in LABELS),
        ]
        if any(self.offsets.values()):
            lines.append(f"  {'to decide':<{width}}  " + _cells(self.offsets))
        lines.append("")
        rival = words[self.runner_up()]
        for member, gap, _ in self.support():
            side = f"for {words[self.label]}" if gap >= 0 else f"for {rival}"
            said = max(self.given[member], key=self.given[member].__getitem__)
            lines.append(
                f"  {member} gave {words[said]} ({self.given[member][said]:.0%}) and counts {side} "
                f"by {abs(gap):.2f} between {words[self.label]} and {rival}"
            )
        return "\n".join(lines)


def explain_pairs(
    aggregator: Aggregator, columns: np.ndarray, names: Sequence[str], forest: Forest | None = None
) -> list[PairExplanation]:
    """Return the explanation of each pair.

    Args:
        aggregator: the aggregator whose scores are explained.
        columns: float32 (n, k, 4), member scores.
        names: n names for people, such as "query -> title".
        forest: the result of :func:`esci_tournament.tasks.ensemble.attribution.tabulate`, to save its time.

    Returns:
        n explanations, in the order of the pairs.

    Raises:
        TournamentError: if contributions do not add up to the scores.
        UsageError: if shapes do not fit.
    """
    if len(names) != len(columns):
        raise UsageError(f"{len(columns)} pairs and {len(names)} names; give each pair one name")
    values, base = attribute(aggregator, columns, threads=1, forest=forest)
    scores = base + values.sum(axis=2)
    probabilities = softmax(scores)
    chosen = (scores + np.array(aggregator.offsets)).argmax(axis=1)
    offsets = _by_label(np.array(aggregator.offsets))
    return [
        PairExplanation(
            name=name,
            label=LABELS[int(chosen[row])],
            probabilities=_by_label(probabilities[row]),
            scores=_by_label(scores[row]),
            base=_by_label(base),
            contributions={m: _by_label(values[row, :, p]) for p, m in enumerate(aggregator.members)},
            given={m: _by_label(columns[row, p]) for p, m in enumerate(aggregator.members)},
            offsets=offsets,
        )
        for row, name in enumerate(names)
    ]


def _by_label(values: np.ndarray) -> dict[str, float]:
    return {label: float(value) for label, value in zip(LABELS, values, strict=True)}


def _cells(row: dict[str, float]) -> str:
    return "  ".join(f"{row[label]:>+10.3f}" for label in LABELS)
