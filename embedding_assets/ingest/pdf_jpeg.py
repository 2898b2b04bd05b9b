"""JPEG and JPEG 2000 files as PDFs hold them: read from their markers, without decoding."""

from __future__ import annotations

import io
import struct

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from embedding_assets.ingest.to_rgb import exif_orientation

_APP1 = 0xE1
_SOS = 0xDA


def read_jpeg_header(data: bytes) -> JpegImageFile | None:
    """Size, mode and metadata of a JPEG; None where the header can't be read."""
    try:
        return JpegImageFile(io.BytesIO(data), "")
    except Exception:  # noqa: BLE001 (Pillow raises many types; the decoder says later what is wrong)
        return None


def with_orientation(data: bytes, wanted: int) -> bytes:
    """A JPEG that a viewer turns as `wanted` says, pixels untouched.

    PDF viewers ignore EXIF inside a PDF and draw the stored pixels by the page's matrix; so the file's own EXIF
    orientation has to go, and the one by which the page shows it has to come in. Where the two agree, the bytes
    stay as they are.

    Args:
        data: a JPEG file whose header can be read.
        wanted: EXIF orientation, 1 to 8.
    """
    header = read_jpeg_header(data)
    if header is None or exif_orientation(header) == wanted:
        return data
    exif = b""
    if wanted != 1:
        tags = Image.Exif()
        tags[0x0112] = wanted
        payload = tags.tobytes()
        payload = payload if payload.startswith(b"Exif\x00\x00") else b"Exif\x00\x00" + payload
        exif = struct.pack(">BBH", 0xFF, _APP1, len(payload) + 2) + payload
    return data[:2] + exif + _without_app1(data[2:])


def _without_app1(segments: bytes) -> bytes:
    """Drops the EXIF and XMP segments (both may hold an orientation) before the scan data."""
    kept = bytearray()
    at = 0
    while at + 4 <= len(segments) and segments[at] == 0xFF and segments[at + 1] != _SOS:
        if segments[at + 1] == 0xFF:  # fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(segments[at + 2 : at + 4], "big")
        if segments[at + 1] != _APP1:
            kept += segments[at:end]
        at = end
    return bytes(kept) + segments[at:]


def jpx_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels that a JPEG 2000 codestream declares (ISO 15444-1, A.5.1); None if it has none."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    return right - left, bottom - top


def jpx_is_whole(data: bytes) -> bool:
    """Whether a JPEG 2000 codestream has its end marker; decoders fill in what a cut one lacks."""
    return b"\xff\xd9" in data[-64:]
