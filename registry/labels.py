"""The classes of the Shopping Queries Dataset, their letters and names; its locales.

A class's number is its index.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LABELS: tuple[str, ...] = ("E", "S", "C", "I")
LABEL_NAMES: tuple[str, ...] = ("Exact", "Substitute", "Complement", "Irrelevant")
CLASSES = len(LABELS)
LOCALES: tuple[str, ...] = ("us", "es", "jp")

_WORDS = {
    **{letter.casefold(): number for number, letter in enumerate(LABELS)},
    **{name.casefold(): number for number, name in enumerate(LABEL_NAMES)},
    **{"exactly": 0, "substitutes": 1, "complements": 2, "complementary": 2, "irrelevance": 3},
}
# What people write beside a class in the name of a column
_BESIDE = frozenset(
    {
        *("p", "prob", "probs", "proba", "probability", "probabilities", "score", "scores"),
        *("pred", "prediction", "predicted", "label", "class", "esci", "is", "match", "product", "of"),
    }
)


def class_of(name: object) -> int | None:
    """Return the class that a name means: a letter or a word, alone or beside words such as "prob" and "label".

    Args:
        name: What a column or a label is called.

    Returns:
        Index into :data:`LABELS`; None when it names no class, or more than one.

    Example:
        >>> [class_of(name) for name in ("E", "substitute", "prob_complement", "P(Irrelevant)", "LABEL_0", "title")]
        [0, 1, 2, 3, None, None]
    """
    words = [word for word in re.split(r"[\W_]+", str(name).casefold()) if word]
    found = [word for word in words if word in _WORDS]
    known = len(found) == 1 and all(word in _BESIDE for word in words if word not in found)
    return _WORDS[found[0]] if known else None


def classes_in(names: Iterable[object]) -> list[int] | None:
    """Return where the four classes stand among the names of columns.

    Args:
        names: What the columns are called; some may name no class. Letters go before words: of "E" and "exact", "E".

    Returns:
        The places of E, S, C and I, four of them; None unless each class is named exactly once.

    Example:
        >>> classes_in(["query", "complement", "exact", "irrelevant", "substitute"])
        [2, 4, 1, 3]
        >>> classes_in(["0", "1", "2", "3"])
    """
    called = list(names)
    if all(called.count(letter) == 1 for letter in LABELS):
        return [called.index(letter) for letter in LABELS]
    found = [class_of(name) for name in called]
    if all(found.count(number) == 1 for number in range(CLASSES)):
        return [found.index(number) for number in range(CLASSES)]
    return None
