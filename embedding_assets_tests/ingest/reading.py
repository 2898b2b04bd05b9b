"""Reads test documents through the public functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from embedding_assets.ingest.decode import decode_rgb
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.landing import LandingDocument, kind_of
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.pdf import WORKER_COMMAND
from embedding_assets.ingest.records import FoundImage
from embedding_assets.ingest.sources import read_document
from embedding_assets.keys import DocumentKey, document_id_for_name

LIMITS = IngestLimits(max_image_pixels=4_000_000, pdf_timeout_s=60)


def landing_document(path: Path) -> LandingDocument:
    """The document that a path in the landing folder is."""
    kind = kind_of(path.name, is_folder=path.is_dir())
    assert kind is not None
    return LandingDocument(DocumentKey("shop", document_id_for_name(path.name)), kind, str(path))


def store_beside(path: Path) -> ImageStore:
    """An image store next to a document."""
    return ImageStore(str(path.parent / "store"))


def read_all(
    path: Path, limits: IngestLimits = LIMITS, *, command: Sequence[str] = WORKER_COMMAND
) -> list[FoundImage]:
    """All images of the document at `path`."""
    with read_document(landing_document(path), store_beside(path), limits, pdf_command=command) as content:
        return list(content.images)


def read_pdf(folder: Path, data: bytes, limits: IngestLimits = LIMITS) -> list[FoundImage]:
    """All images of a PDF given as bytes."""
    path = folder / "catalogue.pdf"
    path.write_bytes(data)
    return read_all(path, limits)


def stored(folder: Path, found: FoundImage) -> Image.Image:
    """The stored image, decoded."""
    assert found.store_key is not None, found.reason
    return decode_rgb(ImageStore(str(folder / "store")).get(found.store_key), 10**8)
