"""Posted lists: every entry becomes an image or a reason, and paths stay inside their roots."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from embedding_assets.errors import ErrorClass, ImageRejected
from embedding_assets.ingest.fetch import FetchPolicy
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.posted import PostedAccess, PostedImage
from embedding_assets.ingest.posted_document import read_posted_image
from embedding_assets.ingest.records import FoundImage, ImageStatus
from embedding_assets.keys import DocumentKey
from embedding_assets_tests.ingest.reading import LIMITS
from embedding_assets_tests.ingest.samples import encoded, noise

KEY = DocumentKey("shop", "posted")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("landing/shop", "landing/other", "store", "allowed", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "tile.jpg").write_bytes(encoded(noise(), "JPEG"))
    return tmp_path


def _access(root: Path, **changes: Any) -> PostedAccess:
    values = {
        "landing_root": str(root / "landing"),
        "image_store_root": str(root / "store"),
        "allowed_roots": [str(root / "allowed")],
        **changes,
    }
    return PostedAccess(**values)


def _read(root: Path, entry: Any, **changes: Any) -> FoundImage:
    return read_posted_image(entry, 4, KEY, ImageStore(str(root / "store")), LIMITS, _access(root, **changes))


def test_what_the_poster_knows_is_kept(root: Path) -> None:
    entry = {
        "path": "tile.jpg",
        "page_number": 3,
        "caption": "Oak",
        "width": 10,
        "height": 20,
        "bbox": [1, 2, 3, 4],
        "quality_score": 0.75,
        "supplier": {"id": 7},
    }
    found = _read(root, entry)
    assert (found.index, found.reference, found.status) == (4, "tile.jpg", ImageStatus.READY)
    assert (found.page_number, found.caption, found.bbox) == (3, "Oak", (1, 2, 3, 4))
    assert (found.quality_score, found.extra) == (0.75, {"supplier": {"id": 7}})
    assert (found.width, found.height) == (96, 96)


@pytest.mark.parametrize("alias", ["path", "image_path", "file_path", "local_path"])
def test_usual_names_of_the_path_are_understood(root: Path, alias: str) -> None:
    assert _read(root, {alias: "tile.jpg", "page": 2}).page_number == 2


def test_a_path_that_is_a_url_is_fetched_by_the_rules_for_urls(root: Path) -> None:
    found = _read(root, {"image_path": "https://images.example/x.jpg?signature=secret"})
    assert found.status is ImageStatus.REJECTED
    assert "not fetched here" in (found.reason or "")
    assert found.reference == "https://images.example/x.jpg"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({}, "expected exactly one of path and url, got neither"),
        ({"caption": "no image"}, "got neither"),
        ({"path": "", "url": None}, "got neither"),
        ({"path": "a.jpg", "url": "https://x.example/a.jpg"}, "got both"),
        ("tile.jpg", "expected a dict with path or url, got str"),
        (None, "expected a dict with path or url, got NoneType"),
        ({"path": 17}, "path: "),
        ({"path": "tile.jpg", "quality_score": 1.5}, "quality_score: "),
        ({"path": "tile.jpg", "quality_score": "good"}, "quality_score: "),
        ({"path": "tile.jpg", "page_number": 0}, "page_number: "),
        ({"path": "tile.jpg", "bbox": [1, 2, 3]}, "bbox"),
        ({"path": "tile.jpg", "bbox": [1, 2, 3, float("nan")]}, "bbox: expected four finite numbers"),
        ({"path": "tile.jpg", "width": -1}, "width: "),
        ({"path": "x" * 5000}, "path: "),
    ],
)
def test_a_bad_entry_is_rejected_with_its_place_and_reason(root: Path, entry: Any, reason: str) -> None:
    found = _read(root, entry)
    assert (found.status, found.index, found.reference) == (ImageStatus.REJECTED, 4, "entry 4")
    assert (found.reason or "").startswith("bad entry: ")
    assert reason in (found.reason or "")


def test_paths_under_every_allowed_root_are_read(root: Path) -> None:
    for path in (
        "tile.jpg",
        root / "landing/shop/tile.jpg",
        root / "store/tile.jpg",
        root / "allowed/tile.jpg",
    ):
        assert _read(root, {"path": str(path)}).status is ImageStatus.READY
    assert _read(root, {"path": f"file://{root}/allowed/tile.jpg"}).status is ImageStatus.READY


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../other/tile.jpg",
        "../../elsewhere/tile.jpg",
        "{root}/elsewhere/tile.jpg",
        "{root}/landing/other/tile.jpg",
        "{root}/allowed/../elsewhere/tile.jpg",
        "{root}/allowed-not/tile.jpg",
        "file:///etc/passwd",
        "memory://bucket/tile.jpg",
        "{root}/elsewhere/missing.jpg",
    ],
)
def test_paths_outside_the_roots_are_refused_whether_they_exist_or_not(root: Path, path: str) -> None:
    found = _read(root, {"path": path.format(root=root)})
    assert found.status is ImageStatus.REJECTED
    assert "lies outside the allowed folders" in (found.reason or "")
    assert "allowed_roots" in (found.reason or "")


def test_a_symlink_out_of_the_roots_is_refused(root: Path) -> None:
    (root / "allowed/link.jpg").symlink_to(root / "elsewhere/tile.jpg")
    (root / "allowed/folder").symlink_to(root / "elsewhere")
    for path in ("allowed/link.jpg", "allowed/folder/tile.jpg"):
        assert "lies outside" in (_read(root, {"path": str(root / path)}).reason or "")


def test_what_is_no_readable_file_is_rejected_and_does_not_hang(root: Path) -> None:
    os.mkfifo(root / "landing/shop/pipe.jpg")
    (root / "landing/shop/folder.jpg").mkdir()
    (root / "landing/shop/large.jpg").write_bytes(b"x" * (LIMITS.max_image_bytes + 1))
    expected = {
        "pipe.jpg": "is no regular file",
        "folder.jpg": "folder.jpg",
        "missing.jpg": "is not there",
        "large.jpg": "max_image_bytes",
        "zero\x00byte": "zero byte",
        "tile.jpg/x": "tile.jpg/x",
    }
    for path, reason in expected.items():
        found = _read(root, {"path": path})
        assert found.status is ImageStatus.REJECTED
        assert reason in (found.reason or "")


def test_a_root_on_another_system_is_a_root(root: Path) -> None:
    bucket = f"memory://bucket-{uuid.uuid4().hex}"
    (UPath(bucket) / "in").mkdir(parents=True)
    (UPath(bucket) / "in" / "tile.jpg").write_bytes(encoded(noise(), "JPEG"))
    for path, status in {
        f"{bucket}/in/tile.jpg": ImageStatus.READY,
        f"{bucket}/in/../out.jpg": ImageStatus.REJECTED,
        f"{bucket}/inside.jpg": ImageStatus.REJECTED,
        f"{bucket}/in/missing.jpg": ImageStatus.REJECTED,
    }.items():
        assert _read(root, {"path": path}, allowed_roots=[f"{bucket}/in"]).status is status


def test_a_server_that_does_not_answer_leaves_the_image_pending(root: Path) -> None:
    fetch = FetchPolicy(True, ["localhost"], timeout_s=2, address_allowed=lambda address: True)
    first = _read(root, {"url": "http://localhost:1/x.jpg?a=1"}, fetch=fetch)
    second = _read(root, {"url": "http://localhost:1/x.jpg?a=2"}, fetch=fetch)
    assert (first.status, first.error_class) == (ImageStatus.PENDING, ErrorClass.TRANSIENT)
    assert first.store_key is None
    assert first.reference == second.reference
    assert first.content_hash != second.content_hash


def test_entries_are_plain_models_too() -> None:
    posted = PostedImage.read({"path": "a.jpg", "more": 1})
    assert (posted.path, posted.extra) == ("a.jpg", {"more": 1})
    with pytest.raises(ImageRejected):
        PostedImage.read([])
