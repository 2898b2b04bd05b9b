"""Writes the demo catalogue: five PDFs and a folder of images for one workspace, with the truth about each.

    <landing_root>/<workspace_id>/natural-stone.pdf      one page after another of swatches with text under each
                                  ...
                                  showroom/0001.jpg ...  a folder-of-images document
    <truth_path>                                         what stands where, what is planted, what searches should find

Some images are bad on purpose; `CatalogueManifest.planted` lists them. Each document keeps at least 95 % good images
of those that are embedded or rejected, so the coverage rule holds for every one of them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from PIL import Image

from embedding_assets.demo.faults import decompression_bomb_png, truncated_jpeg
from embedding_assets.demo.files import has_content, write_file
from embedding_assets.demo.manifest import CatalogueItem, CatalogueManifest, PlantedFault, read_manifest
from embedding_assets.demo.pages import Entry, PdfImage, build_pdf, flate_image, jpeg_image
from embedding_assets.demo.queries import DEMO_QUERIES
from embedding_assets.demo.specification import GRID_SIZE, MATERIALS, ProductSpec, make_products
from embedding_assets.demo.swatches import draw_swatch

CATALOGUE_VERSION = 1
"""Raise it when the drawing or the layout changes: catalogues written by another version are written anew."""

_SEED = 7
_PIECE = 1
_MATCHES_PER_QUERY = 5


@dataclass(frozen=True)
class _Pdf:
    name: str
    title: str
    headings: tuple[str, ...]
    materials: tuple[str, ...]
    count: int
    columns: int
    rows: int
    flate_every: int = 0
    modes: tuple[str, ...] = ()
    repeat_first: bool = False
    faulty: bool = False


_PDFS = (
    _Pdf(
        "natural-stone.pdf",
        "Natural Stone",
        ("Marble and slate", "Cut stone for every room"),
        ("marble", "slate"),
        count=27,
        columns=3,
        rows=3,
        modes=("CMYK",),
    ),
    _Pdf(
        "nordic-living.pdf",
        "Nordic Living",
        ("Oak floors", "Woven floors", "Warm underfoot"),
        ("oak", "wool"),
        count=24,
        columns=2,
        rows=3,
        flate_every=4,
    ),
    _Pdf(
        "urban-surfaces.pdf",
        "Urban Surfaces",
        ("Concrete and terrazzo", "Lofts and halls"),
        ("concrete", "terrazzo"),
        count=32,
        columns=2,
        rows=4,
        modes=("L",),
        repeat_first=True,
    ),
    _Pdf(
        "mediterranean-tiles.pdf",
        "Mediterranean Tiles",
        ("Terracotta", "Painted porcelain"),
        ("terracotta", "porcelain"),
        count=24,
        columns=3,
        rows=4,
        flate_every=5,
    ),
    _Pdf(
        "architects-selection.pdf",
        "Architects' Selection",
        ("Floors", "Walls", "Outdoor", "Wet rooms"),
        MATERIALS,
        count=47,
        columns=3,
        rows=4,
        faulty=True,
    ),
)
_SHOWROOM = "showroom"
_SHOWROOM_COUNT = 30
_FORMATS = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"))


def write_demo_catalogue(
    landing_root: Path, workspace_id: str = "demo", truth_path: Path | None = None
) -> CatalogueManifest:
    """Write the catalogue into `<landing_root>/<workspace_id>/`, and the truth about it beside the landing folder.

    Files that are there already with the right content are left alone, modification time included; when all are,
    nothing is drawn. Each file appears whole or not at all: it is written under a name that begins with a dot and
    then renamed.

    Args:
        landing_root: the landing folder; made if missing.
        workspace_id: name of the workspace's folder in it.
        truth_path: the JSON file for the truth; default `<landing_root>/../<workspace_id>-catalogue.json`.

    Raises:
        ValueError: `truth_path` lies in the workspace's folder, where it would be taken for a document.
        OSError: a folder or file can't be written.
    """
    root = landing_root.resolve() / workspace_id
    truth_path = (truth_path or landing_root.resolve().parent / f"{workspace_id}-catalogue.json").resolve()
    if truth_path.is_relative_to(root):
        raise ValueError(f"truth_path must lie outside the landing folder {root}, got {truth_path}")
    manifest = read_manifest(root, truth_path, CATALOGUE_VERSION)
    if manifest is not None and all(
        has_content(root / name, digest) for name, digest in manifest.sha256.items()
    ):
        return manifest

    files, manifest = _draw(root, truth_path)
    written = tuple(sorted(name for name, content in files.items() if write_file(root / name, content)))
    write_file(truth_path, manifest.to_json(CATALOGUE_VERSION).encode())
    return replace(manifest, written=written)


def catalogue_products() -> dict[str, list[ProductSpec]]:
    """Return the products of each document, by document name, in order of appearance. No product is in two."""
    free = make_products(GRID_SIZE, _SEED)
    chosen: dict[str, list[ProductSpec]] = {}
    plan = [(pdf.name, pdf.materials, pdf.count) for pdf in _PDFS] + [(_SHOWROOM, MATERIALS, _SHOWROOM_COUNT)]
    wanted = {query.text: _MATCHES_PER_QUERY for query in DEMO_QUERIES}
    for name, materials, count in plan:
        fitting = [product for product in free if product.material in materials]
        answers = []
        for query in DEMO_QUERIES:
            # At most two answers to a query in one document, so that they spread over the catalogue.
            found = [p for p in fitting if query.fits(p) and p not in answers][: min(2, wanted[query.text])]
            wanted[query.text] -= len(found)
            answers += found
        others = [p for p in fitting if p not in answers and not any(query.fits(p) for query in DEMO_QUERIES)]
        taken = set(answers + others[: count - len(answers)])
        chosen[name] = [product for product in fitting if product in taken]
        free = [product for product in free if product not in taken]
    return chosen


def _draw(root: Path, truth_path: Path) -> tuple[dict[str, bytes], CatalogueManifest]:
    """Draw everything; return file contents by name relative to the workspace's folder, and the truth."""
    files: dict[str, bytes] = {}
    items: list[CatalogueItem] = []
    planted: list[PlantedFault] = []
    products = catalogue_products()
    for pdf in _PDFS:
        files[pdf.name] = _draw_pdf(pdf, products[pdf.name], items, planted)
    for number, spec in enumerate(products[_SHOWROOM], start=1):
        suffix, form = _FORMATS[number % len(_FORMATS)]
        file = f"{number:04d}.{suffix}"
        buffer = BytesIO()
        draw_swatch(spec, 256 + 32 * (number % 4), _PIECE).save(buffer, form, quality=88)
        files[f"{_SHOWROOM}/{file}"] = buffer.getvalue()
        items.append(CatalogueItem(spec.sku, _SHOWROOM, None, number, None, file, "RGB", False, spec))
    bomb = f"{_SHOWROOM_COUNT + 1:04d}.png"
    files[f"{_SHOWROOM}/{bomb}"] = decompression_bomb_png()
    planted.append(PlantedFault(_SHOWROOM, None, bomb, "decompression_bomb", "rejected"))
    manifest = CatalogueManifest(
        root=root,
        truth_path=truth_path,
        documents=(*(pdf.name for pdf in _PDFS), _SHOWROOM),
        items=tuple(items),
        planted=tuple(planted),
        image_query_sku=products["architects-selection.pdf"][5].sku,
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
        written=(),
    )
    return files, manifest


