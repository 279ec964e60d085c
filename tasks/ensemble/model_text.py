"""Read LightGBM's text of a model strictly: every line is known, every number counted and every child in its place.

LightGBM itself ends the process on most texts that are damaged. What passes here it can read as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from esci_tournament.registry.labels import CLASSES
from esci_tournament.tasks.ensemble.trees import Tree

LONGEST = 32 * 2**20  # bytes; a champion of 20 members has some 5 MiB
_MOST_LEAVES = 4096
_MOST_COLUMNS = 4096
_MOST_TREES = 100_000
_LARGEST = 1e9  # of a leaf's value; sums of these stay finite
_COUNT = 2**31 - 1

_NUMBER = r"-?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?"
_FLOATS = re.compile(rf"(?:{_NUMBER}(?: {_NUMBER})*)?", re.ASCII)
_INTEGERS = re.compile(r"(?:-?\d{1,10}(?: -?\d{1,10})*)?", re.ASCII)
_RANGE = re.compile(rf"none|\[{_NUMBER}:{_NUMBER}\]", re.ASCII)
_NAME = re.compile(r"[\w.\-]{1,100}", re.ASCII)
_PARAMETER = re.compile(r"\[([a-z0-9_]{1,60}): ([\w.,+\- ]{0,200})\]", re.ASCII)
_IMPORTANCE = re.compile(r"([\w.\-]{1,100})=\d{1,10}", re.ASCII)
_HEAD = (
    *("version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective"),
    *("feature_names", "feature_infos", "tree_sizes"),
)
# Fields of a tree in their order: whether they are integers, and what they have one of
_FIELDS = (
    ("split_feature", True, "nodes"),
    ("split_gain", False, "nodes"),
    ("threshold", False, "nodes"),
    ("decision_type", True, "nodes"),
    ("left_child", True, "nodes"),
    ("right_child", True, "nodes"),
    ("leaf_value", False, "leaves"),
    ("leaf_weight", False, "weights"),
    ("leaf_count", True, "leaves"),
    ("internal_value", False, "nodes"),
    ("internal_weight", False, "nodes"),
    ("internal_count", True, "nodes"),
)
_DECISIONS = {0, 2, 8, 10}  # numerical splits; missing values are none or NaN, and features are finite


def read_model(text: str, columns: int) -> list[Tree]:
    """Return the trees of a text in LightGBM's format, version 4, of a classifier without categories.

    Args:
        text: What `Booster.model_to_string` returned, or what claims to be that.
        columns: Number of columns that the trees may read.

    Returns:
        The trees in their order; tree i belongs to class i modulo 4.

    Raises:
        ValueError: If a line, a count, a number or a child is not as LightGBM writes it; the message says which line.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} characters; {LONGEST:,} are allowed")
    lines = _Lines(text)
    sizes = _head(lines, columns)
    trees = [_tree(lines, number, columns, size) for number, size in enumerate(sizes)]
    _tail(lines, columns)
    return trees


class _Lines:
    """The lines of a text, one after the other."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self.at = 0

    def next(self) -> str:
        """Return the next line, without its end."""
        if self.at >= len(self._lines):
            raise ValueError("it ends before its time")
        self.at += 1
        return self._lines[self.at - 1]

    def length(self, first: int) -> int:
        """Return the characters of the lines from `first` to the last one that was read, with their ends."""
        return sum(len(line) + 1 for line in self._lines[first : self.at])

    @property
    def over(self) -> bool:
        """Whether nothing is left but the end of the last line."""
        return self._lines[self.at :] in ([], [""])

    def wrong(self, what: str) -> ValueError:
        """Return the error for the line that was read last."""
        return ValueError(f"line {self.at}: {what}")

    def exactly(self, *wanted: str) -> None:
        """Read lines that have to be these."""
        for line in wanted:
            if self.next() != line:
                raise self.wrong(f"expected {line!r}")

    def field(self, name: str) -> str:
        """Read the line `name=...` and return what stands after the sign."""
        found, sign, value = self.next().partition("=")
        if found != name or not sign:
            raise self.wrong(f"expected {name}=")
        return value

    def integers(self, name: str, count: int | None) -> list[int]:
        """Read a field of `count` integers."""
        value = self._counted(name, count)
        if not _INTEGERS.fullmatch(value):
            raise self.wrong(f"{name} has what is no integer")
        return [int(one) for one in value.split()]

    def floats(self, name: str, count: int | None) -> list[float]:
        """Read a field of `count` finite numbers."""
        value = self._counted(name, count)
        if not _FLOATS.fullmatch(value):
            raise self.wrong(f"{name} has what is no number")
        found = [float(one) for one in value.split()]
        if not all(map(math.isfinite, found)):
            raise self.wrong(f"{name} has a number that is not finite")
        return found

    def _counted(self, name: str, count: int | None) -> str:
        value = self.field(name)
        found = value.count(" ") + 1 if value else 0
        if found > _MOST_TREES or (count is not None and found != count):
            raise self.wrong(f"{name} has {found} values where {'fewer' if count is None else count} belong")
        return value


def _head(lines: _Lines, columns: int) -> list[int]:
    """Read all before the first tree; return the length of each tree's text."""
    if not 1 <= columns <= _MOST_COLUMNS:
        raise ValueError(f"it is about {columns} columns; 1 to {_MOST_COLUMNS} are allowed")
    lines.exactly("tree")
    expected = {
        "version": "v4",
        "num_class": str(CLASSES),
        "num_tree_per_iteration": str(CLASSES),
        "label_index": "0",
        "max_feature_idx": str(columns - 1),
        "objective": f"multiclass num_class:{CLASSES}",
    }
    for name, value in expected.items():
        lines.exactly(f"{name}={value}")
    for name, pattern in (("feature_names", _NAME), ("feature_infos", _RANGE)):
        found = lines.field(name).split(" ")
        if len(found) != columns or not all(map(pattern.fullmatch, found)):
            raise lines.wrong(f"{name} is not about {columns} columns")
    sizes = lines.integers("tree_sizes", None)
    if len(sizes) % CLASSES or any(size <= 0 for size in sizes):
        raise lines.wrong(f"tree_sizes has {len(sizes)} values; there is a tree of a positive size for each class")
    lines.exactly("")
    return sizes


