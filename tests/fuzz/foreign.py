"""What strangers send, for the tests of this folder: JSON of any shape, and valid files with bytes changed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from esci_tournament.registry.errors import TournamentError

SECONDS = 5.0  # that one input may take; far above what any takes, far below what a user waits for

# All tests of the folder take about half a minute. Examples that fail are not made smaller, which may take minutes.
fuzzed = settings(
    max_examples=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
rarely = settings(fuzzed, max_examples=8)  # where an example takes a tenth of a second, or a child process


@contextmanager
def lawful(*refusals: type[Exception]) -> Iterator[None]:
    """Let pass what the product says of bad input: its own errors, and those that a parser documents."""
    begin = time.monotonic()
    try:
        yield
    except (TournamentError, *refusals):
        pass
    assert time.monotonic() - begin < SECONDS


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


# Text that json.dumps cannot make: numbers without bound, halves of surrogate pairs, depth, and what is no JSON
PLAIN = ("", "null", "{", "NaN", "-Infinity", "1e400", "9" * 6000, '"\\ud800"', "\x00", "\ufeff{}", "{}{}", "[]", "0")
DEEP = (_nested(100), _nested(100_000), "[" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000)
ODD = st.sampled_from((*PLAIN, *DEEP))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def altered(draw: st.DrawFn, valid: Any) -> Any:
    """A document like a valid one: values replaced, keys removed or added, at any depth."""
    chance = draw(st.integers(0, 9))
    if chance == 0:
        return draw(ANYTHING | st.sampled_from([10**400, -(2**63), float("inf"), "\ud800", "x" * 10_000, "../../x"]))
    if isinstance(valid, dict):
        kept = {key: draw(altered(value)) for key, value in valid.items() if draw(st.integers(0, 19))}
        return kept | (draw(st.dictionaries(st.text(max_size=8), ANYTHING, max_size=2)) if chance == 1 else {})
    if isinstance(valid, list):
        return [draw(altered(value)) for value in valid for _ in range(draw(st.sampled_from([1, 1, 1, 0, 2])))]
    return valid


def documents(valid: Any) -> st.SearchStrategy[str]:
    """Texts that should hold a document like a valid one."""
    return st.one_of(altered(valid).map(json.dumps), ODD, ANYTHING.map(json.dumps), st.text(max_size=200))


@st.composite
def mutations(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid file with some bytes changed, removed, put in or repeated, or cut short."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, max(0, len(content) - 1)))
        many = draw(st.sampled_from([1, 1, 2, 4, 16, 256]))
        match draw(st.sampled_from(["flip", "flip", "put", "remove", "repeat", "cut", "zero"])):
            case "flip":
                content[begin : begin + many] = bytes(
                    byte ^ draw(st.integers(1, 255)) for byte in content[begin : begin + 1]
                )
            case "put":
                content[begin:begin] = draw(st.binary(min_size=1, max_size=16))
            case "remove":
                del content[begin : begin + many]
            case "repeat":
                content[begin:begin] = content[begin : begin + many]
            case "zero":
                content[begin : begin + many] = bytes(len(content[begin : begin + many]))
            case "cut":
                del content[begin:]
    return bytes(content)
