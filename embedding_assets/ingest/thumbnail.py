"""Small pictures of stored images."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from embedding_assets.ingest.decode import decode_rgb

SIDES = (64, 128, 256, 512, 1024)
"""Sizes that there are: pixels of the longer side."""

FORMAT = "image/jpeg"
_QUALITY = 82


def side_for(wanted: int) -> int:
    """The smallest of `SIDES` that is at least `wanted`, or the largest of them."""
    return next((side for side in SIDES if side >= wanted), SIDES[-1])


def make_thumbnail(data: bytes, side: int, max_pixels: int) -> bytes:
    """A JPEG of an image, no larger than the image itself and than `side` pixels on its longer side.

    Raises:
        ImageRejected: the bytes are no image, broken, or of more than `max_pixels`.
    """
    picture = decode_rgb(data, max_pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


class ThumbnailCache:
    """Keeps thumbnails of the last asked-for images; safe to share between threads.

    Args:
        max_bytes: kept in all.
        at_once: thumbnails made at the same time: a decoded image of 100 million pixels takes 300 MB.
    """

    def __init__(self, max_bytes: int = 32 * 2**20, at_once: int = 2) -> None:
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._making = threading.BoundedSemaphore(at_once)

    def get(self, content_hash: str, side: int, max_pixels: int, read: Callable[[], bytes]) -> bytes:
        """The thumbnail of the image with this hash, `side` pixels on its longer side.

        Args:
            content_hash: SHA-256 of the image's bytes: what is kept can't grow stale.
            read: gives the image's bytes.

        Raises: what `read` and `make_thumbnail` raise.
        """
        slot = (content_hash, side)
        with self._lock:
            if slot in self._kept:
                self._kept.move_to_end(slot)
                return self._kept[slot]
        with self._making:
            made = make_thumbnail(read(), side, max_pixels)
        with self._lock:
            if slot not in self._kept:
                self._kept[slot] = made
                self._bytes += len(made)
            while self._bytes > self._max_bytes and self._kept:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made
