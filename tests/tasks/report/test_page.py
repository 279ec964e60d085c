"""The report page: self-contained, well-formed, complete, and safe from names with markup."""

import json
import time
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from esci_tournament.registry.settings import Settings
from esci_tournament.tasks.report import drawing
from esci_tournament.tasks.report.page import inline_svg, link, render, setting_rows
from esci_tournament.tasks.report.summary import Metrics, Summary

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}$\\frac{'
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects the elements and the text of a page, and complains when an element is not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.bold: list[str] = []
        self.style = ""
        self._joins = False  # whether nothing but an explained term stands between two pieces of text
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {key: value or "" for key, value in attributes}))
        self._joins &= tag == "abbr"
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, {key: value or "" for key, value in attributes}))

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> inside {self._open[-3:]}"
        self._open.pop()
        self._joins &= tag == "abbr"

    def handle_data(self, data):
        if "style" in self._open:
            self.style += data
        elif self._joins:
            self.text[-1] += data
        else:
            self.text.append(data)
            self._joins = True
            if self._open and self._open[-1] == "b":
                self.bold.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def all(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


@pytest.fixture
def hostile(build_summary) -> Summary:
    whole = build_summary()
    models = [replace(model, name=HOSTILE, detail=HOSTILE, reason=HOSTILE) for model in whole.models]
    return build_summary(
        models=models,
        tournament=HOSTILE,
        near_copies=[HOSTILE],
        mixed_up=[HOSTILE],
        utility_by_class={HOSTILE: {"E": 0.5}},
        utility_by_locale={HOSTILE: {HOSTILE: 0.5}},
        settings={HOSTILE: {"deep": HOSTILE}},
        decision={"decision": HOSTILE, "by": HOSTILE, "reason": HOSTILE},
        verdict={
            "outcome": HOSTILE,
            "reason": HOSTILE,
            "checks": [{"name": HOSTILE, "passed": False, "value": HOSTILE}],
        },
        shift={HOSTILE: 0.1},
        machine={"cpu": HOSTILE},
        examples={
            "pairs": 1,
            "changed": None,
            "errors": {
                HOSTILE: {
                    "count": 1,
                    "shown": [
                        {"query": HOSTILE, "title": HOSTILE, "locale": "us", "label": "E"}
                        | {"given": "I", "probability": 0.9}
                    ],
                }
            },
        },
        champion_version=HOSTILE,
        data_docs="javascript:alert(3)",
        links={HOSTILE: HOSTILE, "a": "javascript:alert(4)", "b": " JaVaScRiPt:alert(5)", "c": "data:text/html,x"},
    )


@pytest.mark.parametrize("kind", ["summary", "sparse_summary", "hostile"])
def test_page_is_well_formed_and_every_reference_inside_it_resolves(kind, request):
    page = Reader(render(request.getfixturevalue(kind)))
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    inside = {address[1:] for address in page.all("href") + page.all("xlink:href") if address.startswith("#")}
    assert inside | set(page.all("aria-labelledby")) <= set(ids)


@pytest.mark.parametrize("kind", ["summary", "sparse_summary", "hostile"])
def test_page_needs_no_network_and_runs_nothing(kind, request):
    page = Reader(render(request.getfixturevalue(kind)))
    assert not page.tags() & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "audio", "video"}
    assert not page.all("src")
    assert "@import" not in page.style
    assert "url(" not in page.style
    policy = [attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes]
    assert policy[0].startswith("default-src 'none'")


def test_hostile_names_stay_text(hostile):
    page = Reader(render(hostile))
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert not [href for href in page.all("href") if ":" in href.split("/")[0]]
    assert "<script>alert(1)</script>" in page.words
    assert "{{ 7 * 7 }}" in page.words


