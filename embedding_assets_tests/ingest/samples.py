"""Images that the tests make themselves."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIDE = 96
QUARTERS = ((220, 30, 30), (30, 200, 40), (40, 50, 210), (240, 240, 240))
"""Colours of the upper left, upper right, lower left and lower right quarter."""


def quarters(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """An image whose four quarters tell how it is turned."""
    pixels = np.zeros((height, width, 3), np.uint8)
    half_y, half_x = height // 2, width // 2
    pixels[:half_y, :half_x], pixels[:half_y, half_x:] = QUARTERS[0], QUARTERS[1]
    pixels[half_y:, :half_x], pixels[half_y:, half_x:] = QUARTERS[2], QUARTERS[3]
    return Image.fromarray(pixels)


def noise(width: int = SIDE, height: int = SIDE, seed: int = 1) -> Image.Image:
    """An image that compresses badly, so that cutting its file cuts the picture."""
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The image as a file."""
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def corners(image: Image.Image) -> list[tuple[int, int, int]]:
    """Colours in the middle of the four quarters, in the order of `QUARTERS`."""
    width, height = image.size
    places = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    return [image.getpixel(place) for place in places]  # type: ignore[misc]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG with a header that says anything, and chunks that hold anything."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")


def png16(pixels: np.ndarray) -> bytes:
    """A 16-bit grey PNG."""
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in pixels)
    chunk = png_chunk(b"IDAT", zlib.compress(rows))
    return png(pixels.shape[1], pixels.shape[0], chunk, bits=16, colour=0)
