"""The images of one PDF, page by page, as frames. Runs in the PDF worker only."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import pypdfium2.raw as pdfium_c
from pypdfium2 import PdfiumError

from embedding_assets.errors import DocumentError, ImageRejected, ImageSkipped
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.page_geometry import (
    Box,
    multiply,
    orientation,
    reading_order,
    to_display,
    unit_square_box,
)
from embedding_assets.ingest.page_lines import read_lines
from embedding_assets.ingest.page_text import texts_near, whole_text
from embedding_assets.ingest.pdf_frames import write_frame
from embedding_assets.ingest.pdf_images import DocumentTraits, encode_png, take_image

MAX_IMAGES = 50_000
"""Image occurrences in one PDF. The largest catalogues have some thousands; beyond this it is an attack."""
MAX_FORM_DEPTH = 8
"""Form XObjects inside form XObjects. Real files go three or four deep."""
RENDER_PIXELS = 25_000_000
"""A rendered page has no more pixels than this, whatever its size and pdf_render_dpi: A3 at 400 dpi."""


class Extraction:
    """Sends the images of one PDF, page by page."""

    def __init__(self, limits: IngestLimits, traits: DocumentTraits, out: BinaryIO) -> None:
        self._limits = limits
        self._traits = traits
        self._out = out
        self._serials: dict[bytes, int] = {}
        self._count = 0
        self.bytes_read = 0
        """Bytes of image data that pdfium has taken out of the file so far."""

    def reject_page(self, number: int, reason: str) -> None:
        """Sends a page that yields nothing, so that it is not lost silently."""
        self._send(number, None, {}, verdict="rejected", reason=reason)

    def read_page(self, page: Any, number: int) -> None:
        """Sends the page's images, or the page as one image, by the setting pdf_images."""
        usable = 0
        if self._limits.pdf_images != "pages":
            usable = self._embedded(page, number)
        if self._limits.pdf_images == "pages" or (self._limits.pdf_images == "auto" and not usable):
            self._rendered(page, number)

    def _embedded(self, page: Any, number: int) -> int:
        visible, rotation = Box(*page.get_bbox()), page.get_rotation()
        try:
            images = [(image, matrix, unit_square_box(matrix)) for image, matrix in _images(page)]
        except PdfiumError:
            self.reject_page(number, "the page's content can't be read")
            return 0
        self._count += len(images)
        if self._count > MAX_IMAGES:
            raise DocumentError(
                f"more than {MAX_IMAGES} images up to page {number}", hint="split the PDF into several"
            )
        if not images:
            return 0
        ordered = reading_order(
            [(to_display(box, visible, rotation), i) for i, (_, _, box) in enumerate(images)]
        )
        lines = [line._replace(box=to_display(line.box, visible, rotation)) for line in read_lines(page)]
        side = self._limits.min_image_side
        rivals = [min(images[i][0].get_px_size()) >= side for _, i in ordered]
        size = to_display(visible, visible, rotation)
        texts = texts_near([box for box, _ in ordered], rivals, lines, size)
        usable = 0
        for position, ((shown, i), near) in enumerate(zip(ordered, texts, strict=True)):
            image, matrix, box = images[i]
            place = {
                "bbox": [round(value, 2) for value in box],
                "caption": near.caption,
                "nearby_text": near.nearby,
            }
            if shown.shared_width(size) <= 0 or shown.shared_height(size) <= 0:
                self._send(number, position, place, verdict="skipped", reason="lies outside the visible page")
                continue
            usable += self._one(image, orientation(matrix, rotation), number, position, place)
        return usable

    def _one(self, image: Any, turn: int, number: int, position: int, place: dict[str, Any]) -> bool:

        self.bytes_read += pdfium_c.FPDFImageObj_GetImageDataRaw(image, None, 0)
        try:
            file = take_image(image, turn, self._traits, self._limits, self._serials)
        except ImageSkipped as error:
            self._send(number, position, place, verdict="skipped", reason=error.message)
            return False
        except ImageRejected as error:
            self._send(number, position, place, verdict="rejected", reason=error.message)
            return False
        self._send_file(file.data, file.format, file.digest, number, position, place)
        return True

    def _rendered(self, page: Any, number: int) -> None:

        width, height = page.get_size()
        if width < 1 or height < 1:
            self.reject_page(
                number, f"the page measures {width:g} x {height:g} points: there is nothing to render"
            )
            return
        most = min(RENDER_PIXELS, self._limits.max_image_pixels)
        scale = min(self._limits.pdf_render_dpi / 72, 0.999 * math.sqrt(most / (width * height)))
        try:
            data = encode_png(page.render(scale=scale).to_pil().convert("RGB"))
        except (PdfiumError, ValueError):
            self.reject_page(number, f"the page of {width:g} x {height:g} points can't be rendered")
            return
        place = {
            "bbox": [round(value, 2) for value in page.get_bbox()],
            "caption": None,
            "nearby_text": whole_text(read_lines(page)),
        }
        self._send_file(data, "PNG", hashlib.sha256(data).digest(), number, 0, place)

    def _send_file(
        self, data: bytes, file_format: str, digest: bytes, number: int, position: int, place: dict[str, Any]
    ) -> None:
        known = self._serials.get(digest)
        if known is not None:
            self._send(number, position, place, same_as=known)
            return
        if len(data) > self._limits.max_image_bytes:
            limit = self._limits.max_image_bytes
            reason = (
                f"{len(data)} bytes as {file_format}, more than the limit of {limit} bytes (max_image_bytes)"
            )
            self._send(number, position, place, verdict="rejected", reason=reason)
            return
        serial = self._serials[digest] = len(self._serials)
        self._send(number, position, place, body=data, serial=serial, format=file_format)

    def _send(
        self, number: int, position: int | None, place: dict[str, Any], body: bytes = b"", **fields: Any
    ) -> None:

        write_frame(self._out, "image", body, page=number, position=position, **place, **fields)


def _images(page: Any) -> Iterator[tuple[Any, Any]]:
    """The page's image objects, each with the matrix that places it on the page in user space."""

    for image in page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=MAX_FORM_DEPTH):
        matrix = image.get_matrix().get()
        container = image.container
        while container is not None:
            matrix = multiply(matrix, container.get_matrix().get())
            container = container.container
        yield image, matrix
