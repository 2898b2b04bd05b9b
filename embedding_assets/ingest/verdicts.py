"""Bytes become a `FoundImage`: validated, stored, or listed with the reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from embedding_assets.errors import (
    ErrorClass,
    ImageRejected,
    ImageSkipped,
    InfrastructureError,
    ThrottledError,
    TransientError,
)
from embedding_assets.ingest.decode import inspect_image
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.records import FoundImage, ImageStatus


def found_image(
    index: int,
    reference: str,
    read: Callable[[], bytes],
    store: ImageStore,
    limits: IngestLimits,
    **known: Any,
) -> FoundImage:
    """Reads, validates and stores one image.

    Args:
        index: position in the document.
        reference: where it is, for people.
        read: gets the image file's bytes; may raise ImageRejected, TransientError or ThrottledError.
        store: where it goes if it is sound.
        limits: on images.
        known: further fields of `FoundImage` (page_number, caption, ...).

    Returns:
        With status READY; or SKIPPED, REJECTED or PENDING with the reason.

    Raises:
        InfrastructureError: the image store can't be written: no image is to blame.
    """
    data = b""
    try:
        data = read()
        info = inspect_image(data, limits)
    except ImageSkipped as error:
        return without_file(index, reference, error, data, ImageStatus.SKIPPED, **known)
    except ImageRejected as error:
        return without_file(index, reference, error, data, ImageStatus.REJECTED, **known)
    except InfrastructureError:
        raise
    except (TransientError, ThrottledError) as error:
        return without_file(index, reference, error, data, ImageStatus.PENDING, **known)
    return FoundImage(
        index=index,
        reference=reference,
        status=ImageStatus.READY,
        content_hash=hashlib.sha256(data).hexdigest(),
        store_key=store.put(data, info.format),
        image_format=info.format,
        width=info.width,
        height=info.height,
        byte_size=len(data),
        **known,
    )


def without_file(
    index: int,
    reference: str,
    error: ImageRejected | ImageSkipped | TransientError | ThrottledError,
    data: bytes,
    status: ImageStatus,
    **known: Any,
) -> FoundImage:
    """An image that is not stored, with the reason; `data` are its bytes, empty where none could be had."""
    reason = error.message if error.hint is None else f"{error.message}; {error.hint}"
    return FoundImage(
        index=index,
        reference=reference,
        status=status,
        content_hash=hashlib.sha256(data or reference.encode("utf-8", "surrogateescape")).hexdigest(),
        reason=reason,
        error_type=type(error).__name__,
        error_class=error.error_class if status is ImageStatus.PENDING else ErrorClass.PERMANENT,
        retry_after=getattr(error, "retry_after", None),
        byte_size=len(data) or None,
        **known,
    )
