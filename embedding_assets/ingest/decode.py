"""Bytes become an image, or a reason why not: the only place where image files are decoded.

Formats are told apart by their first bytes and opened by that format's Pillow class, never by `Image.open`: it
would try other formats, and it measures against a limit that is global to the process (and so not ours to set
in one thread while others decode). Limits are checked on the header, before pixels are allocated.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from embedding_assets.errors import ImageRejected, ImageSkipped
from embedding_assets.ingest.image_header import FORMATS, describe_unknown, sniff_format, webp_size
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.to_rgb import to_rgb, upright

# JpegImageFile itself, not Pillow's factory: that one turns a JPEG with further pictures behind the first (MPO,
# as phones write) into a multi-picture file. The first picture is what we want.
_CLASSES: dict[str, type[ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "AVIF": AvifImageFile,
}

# Pillow's decoders raise all of these on malformed input; none is documented as the only one.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    RuntimeError,
    NotImplementedError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

_FILLER = bytes(range(0x31, 0x7B)) * 56
"""About 4 KB of entropy-coded nothing in particular: no 0xFF in it, so no marker."""

_CUT = ("truncated", "unexpected end", "buffer is not large enough", "not enough", "eof", "end of file")


@dataclass(frozen=True)
class ImageInfo:
    """What validation found.

    Attributes:
        format: "JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP" or "AVIF".
        width, height: pixels, after EXIF orientation.
    """

    format: str
    width: int
    height: int


def inspect_image(data: bytes, limits: IngestLimits) -> ImageInfo:
    """Validates an image file completely: recognised, within the limits, and every pixel decoded.

    Args:
        data: the whole file.
        limits: bytes, pixels and smallest side.

    Raises:
        ImageRejected: of no known format, broken, cut short, or over a limit; the message says what was expected
            and what came.
        ImageSkipped: sound, but a side is shorter than `limits.min_image_side`.
    """
    check_byte_size(len(data), limits)
    with _opened(data, limits.max_image_pixels) as image:
        width, height = upright(image).size
        image_format = sniff_format(data) or ""
    side = limits.min_image_side
    if min(width, height) < side:
        raise ImageSkipped(f"{width}x{height} px, smaller than {side} px on a side")
    return ImageInfo(image_format, width, height)


def decode_rgb(data: bytes, max_pixels: int) -> Image.Image:
    """Decodes an image file to RGB as a person would see it on white paper.

    EXIF orientation is applied; the first frame is taken; CMYK, palettes and 1-bit become RGB; 16-bit, 32-bit and
    floating-point samples are scaled to 8 bits (see `to_rgb`); transparency is laid over white. Safe to call from
    several threads at once.

    Args:
        data: the whole file.
        max_pixels: an image with more pixels is rejected before it is decoded.

    Returns:
        A Pillow image of mode RGB that holds no reference to `data`.

    Raises:
        ImageRejected: of no known format, broken, cut short, or larger than `max_pixels`.
    """
    with _opened(data, max_pixels) as image:
        return to_rgb(upright(image))


def check_byte_size(size: int, limits: IngestLimits) -> None:
    """Raises ImageRejected where a file of `size` bytes is over the limit."""
    if size > limits.max_image_bytes:
        raise ImageRejected(
            f"{size} bytes, more than the limit of {limits.max_image_bytes} bytes (max_image_bytes)"
        )


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raises ImageRejected where an image has no pixels, or more than the limit."""
    if width < 1 or height < 1:
        raise ImageRejected(f"the header says {width}x{height} px: an image needs at least one pixel")
    if width * height > max_pixels:
        raise ImageRejected(
            f"{width}x{height} px are {width * height} pixels, more than the limit of {max_pixels} "
            "(max_image_pixels)"
        )


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The first frame, loaded; whatever Pillow raises inside becomes ImageRejected."""
    if not data:
        raise ImageRejected(f"0 bytes; expected an image file ({', '.join(FORMATS)})")
    image_format = sniff_format(data)
    if image_format is None:
        raise ImageRejected(
            f"not an image of a known format: expected {', '.join(FORMATS)}, got {describe_unknown(data)}"
        )
    if image_format == "WEBP":
        _check_webp(data, max_pixels)
    try:
        with _CLASSES[image_format](io.BytesIO(data), "") as image:
            check_pixels(image.width, image.height, max_pixels)
            image.load()
            if image_format == "JPEG":
                _check_jpeg_is_whole(image, data)
            yield image
    except ImageRejected:
        raise
    except MemoryError:
        raise ImageRejected(
            f"decoding this {image_format} needs more memory than there is; lower max_image_pixels "
            "so that such images are named as too large"
        ) from None
    except _BROKEN as error:
        raise ImageRejected(_reason(image_format, error)) from error


def _check_webp(data: bytes, max_pixels: int) -> None:
    """What libwebp does not do: it allocates before it checks, and calls a cut file no more than undecodable."""
    if canvas := webp_size(data):
        check_pixels(canvas[0], canvas[1], max_pixels)
    declared = int.from_bytes(data[4:8], "little") + 8
    if declared > len(data):
        raise ImageRejected(
            f"truncated WEBP: the file ends before the image does ({len(data)} of {declared} bytes)"
        )


def _check_jpeg_is_whole(image: Image.Image, data: bytes) -> None:
    """Rejects what libjpeg lets pass: a JPEG that was cut, then filled up with zeros or closed with an end marker.

    Zeros decode as some picture, but no end marker follows the last scan. An end marker too early makes libjpeg fill
    the rest with mid-grey: a JPEG whose last pixels are that grey is decoded again with filler before the end
    marker. libjpeg skips the filler where the picture was complete, and takes it for the missing blocks where not.
    """
    end = data.rfind(b"\xff\xd9")
    if end < data.rfind(b"\xff\xda"):
        raise ImageRejected("truncated JPEG: the file ends before the image does (no end marker)")
    width, height = image.size
    corner = image.crop((max(0, width - 4), max(0, height - 4), width, height))
    # Mid-grey is 128 in every channel; 127 in inverted CMYK.
    extrema = [corner.getextrema()] if len(image.getbands()) == 1 else corner.getextrema()
    if not all(low >= 127 and high <= 128 for low, high in extrema):  # type: ignore[misc,operator]
        return
    probe = data[:end] + _FILLER + data[end:]
    with JpegImageFile(io.BytesIO(probe), "") as other:
        other.load()
        if other.tobytes() != image.tobytes():
            raise ImageRejected(
                "truncated JPEG: the file ends before the image does (its last blocks are missing)"
            )


def _reason(image_format: str, error: BaseException) -> str:
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    if any(word in detail.lower() for word in _CUT):
        return f"truncated {image_format}: the file ends before the image does ({detail})"
    return f"unreadable {image_format}: it is broken, or of a kind that is not supported ({detail})"
