"""Pictures that shap draws: absent without contributions, and nothing of numpy or pyplot is changed by them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from esci_tournament.registry.errors import UsageError
from esci_tournament.tasks.ensemble.explanation import from_json
from esci_tournament.tasks.report.shap_figures import save_waterfall, shap_bar, shap_beeswarm


@pytest.fixture(scope="module", autouse=True)
def _no_window():
    plt.switch_backend("agg")


@pytest.fixture
def one(summary):
    return from_json(summary.contributions)[0, :, "Exact"]


def test_without_contributions_there_is_no_picture(sparse_summary):
    assert shap_bar(sparse_summary) is None
    assert shap_beeswarm(sparse_summary) is None


def test_drawing_leaves_random_numbers_and_pyplot_as_they_were(summary, one, tmp_path):
    np.random.seed(3)
    before, open_before = np.random.get_state()[1].copy(), plt.get_fignums()
    shap_beeswarm(summary)
    save_waterfall(one, "a pair", tmp_path / "a.png")
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert plt.get_fignums() == open_before


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("b/a.svg", b"<?xml")])
def test_a_waterfall_is_written_in_the_format_of_its_name(one, tmp_path, name, start):
    save_waterfall(one, "query $1 -> a $2 title", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert len(list((tmp_path / name).parent.iterdir())) == 1


def test_an_unknown_format_is_named(one, tmp_path):
    with pytest.raises(UsageError, match="'bmp'"):
        save_waterfall(one, "a pair", tmp_path / "a.bmp")
