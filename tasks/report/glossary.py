"""Explain the report's terms where they are first used in a section, and list those that a page uses at its end."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

TERMS: dict[str, str] = {
    "accuracy": "Share of the pairs whose label is right.",
    "aggregator": "What combines the scores of the members to one answer: a log-linear pool, and trees of LightGBM.",
    "bench": "Models that were evicted or refused; they get another chance at each re-evaluation.",
    "blend": "Pairs that no model is trained on, which the aggregator learns from.",
    "budget": "Memory and time for a page of 40 pairs that all members together may use.",
    "challenger": "The ensemble that this tournament has built.",
    "champion": "The ensemble that serves.",
    "drop-one": "What the metric loses on validation when the ensemble is re-fit without the member.",
    "early exit": "Answering without the last members where they would hardly change the label.",
    "error probability": "Chance that a home without better challengers ever promotes one; looks spend it.",
    "evicted": "Left out by the selection: the others do as well without it, or the budget holds no more.",
    "expected calibration error": "Mean distance between how sure a model is and how often it is right.",
    "F1": "Harmonic mean of precision and recall of a class.",
    "guardrail": "A check that nothing is lost in a locale, class or metric; a hurt one refuses the challenger.",
    "incumbent": "A model that was a member of the champion.",
    "Jensen-Shannon distance": "How far two distributions are apart: 0 the same, 1 without overlap.",
    "log loss": "Mean of the negative logarithm of the probability that the true label was given, in nats.",
    "look": "One comparison on the test split; each that promotes nothing spends part of the error probability.",
    "macro F1": "Mean of the F1 of the classes; a rare class counts as much as a frequent one.",
    "manifest": "List of every file that serves with its digest; a decision is on these files.",
    "out of fold": "Answered by a fit that has not seen the pair's query.",
    "p50": "Median time.",
    "p95": "Time that one page in twenty exceeds.",
    "precision": "Share of the pairs with this answer whose true class it is.",
    "recall": "Share of the pairs of a class that are answered so.",
    "sealed": "Kept back: whoever sees test numbers of what does not serve could tune for the test split.",
    "SHAP": "A method that divides an answer among the inputs that it came of, here among the members.",
    "Shapley value": "What the metric owes to a member, averaged over all orders in which members could enter.",
    "temperature": "What logarithms of probabilities are divided by so that they can be taken at their word.",
    "test split": "Pairs that the judge alone reads; nothing is fitted or chosen on them.",
    "total variation": "Half the sum of the differences of the four probabilities: 0 the same, 1 without overlap.",
    "utility": "Share of the ensemble's SHAP that is the member's.",
    "validation": "Of a set of members: the aggregator's pairs, answered out of fold. Of one model: queries that are "
    "kept from its training and choose the epoch.",
    "weighted F1": "Mean of the F1 of the classes, weighted by their pairs.",
}
# The product's other words, which a report does not explain; the site's glossary has them all
WORDS: dict[str, str] = {
    "candidate": "A registered model version that competes for a place in the ensemble; its spec describes it.",
    "chain": "The hash chain over the ledger's rows: a row that was changed past the database's triggers is noticed.",
    "checkpoint": "Weights and tokenizer of a language model. Of the ledger: how far its chain had come at a "
    "moment, kept elsewhere.",
    "data version": "Digest of a data set's content; the same files under another name have the same version.",
    "decision": "The reviewer's answer to a verdict, with name and reason.",
    "ensemble": "Its members, and the aggregator over their scores.",
    "family": "The code for one type of candidate, such as language models: built in, or a plug-in.",
    "home": "The folder of one installation: stages, scores, ledger, MLflow's database.",
    "ledger": "The append-only record of all events, in a SQL database.",
    "locale": "Country and language of a query: us, es or jp.",
    "member": "A candidate that is in an ensemble.",
    "page": "One query and the products to be labelled for it; times are told for a page of 40.",
    "pair": "One query and one product in one locale; the unit that is labelled and scored.",
    "policy": "Who may approve a promotion, how many must, and the promotion rule; kept in the ledger, in versions.",
    "promotion": "A new ensemble becomes champion: MLflow's alias moves to it.",
    "review": "A person reads the numbers of a challenger and answers approve or refuse, with a reason.",
    "scorer": "The server that answers pages with the champion's labels over HTTP.",
    "scores": "A candidate's class probabilities for one data version, float32 (n, 4), in the order E, S, C, I.",
    "spec": "Family, architecture or checkpoint, relation and hyper-parameters of a candidate.",
    "stage": "A step of a tournament whose result is stored under a digest of its inputs.",
    "tournament": "One attempt to build a better ensemble, of a data version, the champion's members and newcomers.",
    "verdict": "The result of the statistical test: promote, refuse or not evaluable.",
}
PLACE = "<dl data-glossary></dl>"  # where the template wants the list; no foreign text can hold an unescaped tag

# In headings, links, code and pictures a term is not explained; in texts of the data it is no term
_SKIPPED = ("style", "title", "h1", "h2", "h3", "a", "nav", "code", "svg", "summary", "q", "cite", "abbr")
_TAG = re.compile(r"(<[^>]*>)")
_TERM = re.compile(rf"(?<![\w-])({'|'.join(sorted(map(re.escape, TERMS), key=len, reverse=True))})(s?)(?![\w-])", re.I)
_NAMES = {term.casefold(): term for term in TERMS}


def explain(page: str) -> str:
    """Return a page whose terms say on hover what they mean, once a section, with a list of those that it uses.

    Args:
        page: HTML in which every text is escaped; its `section` elements are not nested.

    Returns:
        The page; the list stands at :data:`PLACE`.

    Example:
        >>> explain("<p>a look, a look</p>")
        '<p>a <abbr title="One comparison on the test split; each that promotes nothing spends part of the error \
probability.">look</abbr>, a look</p>'
    """
    body, place, rest = page.partition(PLACE)
    used: set[str] = set()
    explained = "".join(_explained(body, used))
    return explained + (_listed(used) if place else "") + rest


def _explained(page: str, used: set[str]) -> Iterator[str]:
    here: set[str] = set()
    until = ""

    def mark(found: re.Match[str]) -> str:
        term = _NAMES[found[1].casefold()]
        used.add(term)
        if term in here:
            return found[0]
        here.add(term)
        return str(Markup('<abbr title="{}">{}</abbr>').format(TERMS[term], Markup(found[0])))

    for part in _TAG.split(page):
        if part.startswith("<"):
            name = part[1:].split(">")[0].split()[0].rstrip("/")
            if name == "section":
                here = set()
            if not until and name in _SKIPPED:
                until = f"/{name}"
            elif name == until:
                until = ""
            yield part
        else:
            yield part if until else _TERM.sub(mark, part)


def _listed(used: set[str]) -> str:
    rows = (Markup("<dt>{}</dt><dd>{}</dd>").format(term, escape(text)) for term, text in TERMS.items() if term in used)
    return f'<dl class="terms">{"".join(rows)}</dl>'
