"""Expressions of published tokenizers are accepted; those whose matching may blow up are not."""

import pytest

from esci_tournament.tasks.families.patterns import trouble_with

PUBLISHED = {
    "GPT-2, RoBERTa": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k, Llama 3, Qwen": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "Bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "CLIP": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "DeepSeek": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    "XLM-R": " {2,}",
    "digits": r"\d{3}(?=(?:\d{3})*\b)",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_expressions_are_accepted(name):
    assert trouble_with(PUBLISHED[name]) == ""


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "(a|a)*b", "(a|aa)+$", "(.*)*x", "([a-z]+)*", "(x+x+)+y", "(a*)*", "((a{0,30}){0,30})"),
        *("a*a*a*b", "a{0,9}" * 9, "a?" * 30 + "a" * 30, "(?:a?){30}a{30}", "(?=a+)*", "(?:(?:a+))+"),
        *(r"(a)\1", r"(?<n>a)\g<n>", r"\k<n>", "(?x: a )", "(?~ab)", "(?(1)a|b)", "(?i", "[a", "a)", "(a", "a{1,2}{3}"),
        *("(" * 40 + "a" + ")" * 40, "a" * 6000),
    ],
)
def test_what_may_blow_up_is_refused(pattern):
    """F5.6."""
    assert trouble_with(pattern)
