"""The bad images that the demo catalogue plants: each is small, and each must end in a list that says why it failed."""

import struct
import zlib
from io import BytesIO

from PIL import Image

BOMB_SIDE = 30_000
"""Declared side of the decompression bomb in pixels: 900 megapixels, 2.7 GB as RGB."""


def truncated_jpeg(image: Image.Image, keep: float = 0.45) -> bytes:
    """Return a real JPEG of `image` cut off in its pixel data, as a broken transfer leaves it.

    Args:
        image: any RGB image.
        keep: share of the bytes that is kept, above 0 and below 1; headers always survive at the default.
    """
    whole = BytesIO()
    image.save(whole, "JPEG", quality=88)
    return whole.getvalue()[: int(whole.tell() * keep)]


def decompression_bomb_png() -> bytes:
    """Return a valid PNG header of BOMB_SIDE x BOMB_SIDE RGB pixels with next to no pixel data behind it."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(65_536), 9)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
