"""The images of a PDF as `FoundImage`s: each distinct image file validated and stored once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from embedding_assets.errors import ImageRejected, ImageSkipped
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.pdf import PdfImage, PdfReader
from embedding_assets.ingest.records import FoundImage, ImageStatus
from embedding_assets.ingest.verdicts import found_image, without_file


def pdf_images(
    reader: PdfReader, store: ImageStore, limits: IngestLimits, check_unchanged: Callable[[], None]
) -> Iterator[FoundImage]:
    """Reads the images of an open PDF.

    Args:
        reader: the open PDF; it is closed at the end.
        store: where sound images go.
        limits: on images.
        check_unchanged: called at the end; raises if the file was written meanwhile.

    Raises:
        DocumentError: the rest of the PDF can't be read.
        TransientError: the file changed while it was read.
    """
    by_serial: dict[int, FoundImage] = {}
    with reader:
        for index, image in enumerate(reader.images()):
            reference = f"page {image.page}"
            if image.position is not None:
                reference += f", image {image.position + 1}"
            yield _found(index, reference, image, by_serial, store, limits)
    check_unchanged()


def _found(
    index: int,
    reference: str,
    image: PdfImage,
    by_serial: dict[int, FoundImage],
    store: ImageStore,
    limits: IngestLimits,
) -> FoundImage:
    place: dict[str, Any] = {
        "page_number": image.page,
        "position": image.position,
        "bbox": tuple(image.bbox) if image.bbox else None,
        "caption": image.caption,
        "nearby_text": image.nearby_text,
    }
    if image.serial is None:
        reason = image.reason or "no reason given"
        if image.verdict == "skipped":
            return without_file(index, reference, ImageSkipped(reason), b"", ImageStatus.SKIPPED, **place)
        return without_file(index, reference, ImageRejected(reason), b"", ImageStatus.REJECTED, **place)
    data = image.data
    if data is None:
        return replace(by_serial[image.serial], index=index, reference=reference, **place)
    found = found_image(index, reference, lambda: data, store, limits, **place)
    by_serial[image.serial] = found
    return found
