"""`--json` of every command: standard output has one document and nothing else, and each value has its type."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from esci_tournament.deployments.cli import build_parser
from esci_tournament.deployments.cli.common import HOME_ALONE, VERSIONS
from esci_tournament.registry.errors import UsageError
from tests.harness import clean_environment, fresh

pytestmark = pytest.mark.slow

NUMBER = re.compile(r"[-+]?\d[\d,_]*(\.\d+)?(e[-+]?\d+)?")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:")
# Text: releases of software, the digest of data, addresses, lines of a log, and what a check observed, in words.
TEXT = {
    ".data.version",
    ".machine.python",
    ".shap.version",
    ".settings.host",
    ".settings.scorer_host",
    ".checks[].observed",
    ".log.lines[]",
}
# `doctor` shows each setting as the text that a person would write into tournament.toml.
AS_WRITTEN = {"doctor": (".settings.", ".checks[].says")}

WHY = ("--reason", "a test")
# In this order, on one home: what is changed by one is seen by the next.
WALKED: list[tuple[str, ...]] = [
    ("candidates",), ("candidates", "list"), ("candidates", "show", "bert-tiny"), ("candidates", "retry"),
    ("candidates", "withdraw", "sage-clicks", *WHY), ("candidates", "retry", "sage-clicks"),
    ("candidates", "cancel", "sage-clicks", *WHY), ("champion", "show"), ("champion", "history"),
    ("champion", "compare", "1"), ("champion", "set", "1", *WHY), ("champion", "rollback", "--to", "1", *WHY),
    ("champion", "undo", *WHY), ("champion", "restore"), ("champion", "attest", *WHY),
    ("review", "list", "--all"), ("review", "show", "1"), ("review", "approve", "1", *WHY),
    ("review", "refuse", "1", *WHY), ("policy", "show"), ("policy", "history"), ("policy", "set", "quorum=2", *WHY),
    ("policy", "adopt", *WHY), ("policy", "enrol", "ana"), ("policy", "withdraw", "ana", *WHY),
    ("ledger", "verify"), ("ledger", "checkpoint"), ("ledger", "repair"), ("ledger", "migrate"),
    ("keys", "create", "shop"), ("keys", "list"), ("keys", "revoke", "shop"), ("doctor",), ("report",),
    ("data", "check", "DATA"), ("data", "served"), ("data", "serve", "VERSION", *WHY),
    ("data", "refuse", "VERSION", *WHY), ("data", "undo", *WHY),
    ("explain", "--query", "red lamp", "--locale", "us", "--title", "Velo red lamp"),
    ("score", "PAIRS", "--out", "LABELLED"), ("login",), ("down",), ("completion", "bash"),
]  # fmt: skip
# Not walked: they serve until they are ended, fetch from the internet, need PostgreSQL or a Prefect server, or hold
# whole tournaments; the documents of `run` are those of `report` and come from the fixture.
ELSEWHERE = {
    *("demo", "up", "serve", "deploy", "reevaluate", "champion refresh", "ledger grant"),
    *("data download", "data synthesize", "data import"),
}


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[str]:
    """Yield every command and part that the parser has."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for word, part in action.choices.items():
            yield from leaves(part, f"{name} {word}".strip())
    if not below:
        yield name


