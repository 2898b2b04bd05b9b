"""The listing of the landing folder: the same documents as `discover`, with fingerprints that tell changes."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from upath import UPath

from embedding_assets.errors import TransientError
from embedding_assets.ingest.landing import discover
from embedding_assets.ingest.listing import list_landing
from embedding_assets.keys import DocumentKey

FILES = (
    "shop/oak.pdf",
    "shop/slate.JPG",
    "shop/swatches/1.png",
    "shop/swatches/deep/2.png",
    "studio/a b.pdf",
)
LEFT_OUT = (
    "shop/.hidden.pdf",
    "shop/late.pdf.part",
    "shop/prices.xlsx",
    "loose.pdf",
    "bad name/x.pdf",
    "shop/swatches/note.txt",
)


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    root = tmp_path / "landing"
    for name in (*FILES, *LEFT_OUT):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def fingerprints(root: Path | str) -> dict[str, str]:
    return {str(key): item.fingerprint for key, item in list_landing(str(root)).items()}


def test_it_lists_what_discover_finds(landing: Path) -> None:
    listed = list_landing(str(landing))
    assert {item.document for item in listed.values()} == set(discover(str(landing)))
    assert len(listed) == 4
    assert fingerprints(landing) == fingerprints(landing)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "shop/swatches/1.png").write_bytes(b"longer"),
        lambda root: (root / "shop/swatches/deep/3.png").write_bytes(b"x"),
        lambda root: (root / "shop/swatches/1.png").unlink(),
        lambda root: (root / "shop/swatches/1.png").rename(root / "shop/swatches/0.png"),
        lambda root: os.utime(root / "shop/swatches/1.png", (1, 1)),
    ],
)
def test_every_change_inside_a_folder_changes_its_fingerprint_and_no_other(
    landing: Path, change: object
) -> None:
    before = fingerprints(landing)
    change(landing)  # type: ignore[operator]
    after = fingerprints(landing)
    assert {key for key in before if before[key] != after[key]} == {"shop/swatches"}


def test_a_folder_without_images_is_listed_as_empty(landing: Path) -> None:
    (landing / "shop/soon").mkdir()
    listed = list_landing(str(landing))
    assert [str(key) for key, item in listed.items() if item.empty] == ["shop/soon"]


def test_a_landing_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert list_landing(str(tmp_path / "nowhere")) == {}
    assert list_landing(f"memory://{uuid.uuid4().hex}") == {}


def test_symlinks_out_of_the_landing_folder_are_left_out(landing: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.pdf").write_bytes(b"x")
    (landing / "shop/link.pdf").symlink_to(tmp_path / "secret.pdf")
    (landing / "shop/inside.pdf").symlink_to(landing / "shop/oak.pdf")
    (landing / "shop/dangling.pdf").symlink_to(landing / "shop/nothing.pdf")
    assert set(fingerprints(landing)) == {str(document.key) for document in discover(str(landing))}


def test_a_bucket_is_listed_with_the_same_keys_and_places(landing: Path) -> None:
    root = f"memory://{uuid.uuid4().hex}/landing"
    for name in (*FILES, *LEFT_OUT):
        UPath(f"{root}/{name}").write_bytes(b"x")
    listed = list_landing(root)
    assert set(map(str, listed)) == set(fingerprints(landing))
    assert {item.document for item in listed.values()} == set(discover(root))
    before = fingerprints(root)
    UPath(f"{root}/shop/swatches/1.png").write_bytes(b"y")
    changed = {key for key, value in fingerprints(root).items() if value != before[key]}
    assert changed == {"shop/swatches"}


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_empty(
    landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr("embedding_assets.ingest.listing.os.scandir", refuse)
    with pytest.raises(TransientError, match="can't be listed"):
        list_landing(str(landing))


def test_keys_are_those_of_the_files_names(landing: Path) -> None:
    assert DocumentKey("shop", "oak.pdf") in list_landing(str(landing))
