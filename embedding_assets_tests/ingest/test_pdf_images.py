"""The raster images of a PDF come out as the page shows them."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen import canvas

from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.records import ImageStatus
from embedding_assets_tests.ingest.pdf_writer import PdfWriter, draw
from embedding_assets_tests.ingest.reading import LIMITS, read_pdf, stored
from embedding_assets_tests.ingest.samples import QUARTERS, corners, encoded, noise, quarters

RAW = np.asarray(quarters()).tobytes()


def _near(
    got: list[tuple[int, int, int]], expected: tuple[tuple[int, int, int], ...] = QUARTERS, by: int = 12
) -> bool:
    return bool(np.abs(np.array(got, int) - np.array(expected, int)).max() <= by)


def test_page_order_and_box_of_each_image_are_found(tmp_path: Path) -> None:
    pdf = PdfWriter()
    names = {name: pdf.jpeg(96, 96, encoded(noise(seed=ord(name)), "JPEG")) for name in "ABCD"}
    # Drawn in another order than a reader sees them; A and B stand in one row, B a little higher.
    pdf.page(draw("D", 50, 100, 96, 96) + draw("B", 300, 610, 96, 96) + draw("A", 50, 600, 96, 96), names)
    pdf.page(draw("C", 20, 30, 48, 96), names)
    found = read_pdf(tmp_path, pdf.bytes())
    assert [image.status for image in found] == [ImageStatus.READY] * 4
    assert [(image.page_number, image.position, image.bbox) for image in found] == [
        (1, 0, (50, 600, 146, 696)),
        (1, 1, (300, 610, 396, 706)),
        (1, 2, (50, 100, 146, 196)),
        (2, 0, (20, 30, 68, 126)),
    ]
    assert [image.index for image in found] == [0, 1, 2, 3]
    assert found[3].reference == "page 2, image 1"


def test_a_jpeg_is_kept_byte_for_byte(tmp_path: Path) -> None:
    jpeg = encoded(noise(), "JPEG", quality=80)
    pdf = PdfWriter()
    pdf.page(draw("A", 0, 0, 96, 96), {"A": pdf.jpeg(96, 96, jpeg)})
    (found,) = read_pdf(tmp_path, pdf.bytes())
    assert found.content_hash == hashlib.sha256(jpeg).hexdigest()
    assert ImageStore(str(tmp_path / "store")).get(found.store_key or "") == jpeg


def test_a_jpeg_behind_a_text_filter_is_kept_byte_for_byte(tmp_path: Path) -> None:
    jpeg = encoded(noise(), "JPEG")
    out = io.BytesIO()
    page = canvas.Canvas(out)  # reportlab writes /ASCII85Decode /DCTDecode
    page.drawImage(ImageReader(io.BytesIO(jpeg)), 100, 100, 96, 96)
    page.save()
    (found,) = read_pdf(tmp_path, out.getvalue())
    assert found.image_format == "JPEG"
    assert _near(corners(stored(tmp_path, found)), tuple(corners(noise().convert("RGB"))), by=80)


PLACEMENTS = [
    ("96 0 0 96 200 200", 0),
    ("-96 0 0 96 300 200", 0),
    ("-96 0 0 -96 300 300", 0),
    ("96 0 0 -96 200 300", 0),
    ("0 -96 -96 0 300 300", 0),
    ("0 -96 96 0 200 300", 0),
    ("0 96 96 0 200 200", 0),
    ("0 96 -96 0 300 200", 0),
    ("96 0 0 96 200 200", 90),
    ("96 0 0 96 200 200", 180),
    ("96 0 0 96 200 200", 270),
    ("0 96 -96 0 300 200", 90),
]


@pytest.mark.parametrize("kind", ["jpeg", "samples", "jpeg with its own EXIF"])
def test_an_image_is_turned_as_the_page_shows_it(tmp_path: Path, kind: str) -> None:
    pdf = PdfWriter()
    if kind == "samples":
        number = pdf.image(96, 96, RAW)
    else:
        exif = Image.Exif()
        if kind != "jpeg":
            exif[0x0112] = 6
        number = pdf.jpeg(96, 96, encoded(quarters(), "JPEG", quality=95, subsampling=0, exif=exif))
    for matrix, rotation in PLACEMENTS:
        pdf.page(f"q {matrix} cm /A Do Q", {"A": number}, more=f"/Rotate {rotation}")
    pages = pypdfium2.PdfDocument(pdf.bytes())
    found = read_pdf(tmp_path, pdf.bytes())
    assert len(found) == len(PLACEMENTS)
    for page, image, placement in zip(pages, found, PLACEMENTS, strict=True):
        shown = page.render().to_pil().convert("RGB")
        coloured = np.argwhere((np.asarray(shown) != 255).any(axis=2))
        (top, left), (bottom, right) = coloured.min(axis=0), coloured.max(axis=0) + 1
        expected = corners(shown.crop((left, top, right, bottom)))
        assert _near(corners(stored(tmp_path, image)), tuple(expected), by=16), placement


def test_images_in_nested_forms_are_found_with_their_place_on_the_page(tmp_path: Path) -> None:
    pdf = PdfWriter()
    image = pdf.image(96, 96, RAW)
    inner = pdf.form(draw("I", 10, 10, 96, 96), f"/XObject << /I {image} 0 R >>", matrix="1 0 0 1 5 5")
    outer = pdf.form("q 2 0 0 2 50 0 cm /N Do Q", f"/XObject << /N {inner} 0 R >>")
    pdf.page("q 1 0 0 1 100 300 cm /O Do Q", {"O": outer})
    (found,) = read_pdf(tmp_path, pdf.bytes())
    assert found.bbox == (180, 330, 372, 522)


def test_inline_images_are_found(tmp_path: Path) -> None:
    pdf = PdfWriter()
    pdf.page(b"q 96 0 0 96 40 40 cm BI /W 96 /H 96 /CS /RGB /BPC 8 ID " + RAW + b" EI Q")
    (found,) = read_pdf(tmp_path, pdf.bytes())
    assert _near(corners(stored(tmp_path, found)), by=0)


@pytest.mark.parametrize("base", ["samples", "jpeg"])
@pytest.mark.parametrize("clip", ["", "60 60 20 20 re W n "])
def test_a_transparency_mask_lays_the_whole_image_on_white(tmp_path: Path, base: str, clip: str) -> None:
    pdf = PdfWriter()
    opaque = np.full((96, 96), 255, np.uint8)
    opaque[:48, :48] = 0
    mask = pdf.image(96, 96, opaque.tobytes(), colorspace="/DeviceGray")
    more = f"/SMask {mask} 0 R"
    jpeg = encoded(quarters(), "JPEG", quality=95, subsampling=0)
    image = pdf.image(96, 96, RAW, more=more) if base == "samples" else pdf.jpeg(96, 96, jpeg, more=more)
    pdf.page(clip + draw("A", 50, 50, 192, 48), {"A": image})
    (found,) = read_pdf(tmp_path, pdf.bytes())
    assert found.image_format == "PNG"
    image_out = stored(tmp_path, found)
    assert image_out.size == (96, 96)
    assert _near(corners(image_out), ((255, 255, 255), *QUARTERS[1:]))


def test_an_unmasked_jpeg_stays_itself_beside_masked_images_and_under_a_clip(tmp_path: Path) -> None:
    pdf = PdfWriter()
    mask = pdf.image(96, 96, bytes(96 * 96), colorspace="/DeviceGray")
    masked = pdf.image(96, 96, RAW, more=f"/SMask {mask} 0 R")
    jpeg = encoded(noise(), "JPEG")
    names = {"M": masked, "J": pdf.jpeg(96, 96, jpeg)}
    pdf.page(
        "q 310 310 30 30 re W n " + draw("J", 300, 300, 96, 96) + "Q " + draw("M", 50, 50, 96, 96), names
    )
    first, second = read_pdf(tmp_path, pdf.bytes())
    assert first.content_hash == hashlib.sha256(jpeg).hexdigest()
    assert corners(stored(tmp_path, second)) == [(255, 255, 255)] * 4


def test_a_cmyk_jpeg_has_the_colours_of_the_page(tmp_path: Path) -> None:
    cmyk = quarters().convert("CMYK")
    pdf = PdfWriter()
    # Pillow writes CMYK JPEGs inverted, as Adobe does; /Decode says so in the PDF.
    data = encoded(cmyk, "JPEG", quality=95)
    inverted = pdf.jpeg(96, 96, data, colorspace="/DeviceCMYK", more="/Decode [1 0 1 0 1 0 1 0]")
    pdf.page(draw("A", 50, 50, 96, 96), {"A": inverted})
    (found,) = read_pdf(tmp_path, pdf.bytes())
    shown = pypdfium2.PdfDocument(pdf.bytes())[0].render().to_pil().convert("RGB")
    expected = corners(shown.crop((50, 800 - 146, 146, 800 - 50)))
    assert _near(corners(stored(tmp_path, found)), tuple(expected))


@pytest.mark.parametrize(
    ("colorspace", "bits", "samples", "expected"),
    [
        ("/DeviceGray", 8, b"\x40" * 9216, (64, 64, 64)),
        ("/DeviceGray", 1, b"\xff" * (12 * 96), (255, 255, 255)),
        ("/DeviceGray", 4, b"\x77" * (48 * 96), (119, 119, 119)),
        ("/DeviceGray", 16, b"\x40\x00" * 9216, (64, 64, 64)),
        ("[/Indexed /DeviceRGB 1 <0a141e ff8000>]", 8, b"\x01" * 9216, (255, 128, 0)),
        ("[/Indexed /DeviceRGB 1 <0a141e ff8000>]", 1, b"\xff" * (12 * 96), (255, 128, 0)),
        ("/DeviceCMYK", 8, b"\x00\x00\x00\xff" * 9216, None),
        ("[/CalRGB << /WhitePoint [0.95 1 1.09] >>]", 8, b"\xff\xff\xff" * 9216, (255, 255, 255)),
    ],
)
def test_every_colour_space_becomes_rgb(
    tmp_path: Path, colorspace: str, bits: int, samples: bytes, expected: tuple[int, int, int] | None
) -> None:
    pdf = PdfWriter()
    pdf.page(draw("A", 0, 0, 96, 96), {"A": pdf.image(96, 96, samples, colorspace=colorspace, bits=bits)})
    (found,) = read_pdf(tmp_path, pdf.bytes())
    colour = stored(tmp_path, found).getpixel((48, 48))
    assert isinstance(colour, tuple)
    assert _near([colour], (expected,), by=2) if expected else max(colour) < 60  # type: ignore[list-item,arg-type]


def test_jpeg_2000_is_stored_as_png(tmp_path: Path) -> None:
    data = encoded(quarters(), "JPEG2000", irreversible=False)
    pdf = PdfWriter()
    pdf.page(draw("A", 0, 0, 96, 96), {"A": pdf.image(96, 96, data, filters="/JPXDecode")})
    (found,) = read_pdf(tmp_path, pdf.bytes())
    assert found.image_format == "PNG"
    assert _near(corners(stored(tmp_path, found)), by=2)


def test_one_picture_on_many_pages_is_many_images_of_one_file(tmp_path: Path) -> None:
    pdf = PdfWriter()
    logo, photo = pdf.image(96, 96, RAW), pdf.jpeg(96, 96, encoded(noise(), "JPEG"))
    for _ in range(5):
        pdf.page(draw("L", 0, 700, 96, 96) + draw("P", 0, 100, 96, 96), {"L": logo, "P": photo})
    found = read_pdf(tmp_path, pdf.bytes())
    assert len(found) == 10
    assert len({image.store_key for image in found}) == 2
    assert [image.page_number for image in found] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_equal_samples_with_other_palettes_are_other_images(tmp_path: Path) -> None:
    pdf = PdfWriter()
    red, blue = (
        pdf.image(96, 96, bytes(9216), colorspace=f"[/Indexed /DeviceRGB 0 <{colour}>]")
        for colour in ("ff0000", "0000ff")
    )
    pdf.page(draw("R", 0, 0, 96, 96) + draw("B", 200, 0, 96, 96), {"R": red, "B": blue})
    first, second = read_pdf(tmp_path, pdf.bytes())
    assert first.content_hash != second.content_hash


VERDICTS = {
    "a truncated JPEG": (
        lambda pdf: pdf.jpeg(96, 96, encoded(noise(), "JPEG")[:4000]),
        ImageStatus.REJECTED,
        "truncated JPEG",
    ),
    "a truncated CMYK JPEG": (
        lambda pdf: pdf.jpeg(
            96, 96, encoded(noise().convert("CMYK"), "JPEG")[:4000], colorspace="/DeviceCMYK"
        ),
        ImageStatus.REJECTED,
        "truncated JPEG",
    ),
    "no JPEG at all": (
        lambda pdf: pdf.jpeg(96, 96, b"this is no JPEG"),
        ImageStatus.REJECTED,
        "",
    ),
    "samples that end early": (
        lambda pdf: pdf.image(96, 96, RAW[:9000]),
        ImageStatus.REJECTED,
        "truncated: 96x96 px need 27648 bytes of samples, the PDF holds 9000",
    ),
    "a truncated JPEG 2000": (
        lambda pdf: pdf.image(96, 96, encoded(noise(), "JPEG2000")[:3000], filters="/JPXDecode"),
        ImageStatus.REJECTED,
        "truncated JPEG 2000",
    ),
    "a decompression bomb": (
        lambda pdf: pdf.image(30000, 30000, bytes(1000)),
        ImageStatus.REJECTED,
        "30000x30000 px are 900000000 pixels, more than the limit of 4000000 (max_image_pixels)",
    ),
    "a JPEG 2000 bomb that lies about its size": (
        lambda pdf: pdf.image(96, 96, _jpx_bomb(), filters="/JPXDecode"),
        ImageStatus.REJECTED,
        "60000x60000 px",
    ),
    "a 1x1 icon": (
        lambda pdf: pdf.image(1, 1, b"abc"),
        ImageStatus.SKIPPED,
        "1x1 px, smaller than 64 px on a side",
    ),
    "a stencil mask": (
        lambda pdf: pdf.image(96, 96, b"\xaa" * (12 * 96), colorspace="", bits=1, more="/ImageMask true"),
        ImageStatus.SKIPPED,
        "stencil mask",
    ),
}


def _jpx_bomb() -> bytes:
    data = encoded(noise(), "JPEG2000")
    at = data.index(b"\xff\x4f\xff\x51") + 8
    return data[:at] + (60000).to_bytes(4, "big") * 2 + data[at + 8 :]


@pytest.mark.parametrize("name", VERDICTS)
def test_a_bad_image_gets_its_verdict_and_its_neighbours_are_read(tmp_path: Path, name: str) -> None:
    make, status, reason = VERDICTS[name]
    pdf = PdfWriter()
    names = {"A": pdf.image(96, 96, RAW), "B": make(pdf), "C": pdf.jpeg(96, 96, encoded(noise(), "JPEG"))}
    pdf.page(draw("A", 0, 600, 96, 96) + draw("B", 0, 400, 96, 96) + draw("C", 0, 200, 96, 96), names)
    first, bad, last = read_pdf(tmp_path, pdf.bytes())
    assert (first.status, bad.status, last.status) == (ImageStatus.READY, status, ImageStatus.READY)
    assert reason in (bad.reason or "")
    assert bad.store_key is None
    assert bad.bbox == (0, 400, 96, 496)


def test_an_image_outside_the_visible_page_is_skipped(tmp_path: Path) -> None:
    pdf = PdfWriter()
    pdf.page(draw("A", 900, 0, 96, 96), {"A": pdf.image(96, 96, RAW)})
    (found,) = read_pdf(tmp_path, pdf.bytes())
    assert (found.status, found.reason) == (ImageStatus.SKIPPED, "lies outside the visible page")


def test_pages_mode_renders_every_page(tmp_path: Path) -> None:
    pdf = PdfWriter()
    pdf.page(draw("A", 0, 0, 96, 96), {"A": pdf.image(96, 96, RAW)})
    pdf.page("BT /F 20 Tf 50 700 Td (Only text here) Tj ET")
    limits = replace(LIMITS, pdf_images="pages", pdf_render_dpi=72)
    found = read_pdf(tmp_path, pdf.bytes(), limits)
    assert [(image.page_number, image.width, image.height) for image in found] == [
        (1, 600, 800),
        (2, 600, 800),
    ]
    assert found[1].nearby_text == "Only text here"


def test_auto_mode_renders_pages_without_a_usable_image_only(tmp_path: Path) -> None:
    pdf = PdfWriter()
    names = {"A": pdf.image(96, 96, RAW), "I": pdf.image(1, 1, b"abc")}
    pdf.page(draw("A", 0, 0, 96, 96), names)
    pdf.page(draw("I", 0, 0, 10, 10), names)
    found = read_pdf(tmp_path, pdf.bytes(), replace(LIMITS, pdf_images="auto", pdf_render_dpi=72))
    shown = [(image.page_number, image.status, image.width) for image in found]
    assert shown == [(1, ImageStatus.READY, 96), (2, ImageStatus.SKIPPED, None), (2, ImageStatus.READY, 600)]


def test_a_huge_page_is_rendered_within_the_pixel_limit(tmp_path: Path) -> None:
    pdf = PdfWriter()
    pdf.page("", size=(14400, 14400))
    limits = replace(LIMITS, pdf_images="pages", pdf_render_dpi=600, max_image_pixels=1_000_000)
    (found,) = read_pdf(tmp_path, pdf.bytes(), limits)
    assert found.status is ImageStatus.READY
    assert 900_000 < (found.width or 0) * (found.height or 0) <= 1_000_000


def test_reading_twice_gives_the_same_hashes(tmp_path: Path) -> None:
    pdf = PdfWriter()
    mask = pdf.image(96, 96, bytes([128]) * 9216, colorspace="/DeviceGray")
    names = {"A": pdf.image(96, 96, RAW), "M": pdf.image(96, 96, RAW, more=f"/SMask {mask} 0 R")}
    pdf.page(draw("A", 0, 0, 96, 96) + draw("M", 200, 0, 96, 96), names)
    limits = replace(LIMITS, pdf_images="auto")
    assert read_pdf(tmp_path, pdf.bytes(), limits) == read_pdf(tmp_path, pdf.bytes(), limits)
