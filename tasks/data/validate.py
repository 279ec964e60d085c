"""Validate a data set before anything is learnt from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from esci_tournament.registry.errors import DataError
from esci_tournament.tasks.data.bounds import Bounds
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.expectations import Rule, RuleOutcome, put
from esci_tournament.tasks.data.load import load_esci, structural_problems
from esci_tournament.tasks.data.logs import LogLimits
from esci_tournament.tasks.data.reading import Reading
from esci_tournament.tasks.data.rule_frames import frames_of
from esci_tournament.tasks.data.rules import rules_for


@dataclass(frozen=True)
class DataCheck:
    """What one rule found.

    Attributes:
        name: The rule.
        critical: Whether a tournament stops when it fails; otherwise it is a warning.
        passed: Whether it holds.
        observed: What was found, in words.
        expected: What must be, in words.
        file: The file whose rows it is about.
        column: The column, "" where it is about none.
        count: How many rows offend; None where rows cannot be counted.
        first_rows: The first offending rows, at most five, each with its number (from 0) and value.
        sentence: The finding in one sentence.
        advice: What to do about it, "" when it holds.
    """

    name: str
    critical: bool
    passed: bool
    observed: str
    expected: str
    file: str
    column: str
    count: int | None
    first_rows: tuple[str, ...]
    sentence: str
    advice: str = ""


@dataclass(frozen=True)
class ValidationResult:
    """All checks of one data set.

    Attributes:
        passed: Whether no critical check failed.
        checks: One check per rule; for a folder that cannot be read, one per reason.
        docs: First page of the Data Docs, None when none were written.
    """

    passed: bool
    checks: tuple[DataCheck, ...]
    docs: Path | None

    @property
    def failures(self) -> tuple[DataCheck, ...]:
        """The critical checks that failed."""
        return tuple(check for check in self.checks if check.critical and not check.passed)

    @property
    def warnings(self) -> tuple[DataCheck, ...]:
        """The other checks that failed."""
        return tuple(check for check in self.checks if not check.critical and not check.passed)


def validate(dataset: Dataset, docs_folder: Path | None = None, bounds: Bounds | None = None) -> ValidationResult:
    """Check every rule on a data set; a rule that fails does not keep others from being checked.

    Args:
        dataset: The data set, as `load_esci` returns it.
        docs_folder: Where Data Docs are written (what is there is replaced), or None for none.
        bounds: What is usual; default: :class:`~esci_tournament.tasks.data.bounds.Bounds`.

    Returns:
        The outcome of every rule.

    Raises:
        StoreError: If Data Docs cannot be written.
    """
    rules = rules_for(dataset, bounds or Bounds())
    outcomes, docs = put(rules, frames_of(dataset), docs_folder)
    checks = tuple(_check(rule, outcomes[rule.name], dataset) for rule in rules)
    return ValidationResult(all(check.passed or not check.critical for check in checks), checks, docs)


def check_folder(
    folder: Path,
    docs_folder: Path | None = None,
    bounds: Bounds | None = None,
    progress: Callable[[float, str], None] = lambda share, doing: None,
    limits: LogLimits | None = None,
    reading: Reading | None = None,
) -> ValidationResult:
    """Check a folder from its files to its rows, without ever raising for what is wrong with the data.

    A folder that cannot be read gets one failed critical check for each reason; only then are no rows looked at.

    Args:
        folder: The folder, with the official file names.
        docs_folder: Where Data Docs are written (what is there is replaced), or None for none.
        bounds: What is usual; default: :class:`~esci_tournament.tasks.data.bounds.Bounds`.
        progress: Called with the share read in [0, 1] and the file that is read.
        limits: Which rows of logs count; default: :class:`~esci_tournament.tasks.data.logs.LogLimits`.
        reading: What settings say of columns and labels; default: :class:`~esci_tournament.tasks.data.reading.Reading`.

    Returns:
        The outcome of every rule.

    Raises:
        StoreError: If Data Docs cannot be written.
    """
    problems = structural_problems(Path(folder), reading)
    if not problems:
        try:
            return validate(load_esci(folder, progress, limits, reading), docs_folder, bounds)
        except DataError as problem:
            problems = [problem]
    return ValidationResult(False, tuple(map(_unreadable, problems)), None)


def raise_if_critical(result: ValidationResult) -> None:
    """Stop a tournament whose data broke a critical rule.

    Args:
        result: The outcome of every rule.

    Raises:
        DataError: For the first of them, with file, column, first rows and count, and the names of the others.
    """
    if not result.failures:
        return
    first, *others = result.failures
    more = f"; also failed: {', '.join(check.name for check in others)} (`tournament data check` lists all)"
    raise DataError(
        first.sentence,
        file=first.file,
        column=first.column or None,
        rows=first.first_rows,
        count=first.count,
        advice=first.advice + (more if others else ""),
    )


def _check(rule: Rule, outcome: RuleOutcome, dataset: Dataset) -> DataCheck:
    rows, count = ([], 0) if outcome.passed else rule.offenders(dataset)
    return DataCheck(
        name=rule.name,
        critical=rule.critical,
        passed=outcome.passed,
        observed=outcome.observed,
        expected=rule.expected,
        file=str(dataset.source / rule.file),
        column=rule.column,
        count=count,
        first_rows=tuple(rows[:5]),
        sentence=rule.holds if outcome.passed else rule.broken,
        advice="" if outcome.passed else rule.advice,
    )


def _unreadable(problem: DataError) -> DataCheck:
    return DataCheck(
        name="readable",
        critical=True,
        passed=False,
        observed=str(problem),
        expected="the official files, columns and types",
        file="" if problem.file is None else str(problem.file),
        column=problem.column or "",
        count=problem.count,
        first_rows=tuple(map(str, problem.rows[:5])),
        sentence=problem.problem,
        advice=f"{problem.advice or 'make the folder readable first'}; its rows were not looked at",
    )
