"""Every kind of bad or odd image file gets its exact verdict."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from embedding_assets.errors import ImageRejected, ImageSkipped
from embedding_assets.ingest.decode import ImageInfo, decode_rgb, inspect_image
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets_tests.ingest.samples import encoded, noise, png, png_chunk, quarters

LIMITS = IngestLimits(max_image_bytes=2_000_000, max_image_pixels=1_000_000)


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _jpeg_with_size(width: int, height: int) -> bytes:
    data = encoded(noise(), "JPEG")
    return _patched(data, data.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def _webp_bomb() -> bytes:
    extended = b"\x00\x00\x00\x00" + (16382).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + extended
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _cut(data: bytes, share: float = 0.5) -> bytes:
    return data[: int(len(data) * share)]


def _text_bomb() -> bytes:
    bomb = png_chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(b"x" * 30_000_000))
    data = encoded(quarters(), "PNG")
    return data[:33] + bomb + data[33:]


def _short_idat() -> bytes:
    return png(96, 96, png_chunk(b"IDAT", zlib.compress(b"\x00" * 500)))


REJECTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", "0 bytes; expected an image file"),
    "one byte": (lambda: b"\xff", "starts with the bytes ff"),
    "zero bytes only": (lambda: bytes(4096), "nothing but zero bytes"),
    "plain text": (lambda: b"not an image at all", "expected JPEG, PNG, WebP, TIFF, GIF, BMP, AVIF"),
    "an HTML error page": (lambda: b"<!DOCTYPE html><html>404</html>", "an HTML page"),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG (a drawing, not pixels)"),
    "a PDF": (lambda: b"%PDF-1.7 ...", "a PDF"),
    "a Photoshop file": (lambda: b"8BPS\x00\x01" + bytes(30), "a Photoshop file"),
    "an icon": (lambda: encoded(quarters(), "ICO"), "a Windows icon"),
    "JPEG 2000": (lambda: encoded(quarters(), "JPEG2000"), "JPEG 2000"),
    "HEIC": (lambda: b"\x00\x00\x00\x18ftypheic" + bytes(40), "HEIC"),
    "Netpbm": (lambda: encoded(quarters(), "PPM"), "Netpbm"),
    "a ZIP archive": (lambda: b"PK\x03\x04" + bytes(60), "a ZIP archive"),
    "a Git LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "JPEG signature only": (lambda: b"\xff\xd8\xff", "JPEG"),
    "PNG signature only": (lambda: b"\x89PNG\r\n\x1a\n", "PNG"),
    "half a JPEG": (lambda: _cut(encoded(noise(), "JPEG")), "truncated JPEG"),
    "a JPEG without its last byte": (lambda: encoded(noise(), "JPEG")[:-1], "truncated JPEG"),
    "a JPEG without its end marker": (lambda: encoded(noise(), "JPEG")[:-2], "truncated JPEG"),
    "a cut JPEG with an end marker put on": (
        lambda: _cut(encoded(noise(), "JPEG")) + b"\xff\xd9",
        "truncated JPEG: the file ends before the image does (its last blocks are missing)",
    ),
    "a cut grey JPEG with an end marker put on": (
        lambda: _cut(encoded(noise().convert("L"), "JPEG")) + b"\xff\xd9",
        "its last blocks are missing",
    ),
    "a cut CMYK JPEG with an end marker put on": (
        lambda: _cut(encoded(noise().convert("CMYK"), "JPEG")) + b"\xff\xd9",
        "its last blocks are missing",
    ),
    "half a progressive JPEG": (lambda: _cut(encoded(noise(), "JPEG", progressive=True)), "truncated JPEG"),
    "a JPEG filled up with zeros": (
        lambda: _cut(encoded(noise(), "JPEG")) + bytes(8000),
        "truncated JPEG",
    ),
    "a JPEG of 0 lines": (lambda: _jpeg_with_size(96, 0), "JPEG"),
    "a JPEG of 65000 x 65000": (
        lambda: _jpeg_with_size(65000, 65000),
        "65000x65000 px are 4225000000 pixels, more than the limit of 1000000 (max_image_pixels)",
    ),
    "half a PNG": (lambda: _cut(encoded(noise(), "PNG")), "truncated PNG"),
    "a PNG with too few rows": (_short_idat, "truncated PNG"),
    "a PNG with a wrong checksum": (
        lambda: _patched(encoded(noise(), "PNG"), 2000, b"\x00\x01\x02\x03"),
        "unreadable PNG",
    ),
    "a PNG without pixels": (lambda: png(96, 96), "PNG"),
    "a PNG of 0 x 96": (lambda: png(0, 96, png_chunk(b"IDAT", zlib.compress(b""))), "PNG"),
    "a PNG that says 30000 x 30000": (
        lambda: png(30000, 30000, png_chunk(b"IDAT", zlib.compress(bytes(100)))),
        "30000x30000 px are 900000000 pixels, more than the limit",
    ),
    "a PNG with a text bomb": (_text_bomb, "unreadable PNG"),
    "half a WebP": (lambda: _cut(encoded(noise(), "WEBP")), "truncated WEBP"),
    "a WebP that says 16383 x 16383": (_webp_bomb, "16383x16383 px are 268402689 pixels"),
    "half a TIFF": (lambda: _cut(encoded(noise(), "TIFF")), "truncated TIFF"),
    "half a compressed TIFF": (
        lambda: _cut(encoded(noise(), "TIFF", compression="tiff_lzw")),
        "unreadable TIFF",
    ),
    "a TIFF without a directory": (lambda: b"II*\x00\xff\xff\xff\x7f", "TIFF"),
    "half a GIF": (lambda: _cut(encoded(noise(), "GIF")), "truncated GIF"),
    "a GIF that says 60000 x 60000": (
        lambda: _patched(encoded(noise(), "GIF"), 6, struct.pack("<HH", 60000, 60000)),
        "60000x60000 px",
    ),
    "half a BMP": (lambda: _cut(encoded(noise(), "BMP")), "truncated BMP"),
    "a BMP that says 40000 x 40000": (
        lambda: _patched(encoded(noise(), "BMP"), 18, struct.pack("<ii", 40000, 40000)),
        "40000x40000 px",
    ),
    "half an AVIF": (lambda: _cut(encoded(noise(), "AVIF")), "AVIF"),
    "more bytes than allowed": (
        lambda: encoded(quarters(), "PNG") + bytes(2_000_000),
        "bytes, more than the limit of 2000000 bytes (max_image_bytes)",
    ),
    "more pixels than allowed": (
        lambda: encoded(Image.new("L", (1001, 1000)), "PNG"),
        "1001x1000 px are 1001000 pixels, more than the limit of 1000000 (max_image_pixels)",
    ),
}

SKIPPED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a 1x1 icon": (lambda: encoded(Image.new("RGB", (1, 1)), "PNG"), "1x1 px, smaller than 64 px on a side"),
    "one side too short": (
        lambda: encoded(noise(500, 63), "JPEG"),
        "500x63 px, smaller than 64 px on a side",
    ),
    "a tracking GIF": (lambda: encoded(Image.new("P", (1, 1)), "GIF"), "1x1 px, smaller than"),
}

SOUND: dict[str, tuple[Callable[[], bytes], ImageInfo]] = {
    "exactly 64 px": (lambda: encoded(noise(64, 64), "PNG"), ImageInfo("PNG", 64, 64)),
    "exactly the pixel limit": (
        lambda: encoded(Image.new("L", (1000, 1000)), "PNG"),
        ImageInfo("PNG", 1000, 1000),
    ),
    "a JPEG with garbage behind it": (
        lambda: encoded(noise(), "JPEG") + b"trailing garbage",
        ImageInfo("JPEG", 96, 96),
    ),
    "a mid-grey JPEG": (
        lambda: encoded(Image.new("RGB", (96, 96), (128, 128, 128)), "JPEG"),
        ImageInfo("JPEG", 96, 96),
    ),
    "a multi-picture JPEG": (
        lambda: encoded(noise(), "MPO", save_all=True, append_images=[noise(seed=2)]),
        ImageInfo("JPEG", 96, 96),
    ),
    "a PNG without its end chunk": (lambda: encoded(noise(), "PNG")[:-12], ImageInfo("PNG", 96, 96)),
    "an animated WebP": (
        lambda: encoded(noise(), "WEBP", save_all=True, append_images=[noise(seed=2)]),
        ImageInfo("WEBP", 96, 96),
    ),
    "an image turned by EXIF": (lambda: _turned(), ImageInfo("JPEG", 70, 96)),
    "broken EXIF": (
        lambda: encoded(noise(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"),
        ImageInfo("JPEG", 96, 96),
    ),
}


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(96, 70), "JPEG", exif=exif)


@pytest.mark.parametrize("name", REJECTED)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about cut TIFFs
def test_a_bad_image_is_rejected_with_its_reason(name: str) -> None:
    make, reason = REJECTED[name]
    with pytest.raises(ImageRejected) as caught:
        inspect_image(make(), LIMITS)
    assert reason in caught.value.message


@pytest.mark.parametrize("name", SKIPPED)
def test_a_small_image_is_skipped_with_its_size(name: str) -> None:
    make, reason = SKIPPED[name]
    with pytest.raises(ImageSkipped) as caught:
        inspect_image(make(), LIMITS)
    assert reason in caught.value.message


@pytest.mark.parametrize("name", SOUND)
def test_an_odd_but_sound_image_is_accepted(name: str) -> None:
    make, info = SOUND[name]
    assert inspect_image(make(), LIMITS) == info


def test_a_small_but_broken_image_is_rejected_and_not_skipped() -> None:
    with pytest.raises(ImageRejected):
        inspect_image(_cut(encoded(noise(32, 32), "PNG")), LIMITS)


def test_decoding_rejects_what_validation_rejects() -> None:
    with pytest.raises(ImageRejected, match="truncated JPEG"):
        decode_rgb(_cut(encoded(noise(), "JPEG")), 1_000_000)
    with pytest.raises(ImageRejected, match="max_image_pixels"):
        decode_rgb(encoded(noise(), "JPEG"), 96 * 96 - 1)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_cut_anywhere_in_its_picture_is_rejected(image_format: str) -> None:
    data = encoded(noise(), image_format)
    for share in np.linspace(0.02, 0.98, 25):
        with pytest.raises(ImageRejected):
            inspect_image(_cut(data, float(share)), LIMITS)
