"""Recognises an image file by its first bytes, before any library parses it."""

from __future__ import annotations

import struct

FORMATS = ("JPEG", "PNG", "WebP", "TIFF", "GIF", "BMP", "AVIF")
"""The formats that ingest reads, as they are named to people."""

_AVIF_BRANDS = {b"avif", b"avis"}

# What people put into catalogue folders by mistake; named so that the reason tells them what they have.
_OTHER_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x01\x00", "a Windows icon"),
    (b"%!PS", "PostScript"),
    (b"<svg", "SVG (a drawing, not pixels)"),
    (b"<?xml", "XML, perhaps SVG"),
    (b"<!DOC", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"\x1f\x8b", "gzip data"),
    (b"P6", "Netpbm"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)


def sniff_format(data: bytes) -> str | None:
    """Pillow's name of the format ("JPEG", "WEBP", ...), or None where it is none that ingest reads."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in {b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"}:
        return "TIFF"
    if data[:6] in {b"GIF87a", b"GIF89a"}:
        return "GIF"
    if data[:2] == b"BM":
        return "BMP"
    if data[4:8] == b"ftyp" and (data[8:12] in _AVIF_BRANDS or b"avif" in data[16 : _box_size(data)]):
        return "AVIF"
    return None


def describe_unknown(data: bytes) -> str:
    """What a file of no known format looks like, for its rejection."""
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, name in _OTHER_FORMATS:
        if start.lower().startswith(magic.lower()):
            return name
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace").strip()
        return "HEIC" if brand in {"heic", "heix", "mif1", "msf1"} else f"an ISO media file ({brand})"
    if not data.strip(b"\x00"):
        return "nothing but zero bytes"
    return f"a file that starts with the bytes {data[:8].hex(' ')}"


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP canvas in pixels, from its header; None where the header is no known one.

    libwebp allocates the canvas when a decoder is made, so the size has to be known before. Layout: RFC 9649,
    sections 2.5 to 2.7.
    """
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    if chunk == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)
    if chunk == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _box_size(data: bytes) -> int:
    return min(int.from_bytes(data[:4], "big"), 256)
