"""Terms of the report: each is explained once a section, listed once, and no text of the data is touched."""

from __future__ import annotations

import re
from dataclasses import replace

from esci_tournament.tasks.report.glossary import TERMS, explain
from esci_tournament.tasks.report.page import render
from esci_tournament.tasks.report.sealing import published
from tests.tasks.report.conftest import build, sparse
from tests.tasks.report.test_exits import RULE


def explained(page: str) -> list[str]:
    return [TERMS_OF[title] for title in re.findall('<abbr title="([^"]*)">', page)]


TERMS_OF = {text.replace("'", "&#39;"): term for term, text in TERMS.items()}


def test_a_page_lists_the_terms_that_it_explains_and_no_others() -> None:
    drift = {"sentence": "it drifted", "before": "9f", "rows": []}
    whole = build(early_exit=RULE.to_json(), drift=drift)
    refused = published(replace(whole, promoted=False, verdict=whole.verdict | {"outcome": "refuse"}), False)
    look = refused.verdict | {"look": 2, "level": 0.01, "alpha_left": 0.5, "spends_look": True}
    used = set()
    for summary in (whole, replace(refused, verdict=look)):
        page = render(summary)
        listed = re.findall("<dt>([^<]*)</dt>", page[page.index('<dl class="terms">') :])
        assert set(listed) == set(explained(page))
        used |= set(listed)
    assert used | {"log loss", "manifest"} == set(TERMS), "a term that no page uses explains nothing"
    checks = [{"name": "log loss", "critical": True, "passed": True}]
    assert {"log loss", "manifest"} <= set(explained(render(replace(sparse(), manifest="ab" * 32, checks=checks))))


def test_a_term_is_explained_once_a_section_and_as_a_whole_word() -> None:
    page = explain("<p>Macro F1, macro F1</p><section>macro F1 and F1 overlooked looks; look-up</section>")
    assert explained(page) == ["macro F1", "macro F1", "F1", "look"]
    assert ">looks</abbr>; look-up" in page


def test_texts_of_the_data_links_code_and_attributes_stay_as_they_are() -> None:
    page = '<q>look</q><cite>budget</cite><a href="#x">Budget</a><code>champion</code><p title="champion">'
    assert explain(f"{page}&lt;look</p>").startswith(page)
    assert explained(explain(f"{page}&lt;look</p>")) == ["look"]
