"""Whole tournaments with an external pyfunc and a plugged-in family, beside a built-in one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest

from esci_tournament.registry.ledger import Ledger
from esci_tournament.tasks.data.layout import EXAMPLES_FILE, PRODUCTS_FILE
from tests.harness import clean_environment, new_home, warm

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "candidates.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow", "ignore::UserWarning:mlflow"),
]

GUEST = '''
import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class FirstWord(PythonModel):
    """Exact, where the title has the last word of the query."""

    def predict(self, context, model_input, params=None):
        last = [query.split()[-1].lower() if query.split() else "" for query in model_input["query"]]
        titles = model_input["product_title"].str.lower()
        found = np.array([word in title for word, title in zip(last, titles)], dtype=float)
        exact = 0.3 + 0.4 * found
        return pd.DataFrame({"E": exact, "S": 0.9 - exact, "C": 0.04, "I": 0.06})


set_model(FirstWord())
'''
CANDIDATES = """
[[candidate]]
name = "guest"
family = "pyfunc"
model = "{model}"
trained_on = "other_queries"
provenance = "made in a test, it has learnt nothing"

[[candidate]]
name = "overlap"
family = "word_overlap"

[[candidate]]
name = "sage"
family = "graph_network"
architecture = "graphsage"
relation = "impressions"
recipe = {{ epochs = 2, hidden_size = 16, text_dimensions = 32, layers = 1 }}
"""


def install_plug_in(folder: Path) -> None:
    """Lay the guide's plug-in into a folder as an installer would."""
    (code,) = [text for _, text in BLOCKS if "class WordOverlap:" in text]
    (points,) = [text for _, text in BLOCKS if "entry-points" in text]
    ((group, entries),) = tomllib.loads(points)["project"]["entry-points"].items()
    info = folder / "word_overlap-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "word_overlap.py").write_text(code, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: word-overlap\nVersion: 1.0\n", encoding="utf-8")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def sample_of(folder: Path, target: Path, queries: int) -> Path:
    """Write the first queries of each locale and split of a folder of real rows, with their products."""
    pairs = pd.read_parquet(folder / EXAMPLES_FILE)
    firsts = pairs.drop_duplicates("query_id").groupby(["product_locale", "split"]).head(queries)
    pairs = pairs[pairs["query_id"].isin(firsts["query_id"])]
    products = pd.read_parquet(folder / PRODUCTS_FILE)
    wanted = pd.MultiIndex.from_frame(pairs[["product_locale", "product_id"]])
    products = products[pd.MultiIndex.from_frame(products[["product_locale", "product_id"]]).isin(wanted)]
    target.mkdir()
    pairs.to_parquet(target / EXAMPLES_FILE, index=False)
    products.to_parquet(target / PRODUCTS_FILE, index=False)
    return target


@pytest.mark.parametrize("world", ["tiny", pytest.param("real", marks=pytest.mark.shared)])
def test_guests_compete_are_judged_and_serve(world: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if world == "tiny":
        data = request.getfixturevalue("tiny_world")
    else:
        data = sample_of(request.getfixturevalue("esci_sample"), tmp_path / "real", 40)
    install_plug_in(tmp_path / "site")
    (tmp_path / "guest.py").write_text(GUEST, encoding="utf-8")
    model = tmp_path / "models" / "guest"
    mlflow.pyfunc.save_model(str(model), python_model=str(tmp_path / "guest.py"), pip_requirements=["numpy"])
    (tmp_path / "candidates.toml").write_text(CANDIDATES.format(model=model), encoding="utf-8")
    settings = (
        f'minimum_test_queries = 10\nmust_keep = ["guest", "overlap"]\nallowed_pyfunc_sources = ["{model.parent}"]\n'
    )
    (tmp_path / "tournament.toml").write_text(settings, encoding="utf-8")

    new_home(tmp_path / "home")
    document = run(tmp_path, "run", "--data", data, "--candidates", "candidates.toml", "--json")
    status = {one["name"]: (one["status"], one["reason"]) for one in document["models"]}
    assert status["guest"] == status["overlap"] == ("member", "")
    assert status["sage"][0] in ("member", "evicted")
    assert document["promoted"]
    for one in document["models"]:
        assert 0 < one["blend"]["accuracy"] < 1
        assert (one["test"] is not None) == (one["status"] == "member")
        assert one["cost"]["milliseconds_per_page_p50"] > 0
    with Ledger.open(f"sqlite:///{tmp_path / 'home' / 'ledger.db'}") as ledger:
        assert ledger.events(kind="candidate_failed") == []

    rows = "query,product_locale,product_title\nred lamp,us,Velo red lamp\nred lamp,us,Velo blue kettle\n"
    (tmp_path / "pairs.csv").write_text(rows, encoding="utf-8")
    run(tmp_path, "score", "pairs.csv", "--out", "labelled.csv", "--json")
    labelled = pd.read_csv(tmp_path / "labelled.csv")
    assert labelled[["E", "S", "C", "I"]].sum(axis=1).tolist() == pytest.approx([1, 1], abs=1e-4)
    assert run(tmp_path, "reevaluate", "--data", data, "--json")["unchanged"]


def run(folder: Path, *arguments: object) -> dict[str, Any]:
    """Return the document of a command, run where the plug-in is installed."""
    answer = warm([*arguments, "--home", "home"], folder, clean_environment(PYTHONPATH=folder / "site"))
    assert answer.code == 0, answer.err
    return answer.document
