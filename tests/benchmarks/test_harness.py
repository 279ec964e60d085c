import json
import re

import numpy as np
import pytest

from benchmarks.harness import arguments, figure, report


@pytest.mark.parametrize(
    ("value", "target", "met"), [(5, ">= 5", True), (4.9, ">= 5", False), (1, "<= 0.5", False), (1, "", None)]
)
def test_a_figure_says_whether_its_target_is_met(value, target, met):
    assert figure("speed-up", value, "times", target).met is met


def test_json_is_one_document_of_the_agreed_shape(capsys):
    report("gate", [figure("speed-up", np.float64(7), "times", ">= 5", "peer", np.float64(1.5))], as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"subject", "machine", "figures"}
    assert set(document["figures"][0]) == {"name", "value", "unit", "target", "peer", "peer_value", "met"}


def test_the_table_shows_what_missed_its_target(capsys):
    report("gate", [figure("speed-up", 4, "times", ">= 5")], as_json=False)
    out = capsys.readouterr().out
    assert "speed-up" in out
    assert "NO" in out


def test_peers_stand_beside_each_other_in_one_line(capsys):
    figures = [figure("speed-up", 4, "times", ">= 5", peer, value) for peer, value in (("a", 1.5), ("b", 2.25))]
    report("gate", figures, as_json=False, beside=True)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "speed-up" in line]
    assert re.findall(r"NO|\d[\d.]*", line) == ["5", "NO", "4", "1.5", "2.25"]


def test_options_are_the_same_for_all_subjects():
    options = arguments("gate", "what it does", ["--quick", "--json", "--seed", "3"])
    assert (options.quick, options.json, options.seed) == (True, True, 3)
