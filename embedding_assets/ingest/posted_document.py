"""The images of a posted list as `FoundImage`s."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from embedding_assets.errors import ImageRejected
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.posted import PostedAccess, PostedImage, read_posted_bytes
from embedding_assets.ingest.records import FoundImage, ImageStatus
from embedding_assets.ingest.verdicts import found_image, without_file
from embedding_assets.keys import DocumentKey


def posted_images(
    key: DocumentKey,
    material_images: Sequence[Any],
    store: ImageStore,
    limits: IngestLimits,
    access: PostedAccess,
) -> Iterator[FoundImage]:
    """Reads the images of a posted list, in its order."""
    for index, entry in enumerate(material_images):
        yield read_posted_image(entry, index, key, store, limits, access)


def read_posted_image(
    entry: Any, index: int, key: DocumentKey, store: ImageStore, limits: IngestLimits, access: PostedAccess
) -> FoundImage:
    """Reads one entry of a posted list: once, without retries.

    Args:
        entry: a dict as `PostedImage` describes it.
        index: its place in the list.
        key: the document; its workspace decides which part of the landing folder may be read.
        store: where a sound image goes.
        limits: on images.
        access: from where images may be read.

    Returns:
        A server that is down or throttles gives status PENDING, with `error_class` and `retry_after`; calling
        again with the same entry may then succeed.

    Raises:
        InfrastructureError: the image store can't be written.
    """
    try:
        posted = PostedImage.read(entry)
    except ImageRejected as error:
        return without_file(index, f"entry {index}", error, b"", ImageStatus.REJECTED)
    found = found_image(
        index,
        posted.reference,
        lambda: read_posted_bytes(posted, key, access, limits),
        store,
        limits,
        page_number=posted.page_number,
        caption=posted.caption,
        bbox=posted.bbox,
        quality_score=posted.quality_score,
        extra=posted.extra,
    )
    if found.byte_size is None:  # no bytes: told apart by what was posted, the URL's query included
        source = posted.path or posted.url or ""
        digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        found = replace(found, content_hash=digest)
    return found
