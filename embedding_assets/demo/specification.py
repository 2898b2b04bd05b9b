"""Made-up catalogue products: an attribute grid, and seeded draws from it.

A product's look is decided by four attributes (material, colour, pattern, finish); everything else (name, size,
slip rating ...) is text that only a catalogue page tells. `style` follows from the look by a fixed rule, so that a
model that sees only pictures can learn it.
"""

import hashlib
import random
from dataclasses import asdict, dataclass
from itertools import product as cartesian_product
from typing import Literal

MATERIALS = ("porcelain", "marble", "oak", "terrazzo", "concrete", "slate", "terracotta", "wool")
COLOURS = (
    "white",
    "black",
    "grey",
    "beige",
    "brown",
    "red",
    "orange",
    "yellow",
    "green",
    "turquoise",
    "blue",
    "navy",
    "purple",
    "pink",
)
PATTERNS = (
    "plain",
    "stripes",
    "checker",
    "herringbone",
    "chevron",
    "hexagon",
    "basketweave",
    "brick bond",
    "dots",
    "diamond",
    "scallop",
    "grid",
)
FINISHES = ("matte", "glossy")
STYLES = ("modern", "rustic", "classic", "industrial", "scandinavian", "retro")

ATTRIBUTE_VALUES: dict[str, tuple[str, ...]] = {
    "material": MATERIALS,
    "colour": COLOURS,
    "pattern": PATTERNS,
    "finish": FINISHES,
    "style": STYLES,
}
"""Every visual attribute with all its values; the order of the values is part of the grid (SKUs follow it)."""

GRID_SIZE = len(MATERIALS) * len(COLOURS) * len(PATTERNS) * len(FINISHES)
"""How many products differ in look (2688)."""

HELD_OUT_FRACTION = 0.2
"""Share of colour x pattern x material combinations that no training image may show."""

Split = Literal["all", "train", "held-out"]

_COLLECTIONS = {
    "porcelain": ("Aurelia", "Lumen", "Nordhavn"),
    "marble": ("Carrare", "Palazzo", "Venata"),
    "oak": ("Bosco", "Eikdal", "Hearth"),
    "terrazzo": ("Piazza", "Confetti", "Graniglia"),
    "concrete": ("Betonia", "Foundry", "Harbour"),
    "slate": ("Ardesia", "Ridge", "Welshford"),
    "terracotta": ("Cotto", "Fornace", "Alameda"),
    "wool": ("Hygge", "Merino", "Loom"),
}
_SKU_CODES = {
    "porcelain": "POR",
    "marble": "MAR",
    "oak": "OAK",
    "terrazzo": "TRZ",
    "concrete": "CON",
    "slate": "SLA",
    "terracotta": "TER",
    "wool": "WOO",
}
_SIZES = {
    "oak": ("20x120 cm", "15x90 cm", "24x180 cm"),
    "wool": ("50x50 cm", "25x100 cm", "100x100 cm"),
    "terracotta": ("20x20 cm", "30x30 cm", "15x30 cm"),
}
_TILE_SIZES = ("60x120 cm", "60x60 cm", "30x60 cm", "80x80 cm", "20x20 cm", "120x120 cm")
_SLIP_RATINGS = {"matte": ("R10", "R11", "R12"), "glossy": ("R9", "R10")}
THICKNESSES_MM = (6.0, 8.5, 9.0, 10.0, 12.0, 20.0)
"""Thicknesses that products come in."""
_LIGHT = frozenset({"white", "beige", "grey", "pink", "yellow"})
_WARM = frozenset({"beige", "brown", "red", "orange", "yellow"})


@dataclass(frozen=True)
class ProductSpec:
    """One product: what its swatch shows and what its catalogue entry says.

    Attributes:
        sku: stock code, unique for each look ("MAR-01234").
        name: collection, colour and pattern, as a catalogue prints it.
        collection: the family that the product is sold under.
        material, colour, pattern, finish: one value each of `MATERIALS`, `COLOURS`, `PATTERNS`, `FINISHES`.
        size: width x length with its unit ("60x120 cm").
        slip_rating: DIN 51130 class "R9".."R12"; None for wool, which is not rated.
        thickness_mm: thickness in millimetres.
        applications: where the product may be laid, for example ("floor", "outdoor").
    """

    sku: str
    name: str
    collection: str
    material: str
    colour: str
    pattern: str
    finish: str
    size: str
    slip_rating: str | None
    thickness_mm: float
    applications: tuple[str, ...]

    @property
    def style(self) -> str:
        """The decorating style, decided by the look alone (see `style_of`)."""
        return style_of(self.material, self.colour, self.pattern, self.finish)

    @property
    def attributes(self) -> dict[str, str]:
        """The visual ground truth: material, colour, pattern, finish and style by name."""
        return {
            "material": self.material,
            "colour": self.colour,
            "pattern": self.pattern,
            "finish": self.finish,
            "style": self.style,
        }

    def to_dict(self) -> dict[str, object]:
        """All fields and the derived style, ready for JSON."""
        return {**asdict(self), "applications": list(self.applications), "style": self.style}