def _draw_pdf(
    pdf: _Pdf, products: Sequence[ProductSpec], items: list[CatalogueItem], planted: list[PlantedFault]
) -> bytes:
    modes = _modes(pdf, products)
    # None stands for the planted broken image, in the middle of the document.
    middle = len(products) // 2
    shown: list[ProductSpec | None] = [*products]
    if pdf.repeat_first:
        shown.append(products[0])
    if pdf.faulty:
        shown.insert(middle, None)
    images: dict[str, PdfImage] = {}
    entries = []
    for number, spec in enumerate(shown):
        if spec is None:
            broken = truncated_jpeg(draw_swatch(products[middle], 288, _PIECE + 1))
            entries.append(Entry(PdfImage(broken, 288, 288, "RGB", "DCTDecode"), ("New: picture to follow",)))
            continue
        if spec.sku not in images:
            flate = pdf.flate_every > 0 and number % pdf.flate_every == 0
            swatch = draw_swatch(spec, 224 if flate else 288, _PIECE).convert(modes[spec.sku])
            images[spec.sku] = flate_image(swatch) if flate else jpeg_image(swatch)
        entries.append(Entry(images[spec.sku], product_lines(spec)))
    icon = flate_image(Image.new("RGB", (1, 1), (200, 40, 40))) if pdf.faulty else None
    content, placements = build_pdf(
        pdf.title, pdf.headings, entries, columns=pdf.columns, rows=pdf.rows, icon=icon
    )
    seen: set[str] = set()
    for spec, placement in zip(shown, placements, strict=True):
        if spec is None:
            planted.append(PlantedFault(pdf.name, placement.page, None, "truncated_jpeg", "rejected"))
            continue
        items.append(
            CatalogueItem(
                sku=spec.sku,
                document=pdf.name,
                page=placement.page,
                position=placement.position,
                bbox=placement.bbox,
                file=None,
                mode=modes[spec.sku],
                repeat=spec.sku in seen,
                spec=spec,
            )
        )
        seen.add(spec.sku)
    if pdf.faulty:
        pages = placements[-1].page
        planted += [PlantedFault(pdf.name, page, None, "icon", "skipped") for page in range(1, pages + 1)]
    return content


def _modes(pdf: _Pdf, products: Sequence[ProductSpec]) -> dict[str, str]:
    """Return each product's stored mode. Grayscale goes to a product that has no colour to lose."""
    modes = {product.sku: "RGB" for product in products}
    for mode in pdf.modes:
        fitting = [p for p in products[1:] if mode != "L" or p.colour in ("black", "grey", "white")]
        modes[fitting[0].sku] = mode
    return modes


def product_lines(spec: ProductSpec) -> tuple[str, ...]:
    """The four lines under a product's swatch: name, stock code, looks, specifications."""
    slip = f"   Slip rating {spec.slip_rating}" if spec.slip_rating else ""
    return (
        spec.name,
        f"SKU {spec.sku}",
        f"{spec.material.title()}, {spec.finish} finish, {spec.style} style",
        f"{spec.size}   {spec.thickness_mm:g} mm{slip}",
    )
