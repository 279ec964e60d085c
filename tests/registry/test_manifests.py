"""Whatever happens to a file of an ensemble is noticed, whoever wrote the manifest."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esci_tournament.registry.errors import IntegrityError
from esci_tournament.registry.manifests import (
    BESIDE,
    FILE,
    FileEntry,
    Manifest,
    as_payload,
    check,
    check_plain,
    differences,
    in_words,
    manifest_of,
    recorded,
    write,
)
from esci_tournament.registry.models import Models
from esci_tournament.registry.packaging import package_ensemble
from esci_tournament.registry.tracking import mlmodel, pyfunc_data

NAMES = st.sampled_from(["MLmodel", "a", "b c", "é", "members/m-1/head.safetensors", "members/m-2/head.safetensors"])
TREES = st.dictionaries(NAMES, st.binary(max_size=40), min_size=1)


def written(root: Path, tree: dict[str, bytes]) -> Path:
    for name, content in tree.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return root


@given(TREES, st.data())
def test_every_change_of_a_file_is_noticed_and_named(tree: dict[str, bytes], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = written(Path(temporary) / "model", tree)
        manifest = manifest_of(folder, facts={"data": "x"})
        assert differences(folder, manifest) == []
        assert Manifest.of(json.loads(json.dumps(manifest.to_dict()))) == manifest
        name = data.draw(st.sampled_from(sorted(tree)))
        path, content = folder / name, tree[name]
        kind = data.draw(st.sampled_from(["flip", "cut", "grow", "remove", "rename", "add", "link", "pipe", "folder"]))
        expected = name
        if kind == "flip" and content:
            at, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        elif kind == "cut" and content:
            path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        elif kind in ("flip", "cut", "grow"):
            path.write_bytes(content + b"\0")
        elif kind == "remove":
            path.unlink()
        elif kind == "rename":
            path.rename(path.with_name("another"))
        elif kind == "add":
            expected = str(Path(name).with_name("another"))
            (folder / expected).write_bytes(content)
        elif kind == "link":  # to the very same bytes
            path.rename(Path(temporary) / "outside")
            path.symlink_to(Path(temporary) / "outside")
        elif kind == "pipe":
            path.unlink()
            os.mkfifo(path)
        else:
            path.unlink()
            path.mkdir()
        found = differences(folder, manifest)
        assert any(expected in words for words in found), found
        with pytest.raises(IntegrityError, match="differs from manifest"):
            check(folder, manifest, "the model")


@given(TREES, TREES)
def test_two_manifests_have_one_digest_only_if_files_and_facts_are_the_same(
    one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        first = manifest_of(written(Path(temporary) / "one", one))
        second = manifest_of(written(Path(temporary) / "other", other))
        assert (first.digest == second.digest) is (one == other)
        assert first.digest != Manifest(first.files, "", {"data": "x"}).digest
        assert first.digest != Manifest(first.files, "a", {}).digest


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up", "a/../b", "./a", "a//b", "a/", ".", "", "a\0b", "\ud800", 3, None]
)
def test_a_path_that_leaves_the_folder_or_is_written_in_an_unusual_way_is_no_manifest(name: Any) -> None:
    content = Manifest({"a": FileEntry(0, "0" * 64)}).to_dict()
    content["resources"][0]["name"] = name
    with pytest.raises(IntegrityError, match="no manifest"):
        Manifest.of(content)


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another format": lambda it: it.update(format=2),
    "another hash": lambda it: it.update(serialization={"method": "files", "hash_type": "md5"}),
    "no files": lambda it: it.pop("resources"),
    "files that are no list": lambda it: it.update(resources=7),
    "a file twice": lambda it: it["resources"].append(it["resources"][0]),
    "a size that is none": lambda it: it["resources"][0].update(size=True),
    "a negative size": lambda it: it["resources"][0].update(size=-1),
    "a digest that is none": lambda it: it["resources"][0].update(digest="x"),
    "data that leave it": lambda it: it.update(data="../.."),
    "no facts": lambda it: it.update(facts=None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_manifest_is_refused(damage: str, tmp_path: Path) -> None:
    content = copy.deepcopy(Manifest({"a": FileEntry(0, "0" * 64)}).to_dict())
    DAMAGES[damage](content)
    with pytest.raises(IntegrityError, match="no manifest"):
        Manifest.of(content)
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(IntegrityError):
        Manifest.read(tmp_path / FILE)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "\ud800", "7", "null"])
def test_a_manifest_file_that_cannot_be_parsed_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(IntegrityError):
        Manifest.read(tmp_path / FILE)


def test_a_manifest_in_the_ledger_that_was_changed_is_refused() -> None:
    payload = as_payload(Manifest({"a": FileEntry(0, "0" * 64)}))
    assert recorded(payload) == Manifest({"a": FileEntry(0, "0" * 64)})
    assert recorded({}) is None
    payload["manifest"]["resources"][0]["size"] = 1
    with pytest.raises(IntegrityError, match="was changed"):
        recorded(payload)


def test_what_mlflow_adds_beside_a_model_is_no_difference(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {"MLmodel": b"x", "below/a": b"x"})
    manifest = manifest_of(folder)
    written(folder, dict.fromkeys(BESIDE, b"y"))
    assert differences(folder, manifest) == []
    assert differences(folder / "below", manifest.part("below")) == []
    written(folder / "below", dict.fromkeys(BESIDE, b"y"))
    assert len(differences(folder, manifest)) == len(BESIDE), "anywhere else it is"
    assert len(differences(folder / "below", manifest.part("below"))) == len(BESIDE)


def test_links_and_pipes_are_refused_without_a_manifest_too(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", {"a/b": b"x"})
    check_plain(folder, "the model")
    (folder / "a" / "link").symlink_to("/dev/zero")
    for refuse in (lambda: check_plain(folder, "the model"), lambda: manifest_of(folder)):
        with pytest.raises(IntegrityError, match="a/link is a symbolic link"):
            refuse()


def test_differences_are_told_in_few_words() -> None:
    assert in_words(["a is missing"]) == "a is missing"
    assert in_words([f"{letter} is missing" for letter in "abcdefg"]).endswith("(7 differences in all)")


# What MLflow holds


def test_a_package_holds_all_that_is_registered_but_the_files_themselves(tmp_path: Path, models: Models) -> None:
    folder = written(tmp_path / "ensemble", {"ensemble.json": b"{}", "members/m-1/head.safetensors": b"weights"})
    manifest = package_ensemble(folder, tmp_path / "package", {"data": "x"})
    assert (tmp_path / "package" / FILE).is_file()
    assert not list((tmp_path / "package").rglob("*.safetensors"))
    assert manifest.served.files == manifest_of(folder).files
    version = models.register_ensemble(folder, ["m/1"], "t-1", package=tmp_path / "package")
    assert models.download(version, manifest=manifest) == models.files(version) / manifest.data
    assert models.register_ensemble(folder, ["m/1"], "t-1", package=tmp_path / "package") == version
    assert differences(models.files(version), manifest) == []
    # A process that was killed between MLflow and the ledger finds what it registered, as it was
    (models.files(version) / manifest.data / "ensemble.json").write_text("[]")
    with pytest.raises(IntegrityError, match=r"ensemble\.json has another content"):
        models.register_ensemble(folder, ["m/1"], "t-1", package=tmp_path / "package")
    # One that was registered with other files, or before manifests were kept, stays unused
    shutil.rmtree(tmp_path / "package")
    package_ensemble(folder, tmp_path / "package", {})
    assert models.register_ensemble(folder, ["m/1"], "t-1", package=tmp_path / "package").version == 2


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\nflavors: {python_function: {data: data/x}}"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "flavors: 7", "flavors: {python_function: {data: 7}}", "flavors: {python_function: {data: ''}}"),
        *(BOMB, "[" * 100_000, "a: !!python/object/apply:os.system ['true']", "x" * 300_000, "\0"),
        *(f"flavors: {{python_function: {{data: {data}}}}}" for data in ("/etc", "../x", "data/../..", ".", "link/x")),
    ],
)
def test_an_mlmodel_that_names_no_folder_of_its_own_is_refused(text: str, tmp_path: Path) -> None:
    """A2."""
    (tmp_path / "model" / "data").mkdir(parents=True)
    (tmp_path / "model" / "link").symlink_to(tmp_path)
    (tmp_path / "model" / "MLmodel").write_text(text)
    with pytest.raises(IntegrityError, match=r"MLmodel|data"):
        pyfunc_data(tmp_path / "model")


def test_of_an_mlmodel_only_the_place_of_the_data_is_followed(tmp_path: Path) -> None:
    """A2: other modules, code and environments that it names are not looked at."""
    fields = "loader_module: no.such.module\n    code: /etc\n    env: {virtualenv: ../../x}"
    (tmp_path / "MLmodel").write_text(f"flavors:\n  python_function:\n    data: data/x\n    {fields}\n")
    assert pyfunc_data(tmp_path) == tmp_path / "data" / "x"
    assert mlmodel(tmp_path)["flavors"]["python_function"]["code"] == "/etc"


def test_a_manifest_is_written_as_it_is_read(tmp_path: Path) -> None:
    manifest = Manifest({"é": FileEntry(1, "a" * 64)}, "data/x", {"code": {"package": "1"}})
    write(manifest, tmp_path / FILE)
    assert Manifest.read(tmp_path / FILE) == manifest
    (tmp_path / "link").symlink_to(tmp_path / FILE)
    with pytest.raises(IntegrityError, match="it is no file"):
        Manifest.read(tmp_path / "link")