def _tree(lines: _Lines, number: int, columns: int, size: int) -> Tree:
    first = lines.at
    lines.exactly(f"Tree={number}")
    leaves = lines.integers("num_leaves", 1)[0]
    if not 1 <= leaves <= _MOST_LEAVES:
        raise lines.wrong(f"{leaves} leaves; 1 to {_MOST_LEAVES} are allowed")
    lines.exactly("num_cat=0")
    # A tree of one leaf states no weight.
    counts = {"nodes": leaves - 1, "leaves": leaves, "weights": None if leaves == 1 else leaves}
    found: dict[str, Any] = {
        name: lines.integers(name, counts[of]) if whole else lines.floats(name, counts[of])
        for name, whole, of in _FIELDS
    }
    _check(lines, found, columns)
    lines.exactly("is_linear=0")
    lines.floats("shrinkage", 1)
    lines.exactly("", "")
    if lines.length(first) != size:
        raise lines.wrong(f"tree {number} has another length than tree_sizes says")
    return Tree(
        np.array(found["split_feature"], dtype=np.int64),
        np.array(found["threshold"], dtype=np.float64),
        np.array(found["left_child"], dtype=np.int64),
        np.array(found["right_child"], dtype=np.int64),
        np.array(found["leaf_value"], dtype=np.float64),
        np.array(found["leaf_count"], dtype=np.float64),
        np.array(found["internal_count"], dtype=np.float64),
    )


def _check(lines: _Lines, found: dict[str, Any], columns: int) -> None:
    """Check that the fields of a tree make a tree: each node and leaf hangs from one node before it."""
    nodes, leaves = len(found["split_feature"]), len(found["leaf_value"])
    if not all(0 <= column < columns for column in found["split_feature"]):
        raise lines.wrong(f"a split reads a column that is none of {columns}")
    if not _DECISIONS.issuperset(found["decision_type"]):
        raise lines.wrong("a split is no comparison of numbers")
    children = [*found["left_child"], *found["right_child"]]
    if nodes and sorted(children) != [*range(-leaves, 0), *range(1, nodes)]:
        raise lines.wrong("nodes and leaves are not each the child of one node")
    if any(0 <= child <= at % nodes for at, child in enumerate(children)):
        raise lines.wrong("a node is the child of one that comes after it")
    if any(abs(value) > _LARGEST for value in found["leaf_value"]):
        raise lines.wrong(f"a leaf is beyond {_LARGEST:g}")
    for name in ("leaf_count", "internal_count"):
        if not all(0 <= count <= _COUNT for count in found[name]):
            raise lines.wrong(f"{name} has a count below 0 or beyond {_COUNT}")
    if nodes and found["internal_count"][0] < 1:
        raise lines.wrong("a tree is about no row")


def _tail(lines: _Lines, columns: int) -> None:
    lines.exactly("end of trees", "", "feature_importances:")
    if len(list(_until_empty(lines, _IMPORTANCE, columns))) > columns:
        raise lines.wrong("feature_importances has too many lines")
    following = lines.next()
    if following == "parameters:":
        if not list(_until_empty(lines, _PARAMETER, 1000)):
            raise lines.wrong("there is no parameter")
        lines.exactly("end of parameters", "")
        following = lines.next()
    if following != "pandas_categorical:null":
        raise lines.wrong("expected 'pandas_categorical:null'")
    if not lines.over:
        raise lines.wrong("something follows the end")


def _until_empty(lines: _Lines, pattern: re.Pattern[str], most: int) -> Iterator[str]:
    """Yield the names in lines of one pattern up to an empty one; none comes twice."""
    seen = set[str]()
    while line := lines.next():
        if not (found := pattern.fullmatch(line)) or found[1] in seen or len(seen) >= most:
            raise lines.wrong("unknown, or there twice")
        seen.add(found[1])
        yield found[1]
