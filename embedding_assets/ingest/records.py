"""What ingest hands on: one `FoundImage` for each image that a document holds, good or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from embedding_assets.errors import ErrorClass


class ImageStatus(str, Enum):
    """Where an image stands after ingest."""

    READY = "ready"
    """Stored and fully decoded once: to be embedded."""
    SKIPPED = "skipped"
    """Sound, but left out for a stated reason (too small); does not count against coverage."""
    REJECTED = "rejected"
    """Can't be used; counts against coverage and stands in the failure list."""
    PENDING = "pending"
    """Could not be had this time, for a cause that may pass (a server that is down, a time-out); counts against
    coverage, stands in the failure list as transient, and the next ingest tries again."""


@dataclass(frozen=True)
class FoundImage:
    """One image of a document, as ingest found it.

    Attributes:
        index: position in the document, from 0: reading order (page, then order on the page; list order).
        reference: where it is in its source, for people: "swatches/oak.jpg", "page 3, image 2", a URL.
        status: ready, skipped, rejected or pending.
        content_hash: SHA-256 of the image's bytes in hexadecimal; of the reference where no bytes could be had.
        store_key: key in the image store; None where nothing was stored.
        reason: why it was skipped or rejected, or could not be had yet.
        error_type: name of the exception behind the verdict; None where it is ready.
        error_class: permanent where skipped or rejected, transient or throttled where pending; None where ready.
        retry_after: seconds that a throttling server asked for; None where it did not say.
        image_format: "JPEG", "PNG", ...; None where unknown.
        width, height: pixels, after EXIF orientation; None where unknown.
        byte_size: bytes as stored; None where none could be had.
        page_number: from 1; None where the source has no pages.
        position: order on the page, from 0.
        bbox: left, bottom, right, top on the page in PDF points (1/72 inch), or as posted.
        caption: the caption as posted, or the line that reads as one in the document.
        nearby_text: the page's text nearest to the image.
        quality_score: 0 to 1 as posted; None where nobody said.
        extra: further keys of a posted image, kept as they came.
    """

    index: int
    reference: str
    status: ImageStatus
    content_hash: str
    store_key: str | None = None
    reason: str | None = None
    error_type: str | None = None
    error_class: ErrorClass | None = None
    retry_after: float | None = None
    image_format: str | None = None
    width: int | None = None
    height: int | None = None
    byte_size: int | None = None
    page_number: int | None = None
    position: int | None = None
    bbox: tuple[float, float, float, float] | None = None
    caption: str | None = None
    nearby_text: str | None = None
    quality_score: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
