"""The catalogue: real PDFs that hold the text and images promised, faults included, and a second write that rests."""

import json
from io import BytesIO
from pathlib import Path

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_raw
import pytest
from PIL import Image

from embedding_assets.demo.catalogue import catalogue_products, write_demo_catalogue
from embedding_assets.demo.faults import BOMB_SIDE
from embedding_assets.demo.manifest import CatalogueManifest
from embedding_assets.demo.queries import DEMO_QUERIES, draw_image_query
from embedding_assets.demo.swatches import draw_swatch


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> CatalogueManifest:
    return write_demo_catalogue(tmp_path_factory.mktemp("catalogue") / "landing")


def pdf_names(manifest: CatalogueManifest) -> list[str]:
    return [name for name in manifest.documents if name.endswith(".pdf")]


def page_images(page: pdfium.PdfPage) -> list[pdfium.PdfImage]:
    return list(page.get_objects(filter=[pdfium_raw.FPDF_PAGEOBJ_IMAGE]))


def test_five_pdfs_and_a_folder_of_images_hold_150_to_200_good_images(manifest: CatalogueManifest) -> None:
    assert len(pdf_names(manifest)) == 5
    assert {path.name for path in manifest.root.iterdir()} == set(manifest.documents)
    assert 150 <= len(manifest.items) <= 200
    assert {Path(item.file).suffix for item in manifest.items if item.file} == {".jpg", ".png", ".webp"}


def test_each_page_shows_the_images_promised_where_they_are_promised(manifest: CatalogueManifest) -> None:
    for name in pdf_names(manifest):
        document = pdfium.PdfDocument(manifest.root / name)
        for number, page in enumerate(document, start=1):
            boxes = [tuple(image.get_bounds()) for image in page_images(page)]
            wanted = [item.bbox for item in manifest.items if (item.document, item.page) == (name, number)]
            faults = [fault for fault in manifest.planted if (fault.document, fault.page) == (name, number)]
            assert len(boxes) == len(wanted) + len(faults)
            for bbox in wanted:
                assert any(box == pytest.approx(bbox, abs=0.1) for box in boxes)
        document.close()


def test_the_text_layer_tells_name_code_size_slip_rating_and_finish_of_every_product(
    manifest: CatalogueManifest,
) -> None:
    for name in pdf_names(manifest):
        document = pdfium.PdfDocument(manifest.root / name)
        text = {number: page.get_textpage().get_text_range() for number, page in enumerate(document, start=1)}
        for item in manifest.items:
            if item.document != name or item.page is None:
                continue
            spec = item.spec
            parts = [spec.name, f"SKU {spec.sku}", spec.size, f"{spec.finish} finish", spec.material.title()]
            parts += [f"Slip rating {spec.slip_rating}"] if spec.slip_rating else []
            missing = [part for part in parts if part not in text[item.page]]
            assert not missing, (item.sku, missing)
        document.close()


def test_pdfs_hold_jpeg_and_lossless_cmyk_and_grayscale_images(manifest: CatalogueManifest) -> None:
    kinds = set()
    for name in pdf_names(manifest):
        document = pdfium.PdfDocument(manifest.root / name)
        for page in document:
            for image in page_images(page):
                kinds.update(image.get_filters())
                if image.get_filters() == ["DCTDecode"]:
                    kinds.add(Image.open(BytesIO(bytes(image.get_data(decode_simple=False)))).mode)
        document.close()
    assert kinds == {"DCTDecode", "FlateDecode", "RGB", "CMYK", "L"}
    assert {"CMYK", "L"} <= {item.mode for item in manifest.items}


def test_a_cmyk_swatch_keeps_its_colours_whether_read_raw_or_rendered_by_pdfium(
    manifest: CatalogueManifest,
) -> None:
    item = next(item for item in manifest.items if item.mode == "CMYK")
    assert item.page is not None
    assert item.bbox is not None
    original = draw_swatch(item.spec, 288, 1).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    page = pdfium.PdfDocument(manifest.root / item.document)[item.page - 1]
    image = next(i for i in page_images(page) if tuple(i.get_bounds()) == pytest.approx(item.bbox, abs=0.1))
    raw = Image.open(BytesIO(bytes(image.get_data(decode_simple=False)))).convert("RGB")
    rendered = image.get_bitmap(render=True).to_pil().convert("RGB")
    for read, tolerance in ((raw, 12), (rendered, 60)):  # pdfium's CMYK conversion imitates ink
        mean = read.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        assert mean == pytest.approx(original, abs=tolerance)


def test_the_same_swatch_stands_twice_in_one_document_with_the_same_bytes(
    manifest: CatalogueManifest,
) -> None:
    again = next(item for item in manifest.items if item.repeat)
    first = next(item for item in manifest.items if item.sku == again.sku and not item.repeat)
    assert first.document == again.document
    assert first.page != again.page
    document = pdfium.PdfDocument(manifest.root / first.document)
    data = []
    for item in (first, again):
        assert item.page is not None
        data.append(
            bytes(page_images(document[item.page - 1])[item.position - 1].get_data(decode_simple=False))
        )
    assert data[0] == data[1]