@pytest.mark.parametrize(
    ("address", "href"),
    [
        ("https://example.org/run?a=1&b=2", "https://example.org/run?a=1&b=2"),
        ("docs/data docs/index.html", "docs/data%20docs/index.html"),
        ("/tmp/a b.html", "file:///tmp/a%20b.html"),
        ("javascript:alert(1)", None),
        ("\x01javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("sqlite:///ledger.db", None),
    ],
)
def test_link_follows_web_addresses_and_paths_only(address, href):
    assert Reader(str(link(address, "here"))).all("href") == ([href] if href else [])


def test_passwords_in_addresses_are_not_shown(build_summary):
    address = "postgresql+psycopg://owner:s3cret@host/ledger"
    page = render(build_summary(settings={"ledger_url": address}, links={"Ledger": address}))
    assert "s3cret" not in page
    assert "owner:***@host" in page


def test_best_value_of_each_metric_is_bold_whoever_has_it(build_summary):
    models = build_summary().models
    models[1] = replace(models[1], test=Metrics(accuracy=0.5, macro_f1=0.6001, weighted_f1=0.5))
    page = Reader(render(build_summary(models=models)))
    assert page.bold == ["0.682", "0.660", "0.600"]  # the ensemble's row comes first


def test_page_says_what_a_reviewer_decides_from(summary):
    page = Reader(render(summary))
    expected = [
        "The challenger is champion now: version 4 replaces version 3.",
        "In: e5-small v1; out: sage-impressions v1 and gcn-purchases v1; stay: minilm-l6 v3 and gatv2-clicks v1.",
        "Failed: minilm-l3 v1.",
        "Macro F1 0.540 → 0.563 on the test split: +0.024.",
        "1 of 1 guardrails passed.",
        "beats every single model on accuracy, macro F1 and weighted F1",
        "Verdict: Promote.",
        "0.548 to 0.579",
        "+0.024",
        "Macro F1 in jp may be lower by 0.004 at most, 0.020 is tolerated",
        "Epoch 2: the loss is NaN at step 118",
        "38.5 to 44.0",
        "637 MiB of 800 MiB (80 %)",
        "0.0012 more macro F1",
        "agree on 93 % of the pairs",
        "minilm-l6/3 and e5-small/1 are interchangeable",
        "guest/1: its columns seem to be in another order",
        "no more than noise",
        "+0.031 ± 0.006",
        "Macro F1 of the members on validation is 0.563 ± 0.009.",
        "compared with those of shap 0.51.0: the largest difference is 3e-15 of the largest value",
        "20,462 pairs of 1,021 queries",
        "98.2 % of titles are there",
        "Drawn from 3,821 pairs that the aggregator learns from, each scored by models that",
        "412 labels differ between champion version 3 and the challenger; 230 of them only the challenger has right",
        "red lamp Velo lamp, red us Exact Substitute Exact 0.61",
        "minilm-l6 v3: 1,412 errors, the 1 most confident by class and locale",
        "red lamp Velo lamp, red us Exact Irrelevant 0.99",
        "Learning curves of 1 model",
    ]
    assert [one for one in expected if one not in page.words] == []
    assert "data_docs/index.html" in page.all("href")
    assert sum(tag == "figure" for tag, _ in page.elements) == 7


def test_page_tells_calibration_and_how_much_a_model_covers(build_summary):
    models = build_summary().models
    part = replace(models[0], family="scores", detail="house.parquet", cover=0.834)
    words = Reader(render(build_summary(models=[part, *models[1:]]))).words
    assert "scores, house.parquet, covers 83.4 % of the pairs" in words
    assert "minilm-l6 v3 1.312 0.081 0.023" in " ".join(words.split())


def test_a_summary_of_an_earlier_version_is_shown_without_calibration(summary):
    old = json.loads(summary.to_json())
    for name in ("ensemble_calibration_error", "ensemble_reliability"):
        del old[name]
    for model in old["models"]:
        for name in ("temperature", "calibration_error", "calibration_error_after", "reliability", "cover"):
            del model[name]
    assert "taken at their word" not in render(Summary.from_json(json.dumps(old)))


def test_page_says_what_is_missing(sparse_summary):
    words = Reader(render(sparse_summary)).words
    expected = [
        "The challenger could not be judged; there is still no champion.",
        "A first ensemble of minilm-l6 v1.",
        "There was no champion to compare with.",
        "no test pairs: nothing is known of this locale",
        "No utilities were recorded.",
        "Nothing had to be selected",
        "use not known, no limit set",
        "no behaviour events",
    ]
    assert [one for one in expected if one not in words] == []
    assert "Drawn from" not in words


def test_budget_overrun_is_marked(build_summary):
    selection = build_summary().selection | {"used": {"memory_mib": 1000.0, "latency_ms": 1.0}}
    page = Reader(render(build_summary(selection=selection)))
    assert "gauge over" in page.all("class")
    assert "1,000 MiB of 800 MiB (125 %)" in page.words


def test_headings_descend_one_level_at_a_time(summary):
    levels = [int(tag[1]) for tag, _ in Reader(render(summary)).elements if tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_inline_figures_follow_light_and_dark(summary):
    for name in ("metric_comparison", "utility", "budget_curve", "reliability"):
        svg = str(inline_svg(summary, name))
        fixed = (drawing.INK, drawing.FAINT, drawing.LINE, drawing.ACCENT, drawing.SECOND, drawing.THIRD)
        assert not [colour for colour in fixed if colour in svg]
        assert "var(--ink)" in svg


def test_rendering_is_deterministic(summary):
    assert render(summary) == render(Summary.from_json(summary.to_json()))


def test_page_of_thirty_models_is_small_and_quick(build_summary):
    models = build_summary().models * 5
    started = time.process_time()
    page = render(build_summary(models=models))
    assert len(page.encode()) < 1_000_000
    assert time.process_time() - started < 30  # an order of magnitude above what it takes: it must not explode


def test_shapley_values_and_likeness_have_their_tables(summary) -> None:
    page = render(summary)
    assert "How alike the models err" in page
    assert "0.91" in page
    assert "+0.214" in page


def test_settings_that_differ_from_the_defaults_come_first_and_the_others_are_folded(sparse_summary, tmp_path) -> None:
    settings = Settings(home=tmp_path, budget_memory_mib=800.0, must_keep=("a",)).model_dump(mode="json")
    changed, kept = setting_rows(replace(sparse_summary, settings=settings | {"of_another_release": 1}))
    assert changed == {"budget_memory_mib": "800.0", "must_keep": "['a']", "of_another_release": "1"}
    assert {"home", "alpha", "gain_metrics"} <= set(kept)
    page = render(replace(sparse_summary, settings=settings))
    assert page.index("budget_memory_mib") < page.index("other settings") < page.index("guardrail_margin")


def test_what_was_not_measured_is_no_number(sparse_summary) -> None:
    checks = [
        {"name": "macro_f1 in locale jp", "passed": True, "judged": False, "value": -0.11, "threshold": -0.02},
        {"name": "budget", "passed": True, "judged": True, "value": -1.0, "threshold": 0.0},
    ]
    verdict = sparse_summary.verdict | {"checks": checks}
    summary = replace(sparse_summary, verdict=verdict, confusion=[[3, 1, 0, 0], *[[0] * 4] * 3])
    page = Reader(render(summary))
    assert "macro F1 in locale jp ! not judged" in page.words
    assert "0 of 1 guardrails passed; too little data to judge macro F1 in locale jp." in page.words
    assert "budget ✓ passed – –" in page.words
    assert "Substitute – 0 – 0 – 0 – 0" in page.words
    assert "not measured, or nothing to measure" in page.all("title")
