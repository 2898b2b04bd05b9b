"""What a person would still accept: which values of an attribute are close to each other, and grades made of it."""

from collections.abc import Mapping
from typing import Any

from embedding_assets.demo.specification import ProductSpec

TOP_GRADE = 3

CLOSE_VALUES: dict[str, tuple[frozenset[str], ...]] = {
    "colour": tuple(
        map(
            frozenset,
            (
                ("blue", "navy"),
                ("blue", "turquoise"),
                ("turquoise", "green"),
                ("white", "beige"),
                ("beige", "brown"),
                ("red", "orange"),
                ("orange", "yellow"),
                ("pink", "purple"),
            ),
        )
    ),
    "pattern": tuple(
        map(
            frozenset,
            (("herringbone", "chevron"), ("checker", "diamond"), ("checker", "grid"), ("grid", "brick bond")),
        )
    ),
    "material": tuple(
        map(frozenset, (("concrete", "slate"), ("concrete", "terrazzo"), ("porcelain", "marble")))
    ),
    "style": tuple(
        map(frozenset, (("modern", "scandinavian"), ("modern", "industrial"), ("classic", "retro")))
    ),
    "finish": (),
    "size": tuple(
        map(
            frozenset,
            (
                ("60x60 cm", "80x80 cm"),
                ("20x20 cm", "30x30 cm"),
                ("15x90 cm", "20x120 cm"),
                ("15x30 cm", "30x60 cm"),
            ),
        )
    ),
}
"""By attribute, the pairs of values that pass for each other at a pinch: neighbouring colours, patterns and
materials that look alike, styles that share their looks, sizes next to each other of one shape."""

_THICKNESS_MM = 1.0


def closeness(attribute: str, asked: Any, found: Any) -> float:
    """Return how well a value serves a person who asked for another: 1 the same, 0.5 close, 0 neither.

    Slip ratings are close upwards: who needs R10 may take R11, but not R9. Thicknesses are close within 1 mm.

    Args:
        attribute: a field of `ProductSpec`, or "style".
    """
    if asked == found:
        return 1.0
    if asked is None or found is None:
        return 0.0
    if attribute == "slip_rating":
        return 0.5 if int(found[1:]) == int(asked[1:]) + 1 else 0.0
    if attribute == "thickness_mm":
        return 0.5 if abs(asked - found) <= _THICKNESS_MM else 0.0
    return 0.5 if frozenset((asked, found)) in CLOSE_VALUES[attribute] else 0.0


def grade(asked: Mapping[str, Any], spec: ProductSpec) -> int:
    """Return how relevant a product is to who asks for these attributes, 0 to 3.

    A close value costs one grade, a wrong one two: 3 is all as asked, 2 all but one close, 1 two close or one wrong.
    Where a value is wrong, something else has to be right: "blue" is not answered by red at all.

    Args:
        asked: attribute name (a field of `ProductSpec`, or "style") -> value asked for; not empty.
    """
    fits = [closeness(name, value, getattr(spec, name)) for name, value in asked.items()]
    if min(fits) == 0 and max(fits) < 1:
        return 0
    return max(0, TOP_GRADE - round(sum(2 * (1 - fit) for fit in fits)))