def test_the_truncated_jpeg_comes_back_from_its_pdf_as_it_is_and_will_not_decode(
    manifest: CatalogueManifest,
) -> None:
    fault = next(fault for fault in manifest.planted if fault.kind == "truncated_jpeg")
    assert fault.page is not None
    page = pdfium.PdfDocument(manifest.root / fault.document)[fault.page - 1]
    broken = []
    for image in page_images(page):
        data = bytes(image.get_data(decode_simple=False))
        if data.startswith(b"\xff\xd8") and not data.endswith(b"\xff\xd9"):
            broken.append(data)
    assert len(broken) == 1
    with pytest.raises(OSError, match="truncated"):
        Image.open(BytesIO(broken[0])).load()


def test_the_bomb_is_tiny_and_declares_more_pixels_than_pillow_opens(manifest: CatalogueManifest) -> None:
    fault = next(fault for fault in manifest.planted if fault.kind == "decompression_bomb")
    assert fault.file is not None
    path = manifest.root / fault.document / fault.file
    assert path.stat().st_size < 1000
    assert int.from_bytes(path.read_bytes()[16:20], "big") == BOMB_SIDE
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


def test_icons_of_one_pixel_stand_on_every_page_of_one_document(manifest: CatalogueManifest) -> None:
    icons = [fault for fault in manifest.planted if fault.kind == "icon"]
    document = pdfium.PdfDocument(manifest.root / icons[0].document)
    assert [icon.page for icon in icons] == list(range(1, len(document) + 1))
    for page in document:
        assert (
            sum((i.get_metadata().width, i.get_metadata().height) == (1, 1) for i in page_images(page)) == 1
        )


def test_every_document_can_reach_the_minimum_coverage_in_spite_of_its_faults(
    manifest: CatalogueManifest,
) -> None:
    for name in manifest.documents:
        good = sum(item.document == name for item in manifest.items)
        rejected = sum(fault.document == name and fault.outcome == "rejected" for fault in manifest.planted)
        assert good / (good + rejected) >= 0.95


def test_every_query_of_the_demo_has_at_least_three_right_answers(manifest: CatalogueManifest) -> None:
    assert len(DEMO_QUERIES) == 5
    for query in DEMO_QUERIES:
        assert len({item.sku for item in manifest.items if query.fits(item.spec)}) >= 3, query.text


def test_the_image_query_shows_a_catalogue_product_but_another_piece_of_it(
    manifest: CatalogueManifest,
) -> None:
    spec = manifest.spec(manifest.image_query_sku)
    assert draw_image_query(spec).tobytes() != draw_swatch(spec, 320, 1).tobytes()
    with pytest.raises(KeyError):
        manifest.spec("NO-SUCH-SKU")


def test_a_second_write_changes_nothing_and_returns_the_same_truth(manifest: CatalogueManifest) -> None:
    before = {path: path.stat().st_mtime_ns for path in manifest.root.rglob("*")}
    again = write_demo_catalogue(manifest.root.parent)
    assert again.written == ()
    assert len(manifest.written) == len(manifest.sha256)
    assert (again.items, again.planted, again.sha256) == (manifest.items, manifest.planted, manifest.sha256)
    assert {path: path.stat().st_mtime_ns for path in manifest.root.rglob("*")} == before


def test_a_changed_file_alone_is_written_anew_with_the_same_bytes(manifest: CatalogueManifest) -> None:
    name = "showroom/0001.png"
    target = manifest.root / name
    original, other = target.read_bytes(), (manifest.root / "natural-stone.pdf").stat().st_mtime_ns
    target.write_bytes(b"damaged")
    assert write_demo_catalogue(manifest.root.parent).written == (name,)
    assert target.read_bytes() == original
    assert (manifest.root / "natural-stone.pdf").stat().st_mtime_ns == other
    assert not list(manifest.root.rglob(".*"))


def test_the_truth_lies_outside_the_landing_folder_and_reads_as_json(manifest: CatalogueManifest) -> None:
    assert not manifest.truth_path.is_relative_to(manifest.root.parent)
    truth = json.loads(manifest.truth_path.read_bytes())
    assert len(truth["items"]) == len(manifest.items)
    assert [query["text"] for query in truth["queries"]] == [query.text for query in DEMO_QUERIES]
    with pytest.raises(ValueError, match="outside"):
        write_demo_catalogue(manifest.root.parent, truth_path=manifest.root / "truth.json")


def test_no_product_stands_in_two_documents() -> None:
    skus = [product.sku for products in catalogue_products().values() for product in products]
    assert len(skus) == len(set(skus))
