"""The judged catalogue: 672 products in six PDFs, whose makers print different things under their pictures.

It is made for measuring search, so it is less tidy than the demo's catalogue, as real ones are:

- A *series* is a material in one colour. Each of the 56 series comes in two patterns and both finishes, and each of
  these looks in three *products* that differ in size, slip rating or thickness: what a picture can't tell.
- No maker prints all that the pictures show. One names everything, one uses trade names for colours, one other words
  than the grid's, and two name no looks at all. The specifications stand under every picture.

So words alone miss looks, looks alone miss specifications, and both are there to be found for every product. Of the
112 combinations of colour, pattern and material, as many as possible were never shown to the demo model in training.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product as cartesian_product
from pathlib import Path

from embedding_assets.demo.captions import SYNONYMS
from embedding_assets.demo.catalogue import product_lines
from embedding_assets.demo.files import has_content, write_file
from embedding_assets.demo.pages import Entry, build_pdf, jpeg_image
from embedding_assets.demo.specification import (
    COLOURS,
    FINISHES,
    MATERIALS,
    PATTERNS,
    THICKNESSES_MM,
    ProductSpec,
    applications_of,
    is_held_out,
    product_of,
    sizes_of,
    slip_ratings_of,
)
from embedding_assets.demo.swatches import draw_swatch

JUDGED_VERSION = 2
"""Raise it when products, drawing or texts change: catalogues written by another version are written anew."""

PATTERNS_PER_SERIES = 2
PRODUCTS_PER_LOOK = 3

_SEED = 11
_PIECE = 40_000
"""Pieces of products are numbered from here, so that none is one of the demo catalogue's or of a query's."""
_SWATCH_PX = 224
_COLUMNS = 4
_ROWS = 4

TRADE_COLOURS = {
    "white": "Snow",
    "black": "Ink",
    "grey": "Fog",
    "beige": "Dune",
    "brown": "Cocoa",
    "red": "Ruby",
    "orange": "Apricot",
    "yellow": "Saffron",
    "green": "Fern",
    "turquoise": "Lagoon",
    "blue": "Cobalt",
    "navy": "Midnight",
    "purple": "Plum",
    "pink": "Blush",
}
"""What a maker calls its colours who finds plain words too plain."""


@dataclass(frozen=True)
class JudgedItem:
    """One product and where its picture stands.

    Attributes:
        spec: the product; its stock code is unique in the catalogue.
        document: file name in the workspace's folder.
        page: 1 for the first.
        position: 1 for the first picture of the page.
        piece: which piece of the product is drawn (`swatches.draw_swatch`'s seed).
    """

    spec: ProductSpec
    document: str
    page: int
    position: int
    piece: int


@dataclass(frozen=True)
class _Maker:
    """A document and what its maker prints under a picture; four lines at most."""

    document: str
    title: str
    lines: Callable[[ProductSpec], tuple[str, ...]]


def _figures(spec: ProductSpec) -> str:
    slip = f"   {spec.slip_rating}" if spec.slip_rating else ""
    return f"{spec.size}   {spec.thickness_mm:g} mm{slip}"


def _trade_names(spec: ProductSpec) -> tuple[str, ...]:
    return (
        f"{spec.collection} {TRADE_COLOURS[spec.colour]}",
        f"Art. no. {spec.sku}",
        f"{spec.material.title()}, {spec.finish}",
        _figures(spec),
    )


def _technical(spec: ProductSpec) -> tuple[str, ...]:
    slip = (f"Slip resistance {spec.slip_rating} (DIN 51130)",) if spec.slip_rating else ()
    return (spec.sku, f"Format {spec.size}", f"Thickness {spec.thickness_mm:g} mm", *slip)


def _pattern_book(spec: ProductSpec) -> tuple[str, ...]:
    return (
        f"{spec.collection} {spec.pattern.title()}",
        f"{spec.style.title()} style",
        spec.sku,
        _figures(spec),
    )


def _decorator(spec: ProductSpec) -> tuple[str, ...]:
    other = {name: SYNONYMS.get(value, (value, value))[1] for name, value in spec.attributes.items()}
    return (
        f"{spec.collection} {other['colour']}, {other['finish']}",
        f"{other['material'].title()}, {other['style']}",
        _figures(spec),
        f"Ref. {spec.sku}",
    )


def _price_list(spec: ProductSpec) -> tuple[str, ...]:
    cents = int(hashlib.sha256(spec.sku.encode()).hexdigest()[:4], 16) % 9000 + 1900
    return (
        spec.collection,
        f"{spec.sku}   EUR {cents / 100:.2f} per sqm",
        _figures(spec),
    )


_MAKERS = (
    _Maker("complete-range.pdf", "Complete Range", product_lines),
    _Maker("trade-names.pdf", "Colours of the Year", _trade_names),
    _Maker("technical-sheets.pdf", "Technical Sheets", _technical),
    _Maker("pattern-book.pdf", "Pattern Book", _pattern_book),
    _Maker("decorators-guide.pdf", "The Decorator's Guide", _decorator),
    _Maker("price-list.pdf", "Price List", _price_list),
)


@cache
def judged_items() -> tuple[JudgedItem, ...]:
    """Return all products with their places, document by document. Draws nothing."""
    shown: dict[str, list[tuple[ProductSpec, int]]] = {maker.document: [] for maker in _MAKERS}
    looks = _looks()
    random.Random(_SEED).shuffle(looks)
    for number, look in enumerate(looks):
        for variant, product in enumerate(_products(look)):
            # Every other maker, so that no maker has two products of one look.
            maker = _MAKERS[(number + 2 * variant) % len(_MAKERS)]
            shown[maker.document].append((product, _PIECE + number * PRODUCTS_PER_LOOK + variant))
    items = []
    for maker in _MAKERS:
        products = shown[maker.document]
        random.Random(f"{_SEED}:{maker.document}").shuffle(products)
        for index, (spec, piece) in enumerate(products):
            page, place = divmod(index, _COLUMNS * _ROWS)
            items.append(JudgedItem(spec, maker.document, page + 1, place + 1, piece))
    return tuple(items)


def write_judged_catalogue(landing_root: Path, workspace_id: str) -> tuple[Path, ...]:
    """Write the six PDFs into `<landing_root>/<workspace_id>/`, and their hashes beside the landing folder.

    Files that are there already with the right content are left alone; when all are, nothing is drawn.

    Returns:
        The files that were written or replaced; none when all was there already.

    Raises:
        OSError: a folder or file can't be written.
    """
    root = landing_root.resolve() / workspace_id
    record = landing_root.resolve().parent / f"{workspace_id}-catalogue.json"
    known = _read_hashes(record)
    if known is not None and all(has_content(root / name, digest) for name, digest in known.items()):
        return ()
    files = {maker.document: _draw(maker) for maker in _MAKERS}
    written = tuple(root / name for name, content in files.items() if write_file(root / name, content))
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    write_file(record, (json.dumps({"version": JUDGED_VERSION, "sha256": hashes}, indent=1) + "\n").encode())
    return written


def _read_hashes(record: Path) -> dict[str, str] | None:
    """The hashes that an earlier call wrote down; None where there are none of this version and all documents."""
    try:
        found = json.loads(record.read_bytes())
        hashes = {str(name): str(digest) for name, digest in found["sha256"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    complete = found["version"] == JUDGED_VERSION and hashes.keys() == {maker.document for maker in _MAKERS}
    return hashes if complete else None


def _draw(maker: _Maker) -> bytes:
    items = [item for item in judged_items() if item.document == maker.document]
    entries = [
        Entry(jpeg_image(draw_swatch(item.spec, _SWATCH_PX, item.piece)), maker.lines(item.spec))
        for item in items
    ]
    content, placements = build_pdf(maker.title, [maker.title], entries, columns=_COLUMNS, rows=_ROWS)
    if [(place.page, place.position) for place in placements] != [(i.page, i.position) for i in items]:
        raise AssertionError(f"{maker.document}: the pages are not laid out as judged_items() says")
    return content


def _looks() -> list[tuple[str, str, str, str]]:
    """All looks: material, colour, pattern, finish. Every material comes in half of the colours."""
    series = [
        (material, colour)
        for m, material in enumerate(MATERIALS)
        for c, colour in enumerate(COLOURS)
        if (m + c) % 2 == 0
    ]
    used: Counter[str] = Counter()
    looks = []
    for material, colour in series:
        # Combinations that training never showed first, then the patterns that were used least.
        order = sorted(
            PATTERNS,
            key=lambda pattern: (not is_held_out(material, colour, pattern), used[pattern], pattern),
        )
        for pattern in order[:PATTERNS_PER_SERIES]:
            used[pattern] += 1
            looks += [(material, colour, pattern, finish) for finish in FINISHES]
    return looks


def _products(look: tuple[str, str, str, str]) -> list[ProductSpec]:
    """The products of a look. Sizes and thicknesses belong to the series, slip ratings to the series' finish."""
    material, colour, _, finish = look
    base = product_of(*look, _SEED)
    rng = random.Random(f"{_SEED}:{material}:{colour}")
    sizes, thicknesses = rng.sample(sizes_of(material), 2), rng.sample(THICKNESSES_MM, 2)
    rng = random.Random(f"{_SEED}:{material}:{colour}:{finish}")
    all_ratings = slip_ratings_of(material, finish)
    ratings = rng.sample(all_ratings, rng.choice((1, 2))) if all_ratings else [None]
    offered = list(cartesian_product(sizes, ratings, thicknesses))
    return [
        replace(
            base,
            sku=f"{base.sku}-{number}",
            size=size,
            slip_rating=rating,
            thickness_mm=thickness,
            applications=applications_of(material, rating),
        )
        for number, (size, rating, thickness) in enumerate(
            random.Random(f"{_SEED}:{base.sku}").sample(offered, PRODUCTS_PER_LOOK), start=1
        )
    ]
