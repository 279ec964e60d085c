"""The words of the generated world: product types, attributes and brands in its three languages."""

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
    "us": ("black", "white", "red", "blue", "green", "silver"),
    "es": ("negro", "blanco", "rojo", "azul", "verde", "plata"),
    "jp": ("黒", "白", "赤", "青", "緑", "銀"),
}
FEATURES: dict[str, tuple[str, ...]] = {
    "us": ("leather", "steel", "wood", "waterproof", "folding", "mini"),
    "es": ("cuero", "acero", "madera", "impermeable", "plegable", "pequeño"),
    "jp": ("革", "鋼", "木製", "防水", "折りたたみ", "小型"),
}
# The first brands are sold everywhere, the last ones in one locale each.
SHARED_BRANDS: tuple[str, ...] = ("Norvik", "Altera", "Zentro", "Kumo", "Ostra", "Pacto", "Lumen", "Tarka")
LOCAL_BRANDS: dict[str, tuple[str, ...]] = {
    "us": ("Hudson", "Redwood", "Cascade", "Dakota"),
    "es": ("Castilla", "Duero", "Olivar", "Tormes"),
    "jp": ("サクラ", "ミナト", "ヒカリ", "ツバメ"),
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
    """Return the brands that are sold in a locale."""
    return SHARED_BRANDS + LOCAL_BRANDS[locale]
