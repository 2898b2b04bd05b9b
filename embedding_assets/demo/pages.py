"""Lays catalogue pages out as PDF: headings, a grid of swatches, and the text lines under each.

Images go in as raw XObject streams, byte for byte: reportlab's own loader would decode them, which a planted broken
image must be spared, and re-encode what is no JPEG.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase.pdfdoc import PDFArray, PDFName, PDFStream
from reportlab.pdfgen.canvas import Canvas

_MARGIN = 42.0
_HEADER = 64.0
_FOOTER = 36.0
_LINE = 9.5
_COLOUR_SPACES = {"RGB": "DeviceRGB", "L": "DeviceGray", "CMYK": "DeviceCMYK"}


@dataclass(frozen=True)
class PdfImage:
    """An encoded image, ready to be placed in a PDF as it is.

    Attributes:
        data: the stream's bytes: a JPEG file, or zlib-compressed samples.
        width, height: pixels.
        mode: Pillow mode of the samples: "RGB", "L" or "CMYK".
        encoding: "DCTDecode" for JPEG, "FlateDecode" for compressed samples.
    """

    data: bytes
    width: int
    height: int
    mode: str
    encoding: str


@dataclass(frozen=True)
class Entry:
    """One cell of a page: a swatch and the lines of text under it."""

    image: PdfImage
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Placement:
    """Where an entry's image stands.

    Attributes:
        page: 1 for the first page.
        position: 1 for the first image of the page, row by row.
        bbox: left, bottom, right, top in PDF points from the page's lower left corner.
    """

    page: int
    position: int
    bbox: tuple[float, float, float, float]


def jpeg_image(image: Image.Image, quality: int = 88) -> PdfImage:
    """Encode an RGB, L or CMYK image as JPEG."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return PdfImage(buffer.getvalue(), image.width, image.height, image.mode, "DCTDecode")


def flate_image(image: Image.Image) -> PdfImage:
    """Encode an RGB or L image without loss, as a PNG becomes inside a PDF."""
    return PdfImage(zlib.compress(image.tobytes(), 6), image.width, image.height, image.mode, "FlateDecode")


def build_pdf(
    title: str,
    headings: Sequence[str],
    entries: Sequence[Entry],
    *,
    columns: int,
    rows: int,
    icon: PdfImage | None = None,
) -> tuple[bytes, list[Placement]]:
    """Lay out entries on A4 pages, `columns` x `rows` to a page.

    Args:
        title: the document's title, in its metadata and at the top of each page.
        headings: page headings, used in turn.
        entries: what to show, in order.
        columns, rows: the grid of one page.
        icon: a picture drawn small before each page's heading, as catalogues have; once per page.

    Returns:
        The PDF's bytes, the same for the same input, and the placement of each entry.
    """
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=A4, pageCompression=1, invariant=1)
    canvas.setTitle(title)
    canvas.setAuthor("Demo catalogue")
    per_page = columns * rows
    names: dict[PdfImage, str] = {}
    placements: list[Placement] = []
    for start in range(0, len(entries), per_page):
        page = start // per_page + 1
        _head(canvas, title, headings[(page - 1) % len(headings)], page)
        if icon is not None:
            _place(canvas, names, icon, A4[0] - _MARGIN - 6, A4[1] - _MARGIN - 4, 6)
        for index, entry in enumerate(entries[start : start + per_page]):
            bbox = _cell(index, columns, rows)
            _place(canvas, names, entry.image, bbox[0], bbox[1], bbox[2] - bbox[0])
            canvas.setFillGray(0.1)
            for number, line in enumerate(entry.lines):
                canvas.setFont("Helvetica-Bold" if number == 0 else "Helvetica", 8 if number == 0 else 7)
                canvas.drawString(bbox[0], bbox[1] - _LINE * (number + 1), line)
            placements.append(Placement(page, index + 1, bbox))
        canvas.showPage()
    canvas.save()
    return buffer.getvalue(), placements


def _head(canvas: Any, title: str, heading: str, page: int) -> None:
    canvas.setFillGray(0.4)
    canvas.setFont("Helvetica", 8)
    canvas.drawString(_MARGIN, A4[1] - _MARGIN, title)
    canvas.drawRightString(A4[0] - _MARGIN, _FOOTER - 12, f"Page {page}")
    canvas.drawString(_MARGIN, _FOOTER - 12, "Swatches are drawn by a program; no such product exists.")
    canvas.setFillGray(0.1)
    canvas.setFont("Helvetica-Bold", 16)
    canvas.drawString(_MARGIN, A4[1] - _MARGIN - 22, heading)


def _cell(index: int, columns: int, rows: int) -> tuple[float, float, float, float]:
    """Return the image box of a cell, left room for four lines of text under it."""
    cell_width = (A4[0] - 2 * _MARGIN) / columns
    cell_height = (A4[1] - _MARGIN - _HEADER - _FOOTER) / rows
    side = min(cell_width - 14, cell_height - 4 * _LINE - 14)
    left = _MARGIN + cell_width * (index % columns)
    top = A4[1] - _MARGIN - _HEADER + 22 - cell_height * (index // columns)
    return round(left, 2), round(top - side, 2), round(left + side, 2), round(top, 2)


def _place(canvas: Any, names: dict[PdfImage, str], image: PdfImage, x: float, y: float, side: float) -> None:
    """Draw an image as a square; the same image twice becomes one XObject drawn twice."""
    if image not in names:
        names[image] = f"swatch{len(names) + 1}"
        canvas._doc.addForm(names[image], _raw_stream(image))
    canvas.saveState()
    canvas.transform(side, 0, 0, side, x, y)
    canvas.doForm(names[image])
    canvas.restoreState()


def _raw_stream(image: PdfImage) -> Any:
    """Return an image XObject whose stream is written exactly as given."""
    stream = PDFStream(content=image.data)
    stream.dictionary["Type"] = PDFName("XObject")
    stream.dictionary["Subtype"] = PDFName("Image")
    stream.dictionary["Width"] = image.width
    stream.dictionary["Height"] = image.height
    stream.dictionary["BitsPerComponent"] = 8
    stream.dictionary["ColorSpace"] = PDFName(_COLOUR_SPACES[image.mode])
    stream.dictionary["Filter"] = PDFName(image.encoding)
    if image.mode == "CMYK" and image.encoding == "DCTDecode":
        # Pillow, like Adobe's programs, stores CMYK JPEGs inverted.
        stream.dictionary["Decode"] = PDFArray([1, 0] * 4)
    return stream
