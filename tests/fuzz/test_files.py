"""Files of strangers, valid ones with bytes changed: each is read or refused by an error of ours, in bounded time."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from safetensors.numpy import save

from esci_tournament.deployments.scorer import copies
from esci_tournament.deployments.scorer.champion import Card
from esci_tournament.registry.specs import parse_spec
from esci_tournament.registry.tracking import pyfunc_data
from esci_tournament.tasks.data.archive import unpack
from esci_tournament.tasks.data.layout import EVENTS_FILE, EXAMPLES_FILE, PRODUCTS_FILE, UBI_FILES
from esci_tournament.tasks.data.load import load_esci
from esci_tournament.tasks.data.synthesize import synthesize
from esci_tournament.tasks.data.ubi import read_ubi
from esci_tournament.tasks.data.ubi_files import NAMES
from esci_tournament.tasks.ensemble.early_exit import FILE, EarlyExit, never
from esci_tournament.tasks.ensemble.ensemble import MANIFEST, member_folders
from esci_tournament.tasks.families.checkpoint import check_checkpoint
from esci_tournament.tasks.families.score_file.model import check_score_file
from tests.fuzz.foreign import documents, fuzzed, lawful, mutations, rarely


def score_spec(file: Path) -> Any:
    seen = {"trained_on": "other_queries", "provenance": "a test that changes bytes"}
    return parse_spec({"family": "scores", "name": "s", "file": str(file)} | seen)


def bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def damaged(valid: bytes, document: Any) -> st.SearchStrategy[bytes]:
    """A file of JSON, as bytes that were changed or as a document that was."""
    return mutations(valid) | documents(document).map(bytes_of)


RULE = EarlyExit(
    ("a/1", "b/2"), never(("a/1", "b/2"), 0.01), (never(("a/1", "b/2"), 0.01),), "f1", 100, 10, "off"
).to_json()
MEMBERS = {"members": [{"id": "a/1", "folder": "members/0"}, {"id": "b/2", "folder": "members/1"}]}


@given(content=damaged(json.dumps(RULE).encode(), json.loads(json.dumps(RULE))))
@fuzzed
def test_a_rule_of_early_exit(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with lawful():
        EarlyExit.load(tmp_path, 0.01)


@given(content=damaged(json.dumps(MEMBERS).encode(), MEMBERS))
@fuzzed
def test_the_manifest_of_an_ensemble(content: bytes, tmp_path: Path) -> None:
    """Paths in it do not lead out of the ensemble's folder."""
    (tmp_path / MANIFEST).write_bytes(content)
    with lawful():
        for folder in member_folders(tmp_path).values():
            assert folder.resolve().is_relative_to(tmp_path.resolve())


CARD = {"name": "esci", "version": 1, "tournament": "t", "data_version": "d", "members": ["a/1"], "edges": ""}


@given(content=damaged(json.dumps(CARD).encode(), CARD))
@fuzzed
def test_the_card_of_a_copy(content: bytes, tmp_path: Path) -> None:
    with lawful(ValueError, TypeError, KeyError):
        Card.from_json(content.decode("utf-8", "replace"))
    place = tmp_path / "esci" / "copy"
    (place / copies._ENSEMBLE / "model").mkdir(parents=True, exist_ok=True)
    (place / copies._CARD).write_bytes(content)
    with lawful():
        copies._read(place)


MLMODEL = {"flavors": {"python_function": {"data": "data", "loader_module": "m"}}, "mlflow_version": "3.17.2"}
YAML = st.sampled_from(
    ["&a [*a]", "a: &a [*a, *a]", "!!python/object/apply:os.system ['true']", "- " * 3000, "[" * 5000]
)


@given(
    content=mutations(yaml.safe_dump(MLMODEL).encode())
    | documents(MLMODEL).map(bytes_of)
    | YAML.map(bytes_of)
    | st.sampled_from(["/etc", "..", "data/../..", "\x00", "~", "\ud800"]).map(
        lambda data: yaml.safe_dump({"flavors": {"python_function": {"data": data}}}).encode()
    )
)
@fuzzed
def test_an_mlmodel(content: bytes, tmp_path: Path) -> None:
    """A2: the folder that it names is below the model's own."""
    (tmp_path / "MLmodel").write_bytes(content)
    with lawful():
        assert pyfunc_data(tmp_path).resolve().is_relative_to(tmp_path.resolve())


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(tmp_path_factory.mktemp("world") / "few", queries=12, seed=3, searches_per_query=3)


