"""Run rules on frames with Great Expectations, and write its Data Docs.

No other module imports the package, but for :mod:`esci_tournament.tasks.data.docs_views`, which makes the pages.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported; it would report usage to its makers

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.metadata_types import FailureSeverity

from esci_tournament.registry.errors import StoreError
from esci_tournament.registry.files import publish
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.docs_views import site

_SITE = "uncommitted/data_docs/local_site"  # in the folder of a project of Great Expectations

Offenders = Callable[[Dataset], tuple[list[str], int]]


@dataclass(frozen=True)
class Rule:
    """One expectation, and what a person is told about its outcome.

    Attributes:
        name: Identity of the rule, in one word or a few joined by underscores.
        table: Which frame it is checked on; the rules of one frame are a suite.
        expectation: The expectation.
        critical: Whether a tournament stops when it fails.
        file: The file whose rows it is about.
        column: The column of that file.
        expected: What must be, in short.
        holds: A sentence for when it holds.
        broken: A sentence for when it does not.
        offenders: Called with the data set, only when the rule is broken; returns the first offending rows, in words,
            and how many rows offend.
        advice: What to do when it is broken.
    """

    name: str
    table: str
    expectation: gxe.Expectation
    critical: bool
    file: str
    column: str
    expected: str
    holds: str
    broken: str
    offenders: Offenders
    advice: str = "correct these rows or leave them out"


@dataclass(frozen=True)
class RuleOutcome:
    """What Great Expectations found for one rule.

    Attributes:
        passed: Whether it holds.
        observed: What was observed, in words: a number, how many rows break it, or why it could not be evaluated.
    """

    passed: bool
    observed: str


def put(
    rules: Sequence[Rule], frames: Mapping[str, pd.DataFrame], docs_folder: Path | None
) -> tuple[dict[str, RuleOutcome], Path | None]:
    """Check the rules on the frames.

    Results are asked for in the BASIC format: listing every unexpected row of a bad table costs minutes.

    Args:
        rules: The rules; their names are distinct.
        frames: Name of a frame (`Rule.table`) -> the frame; it must hold every frame that a rule is about.
        docs_folder: Where Data Docs are written (what is there is replaced), or None for none.

    Returns:
        Name of the rule -> its outcome, and the path of the Data Docs' first page, None without Data Docs.

    Raises:
        StoreError: If Data Docs cannot be written.
    """
    if docs_folder is None:
        return _run(gx.get_context(mode="ephemeral"), rules, frames), None
    try:
        docs_folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{docs_folder.name}.", dir=docs_folder.parent) as workshop:
            context = gx.get_context(mode="file", project_root_dir=workshop)
            context.update_data_docs_site("local_site", site(_SITE))
            outcomes = _run(context, rules, frames)
            context.build_data_docs()
            made = Path(workshop, "gx", _SITE)
            shutil.rmtree(made / "static", ignore_errors=True)  # fonts and pictures of tutorials, which no page shows
            if docs_folder.exists():
                shutil.rmtree(docs_folder)
            publish(made, docs_folder)
    except OSError as error:
        raise StoreError(
            f"cannot write Data Docs to {docs_folder}: {error.strerror or error}; free space or choose another folder"
        ) from error
    return outcomes, docs_folder / "index.html"


def _run(
    context: gx.data_context.AbstractDataContext, rules: Sequence[Rule], frames: Mapping[str, pd.DataFrame]
) -> dict[str, RuleOutcome]:
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("esci")
    outcomes = {}
    for table in dict.fromkeys(rule.table for rule in rules):
        suite = gx.ExpectationSuite(name=table, expectations=[_told(rule) for rule in rules if rule.table == table])
        batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
        definition = gx.ValidationDefinition(name=table, data=batch, suite=context.suites.add(suite))
        definition = context.validation_definitions.add(definition)
        results = definition.run(batch_parameters={"dataframe": frames[table]}, result_format="BASIC")
        for result in results.results:
            outcomes[_config(result).meta["rule"]] = RuleOutcome(bool(result.success), _observed(result, frames[table]))
    return outcomes


def _told(rule: Rule) -> gxe.Expectation:
    expectation = rule.expectation.copy()
    expectation.meta = {"rule": rule.name}
    expectation.description = rule.holds
    expectation.severity = FailureSeverity.CRITICAL if rule.critical else FailureSeverity.WARNING
    return expectation


def _config(result: ExpectationValidationResult) -> ExpectationConfiguration:
    assert result.expectation_config is not None  # a result that was just computed always has it
    return result.expectation_config


def _observed(result: ExpectationValidationResult, frame: pd.DataFrame) -> str:
    found, column = result.result or {}, _config(result).kwargs.get("column")
    if len(frame) == 1 and column in frame and pd.api.types.is_numeric_dtype(frame[column]):
        return f"{frame[column].iloc[0]:.6g}"
    if "unexpected_count" in found:
        return f"{found['unexpected_count']} of {found['element_count']} rows break it"
    trouble = result.exception_info or {}
    return f"could not be evaluated: {trouble.get('exception_message') or trouble}"
