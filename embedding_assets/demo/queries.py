"""The searches that the demo shows, each with the attributes that a right answer has."""

from dataclasses import dataclass

from PIL import Image

from embedding_assets.demo.specification import ProductSpec
from embedding_assets.demo.swatches import draw_swatch

IMAGE_QUERY_SEED = 90_001
"""Piece of the product that the image query shows; the catalogue never draws it."""


@dataclass(frozen=True)
class DemoQuery:
    """A text query and the attributes that it asks for, as attribute name -> value."""

    text: str
    expected: dict[str, str]

    def fits(self, spec: ProductSpec) -> bool:
        """Tell whether a product is a right answer."""
        return all(spec.attributes[name] == value for name, value in self.expected.items())


DEMO_QUERIES: tuple[DemoQuery, ...] = (
    DemoQuery("blue herringbone", {"colour": "blue", "pattern": "herringbone"}),
    DemoQuery("white marble", {"colour": "white", "material": "marble"}),
    DemoQuery("glossy red hexagon tiles", {"finish": "glossy", "colour": "red", "pattern": "hexagon"}),
    DemoQuery("scandinavian style oak floor", {"style": "scandinavian", "material": "oak"}),
    DemoQuery("green terrazzo", {"colour": "green", "material": "terrazzo"}),
)


FAMILY_QUERIES = {
    "visual": "blue herringbone",
    "colour": "something in navy",
    "texture": "zigzag pattern",
    "material": "veined marble",
    "style": "scandinavian style floor",
    "specification": "60x120 R10",
    "joint": "matte grey porcelain R11",
    "product": "Hygge Blue Herringbone",
}
"""One text query of each family that search is judged by, and a product's name."""


def draw_image_query(spec: ProductSpec) -> Image.Image:
    """Draw the picture of the demo's image search: another piece of a catalogue product, 320 x 320 px RGB."""
    return draw_swatch(spec, 320, IMAGE_QUERY_SEED)
