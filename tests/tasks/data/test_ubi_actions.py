"""What actions of UBI logs mean, as shops spell them."""

from __future__ import annotations

import pytest

from esci_tournament.tasks.data.ubi_actions import action_of

SPELLINGS = {
    "impression": ["impression", "product_impression", "IMPRESSIONS", "item-impression"],
    "click": ["click", "CLICK", "item_click", "product_click", "ProductClick", "result click", "click_through"],
    "add": ["add_to_cart", "addToCart", "Add To Cart", "add-to-basket", "ADD_TO_CART", "addtocart"],
    "purchase": ["purchase", "Purchase", "buy", "product_purchase", "bought"],
    "ignore": ["on_search", "onSearch", "search", "login", "brand_filter", "product_hover", "page_view"],
}


@pytest.mark.parametrize(("meaning", "name"), [(one, name) for one, names in SPELLINGS.items() for name in names])
def test_usual_spellings_are_known(meaning: str, name: str) -> None:
    assert action_of(name, {}) == meaning


@pytest.mark.parametrize("name", ["view", "watch", "product_view", "clickbait", "wishlist", "checkout", "", "クリック"])
def test_what_may_mean_several_things_is_not_guessed(name: str) -> None:
    assert action_of(name, {}) == name


def test_the_setting_goes_before_what_is_known_and_is_read_as_loosely() -> None:
    mapping = {"View": "impression", "click": "ignore"}
    assert [action_of(name, mapping) for name in ("view", "VIEW", "Click", "buy")] == [
        *("impression", "impression", "ignore", "purchase")
    ]
