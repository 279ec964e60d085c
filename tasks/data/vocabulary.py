"""The words of the generated world: product types, attributes and brands in its three languages."""

from __future__ import annotations

# A group is a set of near types (substitutes); groups stand in couples that complement each other.
GROUPS: tuple[tuple[int, ...], ...] = (
    (0, 1, 2),
    (3, 4, 5),
    (6, 7, 8),
    (9, 10, 11),
    (12, 13),
    (14, 15),
    (16, 17),
    (18, 19),
    (20, 21),
    (22, 23),
)
COUPLES: tuple[tuple[int, int], ...] = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))

TYPES: dict[str, tuple[str, ...]] = {
    "us": (
        *("phone", "tablet", "laptop", "case", "charger", "stand"),
        *("coffeemaker", "kettle", "teapot", "mug", "filter", "tea"),
        *("camera", "camcorder", "tripod", "lens"),
        *("bicycle", "scooter", "helmet", "lock"),
        *("tent", "hammock", "lantern", "mattress"),
    ),
    "es": (
        *("teléfono", "tableta", "portátil", "funda", "cargador", "soporte"),
        *("cafetera", "hervidor", "tetera", "taza", "filtro", "infusión"),
        *("cámara", "videocámara", "trípode", "objetivo"),
        *("bicicleta", "patinete", "casco", "candado"),
        *("tienda", "hamaca", "linterna", "colchón"),
    ),
    "jp": (
        *("スマートフォン", "タブレット", "ノートパソコン", "ケース", "充電器", "スタンド"),
        *("コーヒーメーカー", "ケトル", "急須", "マグカップ", "フィルター", "紅茶"),
        *("カメラ", "ビデオカメラ", "三脚", "レンズ"),
        *("自転車", "スクーター", "ヘルメット", "鍵"),
        *("テント", "ハンモック", "ランタン", "マット"),
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
SHARED_BRANDS: tuple[str, ...] = (
    "Norvik",
    "Altera",
    "Zentro",
    "Kumo",
    "Brava",
    "Ostra",
    "Pacto",
    "Lumen",
    "Tarka",
    "Velo",
)
LOCAL_BRANDS: dict[str, tuple[str, ...]] = {
    "us": ("Hudson", "Prairie", "Redwood", "Cascade", "Sierra", "Dakota"),
    "es": ("Castilla", "Duero", "Almenara", "Cierzo", "Olivar", "Tormes"),
    "jp": ("サクラ", "ミナト", "ヒカリ", "カワセ", "アオバ", "ツバメ"),
}
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
