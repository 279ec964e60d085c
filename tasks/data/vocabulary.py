"""List the words of the generated world: product types, attributes and brands in its three languages."""

from __future__ import annotations

# A group is a set of near types (substitutes); groups stand in couples that complement each other.
GROUPS: tuple[tuple[int, ...], ...] = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11))
COUPLES: tuple[tuple[int, int], ...] = ((0, 1), (2, 3), (4, 5))

# So few words that a small model can learn them from scratch within a minute.
TYPES: dict[str, tuple[str, ...]] = {
    "us": (
        "phone",
        "tablet",
        "case",
        "charger",
        "kettle",
        "teapot",
        "mug",
        "tea",
        "bicycle",
        "scooter",
        "helmet",
        "lock",
    ),
    "es": (
        *("teléfono", "tableta", "funda", "cargador", "hervidor", "tetera"),
        *("taza", "infusión", "bicicleta", "patinete", "casco", "candado"),
    ),
    "jp": (
        *("スマートフォン", "タブレット", "ケース", "充電器", "ケトル", "急須"),
        *("マグカップ", "紅茶", "自転車", "スクーター", "ヘルメット", "鍵"),
    ),
}
COLORS: dict[str, tuple[str, ...]] = {
    "us": ("black", "white", "red", "blue"),
    "es": ("negro", "blanco", "rojo", "azul"),
    "jp": ("黒", "白", "赤", "青"),
}
FEATURES: dict[str, tuple[str, ...]] = {
    "us": ("leather", "steel", "wood", "waterproof"),
    "es": ("cuero", "acero", "madera", "impermeable"),
    "jp": ("革", "鋼", "木製", "防水"),
}
# The first brands are sold everywhere, the last ones in one locale each.
SHARED_BRANDS: tuple[str, ...] = ("Norvik", "Altera", "Zentro", "Kumo", "Ostra")
LOCAL_BRANDS: dict[str, tuple[str, ...]] = {
    "us": ("Hudson", "Redwood"),
    "es": ("Castilla", "Duero"),
    "jp": ("サクラ", "ミナト"),
}
SERIES: tuple[str, ...] = ("Pro", "Plus", "Neo", "Max")  # words of a title that change nothing
MODIFIERS: dict[str, tuple[str, ...]] = {  # words of a query that change nothing
    "us": ("best", "cheap", "new", "gift"),
    "es": ("mejor", "barato", "nuevo", "regalo"),
    "jp": ("人気", "格安", "新品", "ギフト"),
}
UNINFORMATIVE: dict[str, str] = {"us": "Item {}", "es": "Artículo {}", "jp": "商品 {}"}
BULLETS: dict[str, str] = {"us": "{} and {}", "es": "{} y {}", "jp": "{} と {}"}
DESCRIPTIONS: dict[str, str] = {"us": "A {} by {}", "es": "Un {} de {}", "jp": "{} の {}"}


def brands(locale: str) -> tuple[str, ...]:
    """Return the brands that are sold in a locale, those that are sold everywhere first.

    Example:
        >>> brands("us")[-2:]
        ('Hudson', 'Redwood')
    """
    return SHARED_BRANDS + LOCAL_BRANDS[locale]
