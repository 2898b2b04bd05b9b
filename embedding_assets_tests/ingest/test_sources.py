"""Any document is read the same way, and its fingerprint changes exactly when what it yields may change."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from embedding_assets.errors import DocumentError, InfrastructureError
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.landing import LandingDocument, SourceKind
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.posted import PostedAccess
from embedding_assets.ingest.records import ImageStatus
from embedding_assets.ingest.sources import PostedDocument, document_fingerprint, read_document
from embedding_assets.keys import DocumentKey
from embedding_assets.settings import Settings
from embedding_assets_tests.ingest.pdf_writer import PdfWriter, draw
from embedding_assets_tests.ingest.reading import LIMITS, landing_document, read_all, store_beside
from embedding_assets_tests.ingest.samples import encoded, noise


def _pdf(path: Path, seed: int = 1) -> Path:
    pdf = PdfWriter()
    pdf.title("Oak and ash")
    pdf.page(draw("A", 0, 0, 96, 96), {"A": pdf.jpeg(96, 96, encoded(noise(seed=seed), "JPEG"))})
    path.write_bytes(pdf.bytes())
    return path


def _folder(path: Path) -> Path:
    for number, name in enumerate(["10.png", "2.png", "sub/1.jpg"]):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(encoded(noise(seed=number), "PNG" if name.endswith("png") else "JPEG"))
    return path


def _fingerprint(path: Path, limits: IngestLimits = LIMITS) -> str:
    return document_fingerprint(landing_document(path), limits)


def test_a_pdf_tells_its_title_and_pages_before_its_images(tmp_path: Path) -> None:
    path = _pdf(tmp_path / "oak.pdf")
    with read_document(landing_document(path), store_beside(path), LIMITS) as content:
        assert (content.title, content.page_count) == ("Oak and ash", 1)
        assert content.content_hash == _fingerprint(path)
        assert [image.status for image in content.images] == [ImageStatus.READY]


def test_a_single_image_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "lobby view.jpg"
    path.write_bytes(encoded(noise(), "JPEG"))
    with read_document(landing_document(path), store_beside(path), LIMITS) as content:
        (found,) = content.images
    assert (content.title, found.reference, found.image_format) == ("lobby view", "lobby view.jpg", "JPEG")
    assert store_beside(path).get(found.store_key or "") == path.read_bytes()


def test_a_folder_is_read_in_natural_order_with_bad_images_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _folder(tmp_path / "swatches")
    (path / "3 bad.jpg").write_bytes(encoded(noise(), "JPEG")[:3000])
    (path / "4 small.gif").write_bytes(encoded(noise(8, 8), "GIF"))
    (path / "5 text.png").write_bytes(b"no image")
    for name in (".hidden.png", "6.png.part", "captions.txt", "prices.csv"):
        (path / name).write_bytes(b"x")
    (tmp_path / "outside.png").write_bytes(encoded(noise(), "PNG"))
    (path / "7 gone.png").symlink_to(tmp_path.parent / "nothing.png")
    with caplog.at_level(logging.INFO):
        found = read_all(path)
    assert [(image.reference, image.status.value) for image in found] == [
        ("2.png", "ready"),
        ("3 bad.jpg", "rejected"),
        ("4 small.gif", "skipped"),
        ("5 text.png", "rejected"),
        ("7 gone.png", "rejected"),
        ("10.png", "ready"),
        ("sub/1.jpg", "ready"),
    ]
    assert [image.index for image in found] == list(range(7))
    assert "symlink that leads out" in (found[4].reason or "")
    assert "2 files are no images by their suffix: captions.txt, prices.csv" in caplog.text


def test_a_folder_without_images_is_a_document_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_bytes(b"x")
    document = LandingDocument(DocumentKey("shop", "empty"), SourceKind.FOLDER, str(tmp_path / "empty"))
    with pytest.raises(DocumentError, match="holds no image file"):
        document_fingerprint(document, LIMITS)


@pytest.mark.parametrize("kind", ["pdf", "folder", "image"])
def test_a_document_that_is_gone_is_a_document_error(tmp_path: Path, kind: str) -> None:
    document = LandingDocument(DocumentKey("shop", "x"), SourceKind(kind), str(tmp_path / "gone"))
    with pytest.raises(DocumentError, match="is not there"):
        read_document(document, ImageStore(str(tmp_path / "store")), LIMITS)


def test_a_folders_fingerprint_follows_names_and_bytes_only(tmp_path: Path) -> None:
    path = _folder(tmp_path / "swatches")
    before = _fingerprint(path)
    (path / "notes.txt").write_bytes(b"x")
    (path / "2.png").touch()
    assert _fingerprint(path) == before
    (path / "2.png").rename(path / "3.png")
    renamed = _fingerprint(path)
    (path / "3.png").write_bytes(encoded(noise(seed=99), "PNG"))
    assert len({before, renamed, _fingerprint(path)}) == 3


def test_a_fingerprint_follows_the_limits_that_matter_for_its_kind(tmp_path: Path) -> None:
    pdf, folder = _pdf(tmp_path / "oak.pdf"), _folder(tmp_path / "swatches")
    pages = replace(LIMITS, pdf_images="pages")
    assert _fingerprint(pdf) != _fingerprint(pdf, pages)
    assert _fingerprint(folder) == _fingerprint(folder, pages)
    assert _fingerprint(pdf, pages) != _fingerprint(pdf, replace(pages, pdf_render_dpi=72))
    assert _fingerprint(pdf) == _fingerprint(pdf, replace(LIMITS, pdf_render_dpi=72))
    assert _fingerprint(pdf) == _fingerprint(pdf, replace(LIMITS, pdf_timeout_s=1, pdf_memory_mb=999))
    assert _fingerprint(folder) != _fingerprint(folder, replace(LIMITS, min_image_side=65))


def test_limits_come_from_the_settings_of_the_same_names() -> None:
    limits = IngestLimits.from_settings(Settings(min_image_side=10, pdf_images="auto", pdf_memory_mb=300))
    assert (limits.min_image_side, limits.pdf_images, limits.pdf_memory_mb) == (10, "auto", 300)
    assert limits == replace(IngestLimits(), min_image_side=10, pdf_images="auto", pdf_memory_mb=300)


def _posted(tmp_path: Path, entries: list[Any]) -> tuple[PostedDocument, PostedAccess]:
    (tmp_path / "landing" / "shop").mkdir(parents=True, exist_ok=True)
    access = PostedAccess(str(tmp_path / "landing"), str(tmp_path / "store"))
    return PostedDocument(DocumentKey("shop", "list"), entries, "Spring list"), access


def test_a_posted_list_is_read_in_order_and_a_bad_entry_sinks_nothing(tmp_path: Path) -> None:
    document, access = _posted(tmp_path, [{"path": "b.jpg"}, {"path": None}, "nonsense", {"path": "a.jpg"}])
    for name in "ab":
        (tmp_path / "landing" / "shop" / f"{name}.jpg").write_bytes(encoded(noise(seed=ord(name)), "JPEG"))
    with read_document(document, ImageStore(str(tmp_path / "store")), LIMITS, access) as content:
        found = list(content.images)
    assert (content.title, content.page_count) == ("Spring list", None)
    assert [image.status.value for image in found] == ["ready", "rejected", "rejected", "ready"]
    assert [image.index for image in found] == [0, 1, 2, 3]


def test_a_posted_fingerprint_follows_the_list_and_the_files_it_names(tmp_path: Path) -> None:
    document, access = _posted(tmp_path, [{"path": "a.jpg", "caption": "Oak"}])
    missing = document_fingerprint(document, LIMITS, access)
    assert document_fingerprint(document, LIMITS, access) == missing
    reordered, _ = _posted(tmp_path, [{"caption": "Oak", "path": "a.jpg"}])
    assert document_fingerprint(reordered, LIMITS, access) == missing
    changed, _ = _posted(tmp_path, [{"path": "a.jpg", "caption": "Ash"}])
    assert document_fingerprint(changed, LIMITS, access) != missing
    (tmp_path / "landing" / "shop" / "a.jpg").write_bytes(encoded(noise(), "JPEG"))
    assert document_fingerprint(document, LIMITS, access) != missing


def test_documents_on_another_system_are_read_through_a_copy(tmp_path: Path) -> None:
    root = UPath(f"memory://landing-{uuid.uuid4().hex}/shop")
    (root / "swatches").mkdir(parents=True)
    (root / "oak.pdf").write_bytes(_pdf(tmp_path / "oak.pdf").read_bytes())
    (root / "swatches" / "1.png").write_bytes(encoded(noise(), "PNG"))
    store = ImageStore(f"memory://store-{uuid.uuid4().hex}")
    for name, kind in (("oak.pdf", SourceKind.PDF), ("swatches", SourceKind.FOLDER)):
        document = LandingDocument(DocumentKey("shop", name), kind, str(root / name))
        with read_document(document, store, LIMITS) as content:
            (found,) = content.images
        assert store.exists(found.store_key or "")
    assert document_fingerprint(
        LandingDocument(DocumentKey("shop", "oak.pdf"), SourceKind.PDF, str(root / "oak.pdf")), LIMITS
    ) == _fingerprint(tmp_path / "oak.pdf")


def test_a_store_that_cannot_be_written_stops_the_document_and_blames_no_image(tmp_path: Path) -> None:
    path = _folder(tmp_path / "swatches")
    (tmp_path / "file").write_bytes(b"")
    content = read_document(landing_document(path), ImageStore(str(tmp_path / "file")), LIMITS)
    with content, pytest.raises(InfrastructureError):
        list(content.images)