@given(data=st.data(), name=st.sampled_from([EXAMPLES_FILE, PRODUCTS_FILE, EVENTS_FILE]))
@rarely
def test_official_files(data: st.DataObject, name: str, official: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(official, folder)
    (folder / name).write_bytes(data.draw(mutations((official / name).read_bytes())))
    with lawful():
        load_esci(folder)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("scores") / "scores.parquet"
    values = np.random.default_rng(1).dirichlet(np.ones(4), 50).astype(np.float32)
    pd.DataFrame({"example_id": np.arange(50)} | dict(zip("ESCI", values.T, strict=True))).to_parquet(
        place, index=False
    )
    return place.read_bytes()


@given(data=st.data())
@rarely
def test_score_files(data: st.DataObject, scores: bytes, tmp_path: Path) -> None:
    """F7"""
    place = tmp_path / "scores.parquet"
    place.write_bytes(data.draw(mutations(scores)))
    with lawful():
        check_score_file(score_spec(place))


def packed(kind: str) -> bytes:
    """A small archive that holds the official files, two of them in a folder."""
    content = io.BytesIO()
    files = {f"a/{name}": name.encode() * 50 for name in (EXAMPLES_FILE, PRODUCTS_FILE)}
    if kind == "zip":
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in files.items():
                archive.writestr(name, value)
    else:
        with tarfile.open(fileobj=content, mode=f"w:{kind}") as archive:
            for name, value in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(value)
                archive.addfile(entry, io.BytesIO(value))
    return content.getvalue()


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz", ""])
def test_archives(kind: str, tmp_path: Path) -> None:
    """F3.3, F3.4"""

    @given(content=mutations(packed(kind)))
    @rarely
    def check(content: bytes) -> None:
        folder = tmp_path / "unpacked"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (tmp_path / "archive").write_bytes(content)
        with lawful():
            unpack(tmp_path / "archive", folder, "an archive")
        assert {path.name for path in tmp_path.iterdir()} == {"archive", "unpacked"}

    check()


EVENT = {
    "action_name": "click",
    "query_id": "q1",
    "client_id": "c",
    "session_id": "s",
    "timestamp": "2026-01-01T00:00:05.250Z",
    "event_attributes": {"object": {"object_id": "P1", "object_id_field": "asin"}, "position": {"ordinal": 1}},
}
QUERY = {"query_id": "q1", "user_query": "red lamp", "client_id": "c", "timestamp": 1767225605250}


@given(lines=st.lists(documents(EVENT) | documents(QUERY), min_size=1, max_size=4), name=st.sampled_from(NAMES))
@fuzzed
def test_logs_of_searches(lines: list[str], name: str, tmp_path: Path) -> None:
    for left in tmp_path.iterdir():
        left.unlink()
    (tmp_path / name).write_bytes(b"\n".join(map(bytes_of, lines)))
    with lawful():
        read_ubi(tmp_path)


CONFIG = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "vocab_size": 30,
    "architectures": ["BertModel"],
}


@given(
    config=damaged(json.dumps(CONFIG).encode(), CONFIG),
    weights=mutations(save({"w": np.zeros((2, 2), dtype=np.float32)})),
)
@rarely
def test_folders_of_checkpoints(config: bytes, weights: bytes, tmp_path: Path) -> None:
    """R2.4, F5"""
    (tmp_path / "config.json").write_bytes(config)
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "tokenizer.json").write_text("{}")
    with lawful():
        check_checkpoint(str(tmp_path))


def test_the_files_that_are_changed_are_good_ones(scores: bytes, tmp_path: Path) -> None:
    """The seed of the fuzzing is a file that is read: else every example would be refused at once."""
    (tmp_path / "scores.parquet").write_bytes(scores)
    check_score_file(score_spec(tmp_path / "scores.parquet"))
    assert parquet.read_table(pa.BufferReader(scores)).num_rows == 50
    (tmp_path / "archive").write_bytes(packed("zip"))
    (tmp_path / "folder").mkdir()
    unpack(tmp_path / "archive", tmp_path / "folder", "an archive")
    (tmp_path / "ubi").mkdir()
    (tmp_path / "ubi" / UBI_FILES[2]).write_text(f"{json.dumps(QUERY)}\n{json.dumps(EVENT)}\n")
    assert len(read_ubi(tmp_path / "ubi")) == 1
    (tmp_path / FILE).write_text(json.dumps(RULE))
    assert not EarlyExit.load(tmp_path).on