def values(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from values(value, f"{path}.{key}")
    elif isinstance(content, list):
        for value in content:
            yield from values(value, f"{path}[]")
    else:
        yield path, content


def wrong(command: str, path: str, value: Any) -> str:
    """Return what is wrong with the type of a value, "" for nothing."""
    if path in TEXT or any(path.startswith(start) for start in AS_WRITTEN.get(command.split()[0], ())):
        return ""
    if path.rpartition(".")[2] in VERSIONS and not isinstance(value, int | None):
        return "a version that is no whole number"
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return "a number as text"
    moment = isinstance(value, str) and MOMENT.match(value)
    if moment and ("T" not in value or dt.datetime.fromisoformat(value).tzinfo is None):
        return "a moment that is not ISO with its zone"
    return ""


def test_every_command_is_walked_or_said_not_to_be() -> None:
    parts = {*(leaves(build_parser()))}
    walked = {" ".join(words[: 2 if " ".join(words[:2]) in parts else 1]) for words in WALKED} | {"run", "register"}
    assert (parts - walked - ELSEWHERE, (walked | ELSEWHERE) - parts - {"candidates"}) == (set(), set())


def test_documents_are_typed_and_alone_on_standard_output(
    held: Any, tournament: Any, newcomer: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(held.home, home)
    (tmp_path / "tournament.toml").write_text("minimum_test_queries = 10\n", encoding="utf-8")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,product_locale,product_title\nred lamp,us,Velo red lamp\n", encoding="utf-8")
    places = {"DATA": str(held.data), "PAIRS": str(pairs), "LABELLED": str(tmp_path / "labelled.csv")}
    places["VERSION"] = held.document["data"]["version"]
    wanted = {"home": str(home), "tracking_uri": f"sqlite:///{home / 'mlflow.db'}"}
    documents = {"run": held.document}
    faults: list[tuple[str, object, object]] = []
    answered = 0
    for words in [("register", str(newcomer)), *WALKED]:
        name = " ".join(words[:2])
        where = () if words[0] == "completion" or name == "data check" else ("--home", str(home))
        answer = tournament(*(places.get(word, word) for word in words), *where, "--json", cwd=tmp_path)
        assert "Traceback" not in answer.err, (name, answer.err)
        try:
            documents[name] = json.loads(answer.out)
        except ValueError:
            faults.append((name, "standard output has more or less than a document", answer.out[:200]))
        answered += answer.code == 0
        if where and answer.code != UsageError.exit_code and isinstance(documents.get(name), dict):
            used = {
                key: documents[name].get(key) for key in ("home", "tracking_uri")[: 1 + (words[0] not in HOME_ALONE)]
            }
            if used != {key: value for key, value in wanted.items() if key in used}:
                faults.append((name, "another home or MLflow than it was given", used))
    assert answered > len(WALKED) * 3 / 4, (
        "most of them do what they are asked for; the others say in a document why not"
    )
    for name, document in documents.items():
        faults += [(name, path, value) for path, value in values(document) if wrong(name, path, value)]
    assert faults == []


def test_the_document_is_alone_also_when_a_fresh_process_imports_and_warns(held: Any, tmp_path: Path) -> None:
    answer = fresh(["candidates", "--home", held.home, "--json"], tmp_path, clean_environment(PYTHONWARNINGS="always"))
    assert json.loads(answer.out)[0]["candidate"]


def test_commands_that_show_what_is_there_import_mlflow_once(held: Any, tournament: Any, tmp_path: Path) -> None:
    """It takes two seconds of processor time, and asks nothing that it has not answered before."""
    home = tmp_path / "home"
    shutil.copytree(held.home, home)
    tournament("candidates", "--home", home)  # artifacts of a copied home get their new addresses
    time.sleep(3.0)  # a file that changed just now is asked again
    for words in (("candidates",), ("champion", "show"), ("champion", "history"), ("doctor",)):
        first, again = (
            fresh([*words, "--home", home], tmp_path, clean_environment(PYTHONPROFILEIMPORTTIME=1)) for _ in range(2)
        )
        assert (again.out, again.code) == (first.out, first.code), words
        imported = {line.rpartition("|")[2].strip() for line in again.err.splitlines() if "|" in line}
        assert {"mlflow", "torch", "pandas", "prefect"} & imported == set(), words


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".a", "1"),
        (".a[]", "1.5e-3"),
        (".version", "3"),
        (".at", "2026-01-01 10:00:00+00:00"),
        (".at", "2026-01-01T10:00"),
    ],
)
def test_what_the_walk_finds(path: str, value: str) -> None:
    assert wrong("any", path, value)
