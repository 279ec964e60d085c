"""Tell what the actions of a UBI log mean: UBI leaves their names to each shop."""

from __future__ import annotations

import re
from collections.abc import Mapping

IGNORED = "ignore"  # an action that says nothing of a product's relevance

# Names are compared in lower case, in one spelling of words: addToCart, "Add to cart" and ADD_TO_CART are one name.
_OF_PRODUCT = ("", "item_", "product_", "result_", "search_result_")
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "impression": ("impression", "impressions", "view_item_list"),
    "click": ("click", "clicked", "clicks", "click_through", "clickthrough", "select_item"),
    "add": ("add_to_cart", "added_to_cart", "addtocart", "cart_add", "add_to_basket", "add_to_bag", "basket_add"),
    "purchase": ("purchase", "purchased", "purchases", "buy", "bought", "order_completed", "complete_purchase"),
    # Those that the UBI documentation and its collectors send beside
    IGNORED: (
        *("on_search", "search", "query", "page_view", "page_exit", "login", "logout", "session_start", "session_end"),
        *("filter", "brand_filter", "type_filter", "facet", "sort", "scroll", "hover", "button_click", "global_click"),
        *("new_user_entry", "autocomplete", "suggest"),
    ),
}
_KNOWN = {f"{what}{name}": action for action, names in _SYNONYMS.items() for name in names for what in _OF_PRODUCT}


def action_of(name: str, mapping: Mapping[str, str]) -> str:
    """Return what an action means.

    Args:
        name: The `action_name` of an event.
        mapping: Names of actions -> impression, click, add, purchase or ignore; it goes before what is known.

    Returns:
        One of :data:`~esci_tournament.tasks.data.dataset.ACTIONS`, :data:`IGNORED`, or the name as it is where it is
        not known what it means: a "view" may be an impression or the page of a product.

    Example:
        >>> [action_of(name, {}) for name in ("CLICK", "addToCart", "Product Click", "on_search", "view")]
        ['click', 'add', 'click', 'ignore', 'view']
        >>> action_of("View", {"view": "impression"})
        'impression'
    """
    plain = _plain(name)
    own = {_plain(one): action for one, action in mapping.items()}
    return own.get(plain) or _KNOWN.get(plain) or name


def _plain(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[\W_]+", "_", words).strip("_").lower()
