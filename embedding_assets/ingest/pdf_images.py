"""One raster image of a PDF page becomes an image file, or a verdict. Runs in the PDF worker only.

- A JPEG stays the file that it is, byte for byte, unless the page shows other pixels than the file holds: CMYK
  (PDF and JPEG viewers disagree on inversion), spot and Lab colours, a transparency mask, an inverted /Decode.
- Anything else is decoded by pdfium and stored as PNG, laid on white where it has a transparency mask.
- It is turned as the displayed page shows it: a JPEG by its EXIF orientation, pixels by transposing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import zlib
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, BinaryIO

import pypdfium2.raw as pdfium_c
from PIL import Image
from pypdfium2 import PdfiumError

from embedding_assets.errors import ImageRejected, ImageSkipped
from embedding_assets.ingest.decode import check_byte_size, check_pixels, decode_rgb
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.pdf_clip import unclipped
from embedding_assets.ingest.pdf_jpeg import jpx_is_whole, jpx_size, read_jpeg_header, with_orientation
from embedding_assets.ingest.to_rgb import TRANSPOSE_FOR_ORIENTATION

PNG_COMPRESSION = 3
"""zlib level: level 6 takes four times as long for files a tenth smaller."""

_SIMPLE_FILTERS = {"ASCIIHexDecode", "ASCII85Decode", "RunLengthDecode", "FlateDecode", "LZWDecode"}
_GREY_OR_RGB = {
    pdfium_c.FPDF_COLORSPACE_DEVICEGRAY,
    pdfium_c.FPDF_COLORSPACE_DEVICERGB,
    pdfium_c.FPDF_COLORSPACE_CALGRAY,
    pdfium_c.FPDF_COLORSPACE_CALRGB,
    pdfium_c.FPDF_COLORSPACE_ICCBASED,
}
_ONE_SAMPLE = {
    pdfium_c.FPDF_COLORSPACE_DEVICEGRAY,
    pdfium_c.FPDF_COLORSPACE_CALGRAY,
    pdfium_c.FPDF_COLORSPACE_INDEXED,
    pdfium_c.FPDF_COLORSPACE_SEPARATION,
}
_THREE_SAMPLES = {
    pdfium_c.FPDF_COLORSPACE_DEVICERGB,
    pdfium_c.FPDF_COLORSPACE_CALRGB,
    pdfium_c.FPDF_COLORSPACE_LAB,
}

# A reference or a colour key; graphics states have /SMask with a dictionary or a name.
_MASK_ENTRY = re.compile(rb"/S?Mask\s*(?:\d+\s+\d+\s+R|\[)")
_INVERTED_DECODE = re.compile(rb"/Decode\s*\[\s*1")
_SCAN_BYTES = 1 << 22
_SCAN_OVERLAP = 64  # longer than either expression


@dataclass(frozen=True)
class DocumentTraits:
    """What a PDF's bytes say about all its images; pdfium's interface does not say it of each.

    Image dictionaries are never compressed, so a file without these words has no such image. A file with them
    may have: its images are then looked at one by one, which takes longer.

    Attributes:
        masks: some image may have a transparency mask.
        inverted: some image may have its samples inverted by /Decode.
    """

    masks: bool
    inverted: bool

    @classmethod
    def scan(cls, file: BinaryIO) -> DocumentTraits:
        """Looks through a PDF file, opened at its start, piece by piece: a memory map would count as memory."""
        masks = inverted = False
        tail = b""
        while piece := file.read(_SCAN_BYTES):
            window = tail + piece
            masks = masks or _MASK_ENTRY.search(window) is not None
            inverted = inverted or _INVERTED_DECODE.search(window) is not None
            tail = window[-_SCAN_OVERLAP:]
        return cls(masks, inverted)


@dataclass(frozen=True)
class ImageFile:
    """An image taken out of a PDF.

    Attributes:
        data: a complete image file; empty for one whose `digest` was in `known`.
        format: "JPEG" or "PNG".
        digest: stands for the picture: equal digests, equal files.
    """

    data: bytes
    format: str
    digest: bytes


def take_image(
    image: Any, turn: int, traits: DocumentTraits, limits: IngestLimits, known: Container[bytes]
) -> ImageFile:
    """Makes an image file of a pdfium image object.

    Args:
        image: a `pypdfium2.PdfImage` on a loaded page.
        turn: EXIF orientation by which the displayed page shows it.
        traits: of the whole PDF.
        limits: bytes, pixels and smallest side.
        known: digests of images taken before, which need not be encoded again.

    Raises:
        ImageRejected: over a limit, cut short, or pdfium can't decode it.
        ImageSkipped: smaller than the smallest side, or a stencil mask.
    """
    width, height = image.get_px_size()
    try:
        return _take(image, width, height, turn, traits, limits, known)
    except MemoryError:
        raise ImageRejected(
            f"{width}x{height} px need more memory than pdf_memory_mb={limits.pdf_memory_mb} allows"
        ) from None
    except PdfiumError as error:
        # Its text names objects by their address: not for a reason that should be the same each time.
        raise ImageRejected(
            f"{width}x{height} px in the PDF can't be decoded: the data are broken, or need more memory than "
            f"pdf_memory_mb={limits.pdf_memory_mb} allows"
        ) from error


def _take(
    image: Any,
    width: int,
    height: int,
    turn: int,
    traits: DocumentTraits,
    limits: IngestLimits,
    known: Container[bytes],
) -> ImageFile:
    check_pixels(width, height, limits.max_image_pixels)
    side = limits.min_image_side
    if min(width, height) < side:
        raise ImageSkipped(f"{width}x{height} px, smaller than {side} px on a side")
    filters = image.get_filters()
    complex_filters = [name for name in filters if name not in _SIMPLE_FILTERS]
    is_jpeg, is_jpx = complex_filters == ["DCTDecode"], complex_filters == ["JPXDecode"]
    data = b""
    if is_jpeg or is_jpx:
        check_byte_size(pdfium_c.FPDFImageObj_GetImageDataRaw(image, None, 0), limits)
        data = bytes(image.get_data(decode_simple=True))
    if is_jpx:
        _check_jpx(data, limits)
    metadata = image.get_metadata()
    space, bits = metadata.colorspace, metadata.bits_per_pixel
    if space == pdfium_c.FPDF_COLORSPACE_UNKNOWN and bits == 1:
        raise ImageSkipped("a stencil mask: it paints a shape in one colour and holds no picture")
    masked = _masked_pixels(image, width, height) if traits.masks else None
    if is_jpeg and masked is None:
        header = read_jpeg_header(data)
        shown_as_is = space in _GREY_OR_RGB and not traits.inverted
        if header is None or (shown_as_is and header.mode in {"L", "RGB"}):
            file = with_orientation(data, turn)
            return ImageFile(file, "JPEG", hashlib.sha256(file).digest())
    if is_jpeg:
        decode_rgb(data, limits.max_image_pixels)  # pdfium would fill in what a cut JPEG lacks
    elif not complex_filters:
        _check_samples(image, filters, width, height, space, bits)
    return _png(masked or image.get_bitmap().to_pil(), turn, known)


def _masked_pixels(image: Any, width: int, height: int) -> Image.Image | None:
    """The image laid on white by its transparency mask; None where it has none, or an opaque one."""
    original = image.get_matrix()
    image.set_matrix(type(original)(width, 0, 0, height, 0, 0))  # one point for each pixel, upright
    try:
        with unclipped(image, width, height):
            bitmap = image.get_bitmap(render=True, scale_to_original=False)
    finally:
        image.set_matrix(original)
    pixels: Image.Image = bitmap.to_pil()
    if pixels.mode != "RGBA" or pixels.getchannel("A").getextrema() == (255, 255):
        return None
    flat = Image.new("RGB", pixels.size, (255, 255, 255))
    flat.paste(pixels, mask=pixels.getchannel("A"))
    return flat


def _check_jpx(data: bytes, limits: IngestLimits) -> None:
    if size := jpx_size(data):
        check_pixels(size[0], size[1], limits.max_image_pixels)
    if not jpx_is_whole(data):
        raise ImageRejected("truncated JPEG 2000: the data in the PDF end before the image does")


def _check_samples(image: Any, filters: list[str], width: int, height: int, space: int, bits: int) -> None:
    """Rejects Flate data that end early: pdfium would show the missing rows black or white.

    Inflated here and only as far as needed, so that a stream which inflates without end costs no memory. Where
    pdfium does not tell the number of samples (DeviceN), or for other filters, nothing is checked.
    """
    if filters not in (["FlateDecode"], ["ASCII85Decode", "FlateDecode"]):
        return
    samples = 1 if space in _ONE_SAMPLE else 3 if space in _THREE_SAMPLES else 0
    samples = 4 if space == pdfium_c.FPDF_COLORSPACE_DEVICECMYK else samples
    if space == pdfium_c.FPDF_COLORSPACE_ICCBASED:
        samples = 1 if bits <= 8 else 3  # or 4: the check is then no stricter than it can be
    if not samples:
        return
    sizes = {depth: (width * samples * depth + 7) // 8 * height for depth in (1, 2, 4, 8)}
    whole = sizes[1] if bits == 1 else sizes[8]
    length = _inflated_length(bytes(image.get_data()), filters, whole)
    # pdfium does not tell the depth of a sample either: an exact fit for a smaller one is whole too. A predictor
    # adds one byte for each row; writers add a line end or two.
    exact = any(0 <= length - size - extra <= 8 for size in sizes.values() for extra in (0, height))
    if length < whole and not exact:
        raise ImageRejected(
            f"truncated: {width}x{height} px need {whole} bytes of samples, the PDF holds {length}"
        )


def _inflated_length(raw: bytes, filters: list[str], enough: int) -> int:
    if filters[0] == "ASCII85Decode":
        try:
            raw = base64.a85decode(raw.strip().removesuffix(b">").removesuffix(b"~"))
        except (ValueError, binascii.Error):
            return 0
    inflater = zlib.decompressobj(-15)  # without the 2-byte header and the checksum, as tolerant as pdfium
    pending, length = raw[2:], 0
    while pending and length < enough and not inflater.eof:
        try:
            length += len(inflater.decompress(pending, 1 << 20))
        except zlib.error:
            break
        pending = inflater.unconsumed_tail
    return length


def _png(pixels: Image.Image, turn: int, known: Container[bytes]) -> ImageFile:
    if pixels.mode not in {"L", "RGB"}:
        pixels = pixels.convert("RGB")
    method = TRANSPOSE_FOR_ORIENTATION.get(turn)
    if method is not None:
        pixels = pixels.transpose(method)
    digest = hashlib.sha256(f"{pixels.mode} {pixels.size}".encode())
    digest.update(pixels.tobytes())
    if digest.digest() in known:
        return ImageFile(b"", "PNG", digest.digest())
    return ImageFile(encode_png(pixels), "PNG", digest.digest())


def encode_png(pixels: Image.Image) -> bytes:
    """A PNG file; the same pixels give the same bytes (with the same zlib)."""
    out = io.BytesIO()
    pixels.save(out, "PNG", compress_level=PNG_COMPRESSION)
    return out.getvalue()
