"""Documents in the landing folder are found, and nothing else is."""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path

import pytest
from upath import UPath

from embedding_assets.errors import DocumentError
from embedding_assets.ingest.landing import SourceKind, discover, locate, natural_order
from embedding_assets.keys import DocumentKey, document_id_for_name


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    root = tmp_path / "landing"
    for name in ("shop/oak.pdf", "shop/slate.JPG", "shop/swatches/1.png", "studio/plan.pdf"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def _found(root: Path | str, workspace_id: str | None = None) -> list[tuple[str, SourceKind]]:
    return [(str(document.key), document.kind) for document in discover(str(root), workspace_id)]


def test_documents_are_found_sorted_with_their_kind(landing: Path) -> None:
    assert _found(landing) == [
        ("shop/oak.pdf", SourceKind.PDF),
        ("shop/slate.JPG", SourceKind.IMAGE),
        ("shop/swatches", SourceKind.FOLDER),
        ("studio/plan.pdf", SourceKind.PDF),
    ]
    assert _found(landing, "studio") == [("studio/plan.pdf", SourceKind.PDF)]


def test_a_landing_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert _found(tmp_path / "nowhere") == []
    assert _found(tmp_path, "nobody") == []


@pytest.mark.parametrize(
    "name",
    [".oak.pdf", ".git", "oak.pdf.part", "oak.pdf.tmp", "oak.pdf.crdownload", "oak.pdf~", "OAK.PDF.PART"],
)
def test_hidden_and_unfinished_files_are_left_out_silently(
    landing: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (landing / "shop" / name).write_bytes(b"x")
    assert len(_found(landing)) == 4
    assert caplog.text == ""


def test_an_unknown_file_is_reported_once(landing: Path, caplog: pytest.LogCaptureFixture) -> None:
    (landing / "shop" / "prices.xlsx").write_bytes(b"x")
    (landing / "loose.pdf").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert len(_found(landing)) == 4
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert any("prices.xlsx" in message and "expected a PDF" in message for message in messages)
    assert any("loose.pdf" in message and "<landing>/<workspace_id>/" in message for message in messages)


def test_a_folder_whose_name_is_no_workspace_is_reported(
    landing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (landing / "bad name").mkdir()
    (landing / "bad name" / "oak.pdf").write_bytes(b"x")
    assert len(_found(landing)) == 4
    assert "workspace_id 'bad name' is not valid" in caplog.text


def test_a_named_pipe_is_no_document(landing: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(landing / "shop" / "pipe.pdf")
    assert len(_found(landing)) == 4
    assert "pipe.pdf" in caplog.text


def test_symlinks_that_lead_out_are_refused_and_others_followed(
    landing: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret.pdf").write_bytes(b"x")
    (landing / "shop" / "out.pdf").symlink_to(tmp_path / "secret.pdf")
    (landing / "shop" / "etc").symlink_to("/etc")
    (landing / "shop" / "gone.pdf").symlink_to(tmp_path / "nothing.pdf")
    (landing / "shop" / "round.pdf").symlink_to(landing / "shop" / "round.pdf")
    (landing / "shop" / "same.pdf").symlink_to(landing / "shop" / "oak.pdf")
    assert ("shop/same.pdf", SourceKind.PDF) in _found(landing)
    assert len(_found(landing)) == 5
    assert caplog.text.count("symlink that leads out") == 4
    with pytest.raises(DocumentError):
        locate(str(landing), DocumentKey("shop", "out.pdf"))


def test_a_document_is_located_by_its_key(landing: Path) -> None:
    name = "Größe 60×120, Eiche.pdf"
    (landing / "shop" / name).write_bytes(b"x")
    key = DocumentKey("shop", document_id_for_name(name))
    assert locate(str(landing), key).uri == str(landing / "shop" / name)
    assert locate(str(landing), DocumentKey("shop", "oak.pdf")).kind is SourceKind.PDF


@pytest.mark.parametrize("document_id", ["missing.pdf", ".hidden", "prices.xlsx"])
def test_a_document_that_is_not_there_is_an_error_that_says_what_to_do(
    landing: Path, document_id: str
) -> None:
    (landing / "shop" / "prices.xlsx").write_bytes(b"x")
    (landing / "shop" / ".hidden").mkdir()
    with pytest.raises(DocumentError, match="is not in the landing folder") as caught:
        locate(str(landing), DocumentKey("shop", document_id))
    assert "shop" in (caught.value.hint or "")


def test_the_landing_folder_may_be_on_another_system() -> None:
    root = f"memory://landing-{uuid.uuid4().hex}"
    (UPath(root) / "shop").mkdir(parents=True)
    (UPath(root) / "shop" / "oak.pdf").write_bytes(b"x")
    assert _found(root) == [("shop/oak.pdf", SourceKind.PDF)]
    assert locate(root, DocumentKey("shop", "oak.pdf")).uri == f"{root}/shop/oak.pdf"


def test_numbers_sort_as_numbers() -> None:
    names = ["oak 10.jpg", "oak 2.jpg", "Ash.jpg", "oak 02.jpg", "1.jpg"]
    assert sorted(names, key=natural_order) == ["1.jpg", "Ash.jpg", "oak 02.jpg", "oak 2.jpg", "oak 10.jpg"]
