"""What is no page is refused in the time and memory of one that is."""

from __future__ import annotations

import time
import tracemalloc

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