def style_of(material: str, colour: str, pattern: str, finish: str) -> str:
    """Return the style that a look belongs to. The first rule that fits decides; the rules are invented."""
    if pattern in ("scallop", "dots") or (material == "terrazzo" and pattern == "checker"):
        return "retro"
    if material == "terracotta" or (material in ("oak", "slate") and finish == "matte" and colour in _WARM):
        return "rustic"
    if material in ("oak", "wool") and colour in _LIGHT:
        return "scandinavian"
    if material == "marble" or pattern in ("herringbone", "basketweave"):
        return "classic"
    if material in ("concrete", "slate"):
        return "industrial"
    return "modern"


def sizes_of(material: str) -> tuple[str, ...]:
    """The sizes that a material is sold in, for example ("20x120 cm", ...) for oak."""
    return _SIZES.get(material, _TILE_SIZES)


def slip_ratings_of(material: str, finish: str) -> tuple[str, ...]:
    """The DIN 51130 classes that a surface can have; none for wool, which is not rated."""
    return () if material == "wool" else _SLIP_RATINGS[finish]


def applications_of(material: str, slip_rating: str | None) -> tuple[str, ...]:
    """Where a product may be laid."""
    wall = () if material == "wool" else ("wall",)
    outdoor = ("outdoor",) if slip_rating in ("R11", "R12") else ()
    return ("floor", *wall, *outdoor)


def is_held_out(material: str, colour: str, pattern: str) -> bool:
    """Tell whether a combination is kept from training.

    Decided by a hash of the three names, so that it depends on nothing else: not on the order or the number of
    attribute values, nor on any seed. About `HELD_OUT_FRACTION` of all combinations are held out.
    """
    digest = hashlib.sha256(f"{material}|{colour}|{pattern}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_FRACTION * 2**32


def make_products(count: int, seed: int = 0, split: Split = "all") -> list[ProductSpec]:
    """Draw products that all differ in look.

    Args:
        count: how many; at most `GRID_SIZE` for split "all", fewer for the other splits.
        seed: the same seed gives the same products in the same order, and a longer draw begins with the shorter.
        split: "train" or "held-out" draws only from that side of `is_held_out`; "all" from both.

    Raises:
        ValueError: `count` is negative or more than the split holds.
    """
    looks = [
        (index, look)
        for index, look in enumerate(cartesian_product(MATERIALS, COLOURS, PATTERNS, FINISHES))
        if split == "all" or is_held_out(look[0], look[1], look[2]) == (split == "held-out")
    ]
    if not 0 <= count <= len(looks):
        raise ValueError(f"count must be 0 to {len(looks)} for split {split!r}, got {count}")
    random.Random(seed).shuffle(looks)
    return [_product(index, look, seed) for index, look in looks[:count]]


def product_of(material: str, colour: str, pattern: str, finish: str, seed: int = 0) -> ProductSpec:
    """Return the product of one look, as `make_products` with this seed draws it.

    Raises:
        ValueError: a value is none of the grid's.
    """
    index = 0
    for values, value in (
        (MATERIALS, material),
        (COLOURS, colour),
        (PATTERNS, pattern),
        (FINISHES, finish),
    ):
        index = index * len(values) + values.index(value)
    return _product(index, (material, colour, pattern, finish), seed)


def _product(index: int, look: tuple[str, str, str, str], seed: int) -> ProductSpec:
    material, colour, pattern, finish = look
    rng = random.Random(f"{seed}:{index}")
    collection = rng.choice(_COLLECTIONS[material])
    ratings = slip_ratings_of(material, finish)
    slip_rating = rng.choice(ratings) if ratings else None
    return ProductSpec(
        sku=f"{_SKU_CODES[material]}-{index:05d}",
        name=f"{collection} {colour.title()} {pattern.title()}",
        collection=collection,
        material=material,
        colour=colour,
        pattern=pattern,
        finish=finish,
        size=rng.choice(sizes_of(material)),
        slip_rating=slip_rating,
        thickness_mm=rng.choice(THICKNESSES_MM),
        applications=applications_of(material, slip_rating),
    )
