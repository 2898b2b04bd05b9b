"""Each image of a page gets the text of its own product, and not its neighbour's."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen import canvas

from embedding_assets.ingest.page_geometry import Box
from embedding_assets.ingest.page_lines import Line
from embedding_assets.ingest.page_text import MAX_NEARBY_CHARS, texts_near
from embedding_assets.ingest.records import FoundImage
from embedding_assets_tests.ingest.pdf_writer import PdfWriter, draw, text
from embedding_assets_tests.ingest.reading import read_pdf
from embedding_assets_tests.ingest.samples import encoded, noise

PAGE = Box(0, 0, 600, 800)


def _catalogue(caption: str, columns: int = 3, rows: int = 3) -> bytes:
    """A grid of products: image with name, size and rating below, above or beside it; a heading and a page number."""
    out = io.BytesIO()
    page = canvas.Canvas(out, pagesize=(600, 800))
    page.setFont("Helvetica-Bold", 16)
    page.drawString(40, 765, "Floor tiles 2024")
    for place in range(columns * rows):
        column, row = place % columns, place // columns
        left, top = 40 + column * 180, 740 - row * 235
        image = ImageReader(io.BytesIO(encoded(noise(seed=place), "JPEG")))
        lines = [f"Product {place}", f"{place}0x120 cm", f"R{place} matt", f"Article 4711-{place}"]
        if caption == "beside":
            page.drawImage(image, left, top - 100, 80, 100)
            x, y = left + 88, top - 10
        elif caption == "above":
            page.drawImage(image, left, top - 210, 150, 150)
            x, y = left, top - 10
        else:
            page.drawImage(image, left, top - 150, 150, 150)
            x, y = left, top - 163
        for number, line in enumerate(lines):
            page.setFont("Helvetica-Bold" if number == 0 else "Helvetica", 10)
            page.drawString(x, y - 13 * number, line)
    page.setFont("Helvetica", 9)
    page.drawString(295, 20, "17")
    page.save()
    return out.getvalue()


def _of_product(image: FoundImage) -> set[str]:
    return {line for line in (image.nearby_text or "").split("\n") if line.startswith("Product")}


@pytest.mark.parametrize("caption", ["below", "above", "beside"])
def test_in_a_grid_each_image_has_its_own_products_text(tmp_path: Path, caption: str) -> None:
    found = read_pdf(tmp_path, _catalogue(caption))
    assert len(found) == 9
    for place, image in enumerate(found):
        assert _of_product(image) == {f"Product {place}"}
        assert image.nearby_text is not None
        for detail in (f"{place}0x120 cm", f"R{place} matt", f"Article 4711-{place}"):
            assert detail in image.nearby_text.split("\n")


@pytest.mark.parametrize("caption", ["below", "beside"])
def test_the_products_name_is_the_caption(tmp_path: Path, caption: str) -> None:
    found = read_pdf(tmp_path, _catalogue(caption))
    assert [image.caption for image in found] == [f"Product {place}" for place in range(9)]


def test_a_numbered_caption_wins_and_is_read_to_its_end(tmp_path: Path) -> None:
    pdf = PdfWriter()
    content = (
        draw("A", 100, 500, 300, 200)
        + text(100, 710, "Figure 4: Oak, oiled, seen from above,")
        + text(100, 698 + 0.5, "")
        + text(100, 484, "Copyright the maker")
    )
    pdf.page(content, {"A": pdf.jpeg(96, 96, encoded(noise(), "JPEG"))})
    (found,) = read_pdf(tmp_path, pdf.bytes())
    assert found.caption == "Figure 4: Oak, oiled, seen from above,"


def test_text_on_a_turned_page_is_found_below_the_image_as_the_reader_sees_it(tmp_path: Path) -> None:
    pdf = PdfWriter()
    # On a page with /Rotate 90, "below" is to the right in the page's own coordinates.
    content = (
        "q 0 100 -100 0 300 400 cm /A Do Q\n"
        "BT /F 10 Tf 0 1 -1 0 315 400 Tm (Walnut 30x60 cm) Tj ET\n"
        "BT /F 10 Tf 0 1 -1 0 50 400 Tm (Something far away) Tj ET\n"
    )
    pdf.page(content, {"A": pdf.jpeg(96, 96, encoded(noise(), "JPEG"))}, more="/Rotate 90")
    (found,) = read_pdf(tmp_path, pdf.bytes())
    assert (found.caption, found.nearby_text) == ("Walnut 30x60 cm", "Walnut 30x60 cm")
    assert found.bbox == (200, 400, 300, 500)


def test_a_page_without_text_gives_none(tmp_path: Path) -> None:
    pdf = PdfWriter()
    pdf.page(draw("A", 100, 500, 300, 200), {"A": pdf.jpeg(96, 96, encoded(noise(), "JPEG"))})
    (found,) = read_pdf(tmp_path, pdf.bytes())
    assert (found.caption, found.nearby_text) == (None, None)


def _line(words: str, left: float, bottom: float, width: float = 100, height: float = 10) -> Line:
    return Line(words, Box(left, bottom, left + width, bottom + height))


def test_nearby_text_is_bounded_and_keeps_the_nearest_lines() -> None:
    lines = [_line(f"line {number} " + "x" * 50, 100, 480 - 11 * number, 300) for number in range(40)]
    (near,) = texts_near([Box(100, 500, 400, 700)], [True], lines, PAGE)
    assert near.nearby is not None
    assert MAX_NEARBY_CHARS - 70 < len(near.nearby) <= MAX_NEARBY_CHARS
    assert near.nearby.startswith("line 0 ")


def test_a_heading_over_several_images_is_shared_by_them() -> None:
    images = [Box(50, 500, 200, 650), Box(250, 500, 400, 650)]
    heading = _line("Series Oak, slip rating R10", 50, 660, 350)
    first, second = texts_near(images, [True, True], [heading], PAGE)
    assert first.nearby == second.nearby == "Series Oak, slip rating R10"


def test_a_background_image_does_not_take_the_text_of_the_products_on_it() -> None:
    images = [PAGE, Box(100, 400, 250, 550)]
    background, product = texts_near(images, [True, True], [_line("Slate 60x60", 100, 385)], PAGE)
    assert (background.nearby, product.nearby) == (None, "Slate 60x60")


def test_icons_do_not_take_text_from_images() -> None:
    images = [Box(100, 400, 250, 550), Box(100, 375, 110, 385)]
    photo, icon = texts_near(images, [True, False], [_line("Slate 60x60", 112, 375)], PAGE)
    assert (photo.caption, icon.nearby) == ("Slate 60x60", None)


def test_text_far_away_belongs_to_no_image() -> None:
    (near,) = texts_near([Box(100, 600, 250, 750)], [True], [_line("Terms and conditions", 100, 40)], PAGE)
    assert (near.caption, near.nearby) == (None, None)


def test_page_numbers_and_prices_are_no_captions() -> None:
    lines = [_line("17", 100, 585, 10), _line("49.90", 100, 565, 30)]
    (near,) = texts_near([Box(100, 600, 250, 750)], [True], lines, PAGE)
    assert near.caption is None
    assert near.nearby == "17\n49.90"
