"""What is no page is refused in the time and memory of one that is."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
from typing import Any

import pytest

from esci_tournament.deployments.scorer.reading import Refused, read_page

HEAD = '{"query": "lamp", "locale": "us", "products": ['
SIZE = 8 * 2**20
NAMES = ",".join(f'"{number:x}": 1' for number in range(SIZE // 11))


@pytest.mark.parametrize(
    "body",
    [
        HEAD + '{"id": "a"}], ' + NAMES + "}",
        HEAD + '{"id": "a", ' + NAMES + "}]}",
        HEAD + ",".join("{" + NAMES[:8000].rpartition(",")[0] + "}" for _ in range(999)) + "]}",
        HEAD + "1," * (SIZE // 2) + "1]}",
        HEAD + "{}," * (SIZE // 3) + "{}]}",
        HEAD + '{"title": [' + '"ab",' * (SIZE // 5) + "1]}]}",
        HEAD + '{"title": [' + "[]," * 99_000 + "1]}]}",
        "[" * SIZE,
        HEAD + '{"id": "a"}]' + ', "query": "b"' * (SIZE // 14) + "}",
    ],
    ids=["fields", "of-a-product", "of-all", "numbers", "empty", "list", "lists", "nested", "repeated"],
)
def test_a_hostile_body_takes_neither_long_nor_much_memory(body: str) -> None:
    """The kind of S4: 8 MiB of unknown fields took 12 s and 1 GiB, in which nobody else was answered."""
    content = body.encode()
    begun = time.process_time()
    with pytest.raises(Refused) as refused:
        read_page(content)
    assert time.process_time() - begun < 6  # ten times what it takes: it must not explode
    assert refused.value.status in (413, 422)
    assert len(str(refused.value)) < 500
    assert len(refused.value.fields) <= 20
    tracemalloc.start()
    with pytest.raises(Refused):
        read_page(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_large_pages_of_real_texts_are_pages() -> None:
    product = (
        '{"id": "B%d", "title": "Lamp, 5\\" wide {red} [2 pack]", "description": "' + "fine, bright; " * 500 + '"}'
    )
    page = read_page((HEAD + ",".join(product % number for number in range(1000)) + "]}").encode())
    assert len(page.products) == 1000
    assert page.products[7].title == 'Lamp, 5" wide {red} [2 pack]'


def test_several_unknown_fields_are_named_at_once() -> None:
    with pytest.raises(Refused, match="dedline_ms") as refused:
        read_page((HEAD + '{"colour": 1}, {"id": "a", "size": 2}], "dedline_ms": 3}').encode())
    assert [one["field"] for one in refused.value.fields] == ["dedline_ms", "products.0.colour", "products.1.size"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"query": " "}, ["query: it must be text of 1 to 1,000 characters that are not all blank (got ' ')"]),
        ({"query": "x" * 2000}, [r"query: it must be text of 1 to 1,000 .* \(got text of 2,000 characters\)"]),
        ({"query": None}, [r"query: .* \(got null\)"]),
        ({"locale": "fr"}, ["""locale: it must be one of "us", "es", "jp" (got 'fr')"""]),
        ({"products": []}, ["products: it must be a list of 1 to 1,000 objects (got a list of 0)"]),
        (
            {"products": [7, {"title": True}]},
            [r"products\.0: it must be an object .*", r"products\.1\.title: .* \(got true\)"],
        ),
        ({"products": [{"id": "x" * 201}]}, [r"products\.0\.id: it must be text of at most 200 characters .*"]),
        ({"deadline_ms": 0}, ["deadline_ms: it must be a whole number from 1 to 60,000 (got 0)"]),
        ({"want": "all"}, [r"want: it must be one of .*"]),
        (
            {"colour": 1, "dedline_ms": 1},
            ["colour: unknown field; .* are known", "dedline_ms: .*; did you mean deadline_ms[?]"],
        ),
    ],
)
def test_what_a_field_takes_is_told_in_words_of_json(change: dict[str, Any], told: list[str]) -> None:
    page = {"query": "lamp", "locale": "us", "products": [{"id": "a"}]} | change
    with pytest.raises(Refused) as refused:
        read_page(json.dumps(page).encode())
    found = [f"{one['field']}: {one['message']}" for one in refused.value.fields]
    assert len(found) == len(told)
    assert [one for one, words in zip(found, told, strict=True) if not (one == words or re.fullmatch(words, one))] == []


def test_what_is_missing_is_told_with_what_it_is() -> None:
    for body in ("{}", "[]", "3"):
        with pytest.raises(Refused) as refused:
            read_page(body.encode())
        fields = {one["field"]: one["message"] for one in refused.value.fields}
        assert set(fields) == ({"query", "locale", "products"} if body == "{}" else {""})
        assert not re.search("nput|Field|dict", " ".join(fields.values()))
