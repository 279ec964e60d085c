"""`tournament register`: versions in MLflow, or none if one spec of the file is wrong."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

GOOD = '[[candidate]]\nname = "one"\nfamily = "graph_network"\narchitecture = "gcn"\n'
WRONG = '[[candidate]]\nname = "two"\nfamily = "language_model"\ncheckpoint = "empty"\n'


def test_a_spec_is_a_version_once_and_another_of_that_name_is_the_next(tournament, tmp_path):
    file, home = tmp_path / "specs.toml", tmp_path / "home"
    for content, version in ((GOOD, 1), (GOOD, 1), (GOOD.replace("gcn", "graphsage"), 2)):
        file.write_text(content, encoding="utf-8")
        (row,) = tournament("register", file, "--home", home, "--json").document
        assert (row["name"], row["version"]) == ("one", version)


def test_nothing_of_a_file_is_registered_when_one_spec_is_wrong(tournament, tmp_path):
    file, home = tmp_path / "specs.toml", tmp_path / "home"
    file.write_text(GOOD + WRONG, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    answer = tournament("register", file, "--home", home)
    assert answer.code == 4
    assert "config.json" in answer.err
    assert tournament("candidates", "--home", home, "--json").document == []
