"""Judged sets of one's own: read from JSON, their images found in the workspace, mistakes named."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from embedding_assets.errors import PermanentError
from embedding_assets.ingest.records import ImageStatus
from embedding_assets.search.judged_file import JudgedSet, read_judged_set
from embedding_assets.store.database import Database
from embedding_assets_tests.factories import make_document


@pytest.fixture
def images(database: Database) -> list[uuid.UUID]:
    """Four images of shop/a.pdf, on page 1."""
    return make_document(database, "shop/a.pdf", 4)


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "judged.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def read(database: Database, path: Path, workspace: str = "shop") -> JudgedSet:
    with database.transaction() as connection:
        return read_judged_set(connection, workspace, path)


def test_images_are_named_by_id_or_by_place(
    database: Database, images: list[uuid.UUID], tmp_path: Path
) -> None:
    (tmp_path / "lobby.jpg").write_bytes(b"a picture")
    path = write(
        tmp_path,
        {
            "relevant_from": 2,
            "queries": [
                {
                    "id": "first",
                    "text": "blue",
                    "family": "colour",
                    "split": "tuning",
                    "relevant": [
                        {"image_id": str(images[0]), "grade": 3},
                        {"document": "a.pdf", "reference": "page 1, image 3"},
                    ],
                },
                {"image": "lobby.jpg", "relevant": [{"image_id": str(images[1]), "grade": 2}]},
            ],
        },
    )
    judged = read(database, path)
    first, second = judged.queries
    assert judged.relevant_from == 2
    assert (first.query_id, first.family, first.split, first.text, first.image) == (
        "first",
        "colour",
        "tuning",
        "blue",
        None,
    )
    assert first.grades == {images[0]: 3, images[2]: 1}
    assert (second.query_id, second.family, second.split, second.text) == ("lobby.jpg", "all", "gate", None)
    assert second.image == b"a picture"


def test_an_image_that_is_named_twice_has_its_better_grade(
    database: Database, images: list[uuid.UUID], tmp_path: Path
) -> None:
    relevant = [
        {"image_id": str(images[0]), "grade": 1},
        {"document": "a.pdf", "reference": "page 1, image 1", "grade": 3},
        {"image_id": str(images[0]), "grade": 2},
    ]
    (query,) = read(database, write(tmp_path, {"queries": [{"text": "blue", "relevant": relevant}]})).queries
    assert query.grades == {images[0]: 3}


def test_images_of_other_workspaces_and_broken_ones_are_not_found(
    database: Database, images: list[uuid.UUID], tmp_path: Path
) -> None:
    (broken,) = make_document(database, "shop/b.pdf", 1, status=ImageStatus.REJECTED, store_key=None)
    for image_id, workspace in ((images[0], "rival"), (broken, "shop")):
        path = write(tmp_path, {"queries": [{"text": "blue", "relevant": [{"image_id": str(image_id)}]}]})
        with pytest.raises(
            PermanentError, match=f"'blue': workspace {workspace} has no sound image {image_id}"
        ):
            read(database, path, workspace)


IMAGE = {"document": "a.pdf", "reference": "page 1, image 1"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no judged set: the file: Invalid JSON"),
        ({"queries": []}, "queries: List should have at least 1 item"),
        ({"queries": [{"text": "blue", "relevant": []}]}, "queries.0.relevant: List should have at least 1"),
        ({"queries": [{"relevant": [IMAGE]}]}, "queries.0: expected a text, an image or both"),
        (
            {"queries": [{"text": "blue", "relevant": [{"grade": 2}]}]},
            "expected image_id, or document and ref",
        ),
        (
            {"queries": [{"text": "blue", "relevant": [{"document": "a.pdf"}]}]},
            "expected image_id, or document",
        ),
        (
            {"queries": [{"text": "blue", "relevant": [{**IMAGE, "image_id": str(uuid.uuid4())}]}]},
            "expected image_id, or document",
        ),
        (
            {"queries": [{"text": "blue", "relevant": [{**IMAGE, "grade": 0}]}]},
            "grade: .* greater than or equal",
        ),
        ({"queries": [{"text": "blue", "relevant": [IMAGE], "famliy": "x"}]}, "famliy: Extra inputs"),
        (
            {"queries": [{"text": "blue", "relevant": [{**IMAGE, "reference": "page 9, image 1"}]}]},
            "no sound image a.pdf: page 9, image 1",
        ),
        ({"queries": [{"text": "blue", "relevant": [IMAGE]}] * 2}, "two queries are called 'blue'"),
        (
            {"queries": [{"image": "gone.jpg", "relevant": [IMAGE]}]},
            "can't read the image .*gone.jpg: No such",
        ),
        ({"queries": [{"text": "x" * 3000, "relevant": [IMAGE]}]}, "3000 characters"),
        (
            {"relevant_from": 2, "queries": [{"text": "blue", "relevant": [IMAGE]}]},
            "'blue' has no image of grade 2 or better",
        ),
    ],
)
def test_a_mistake_is_named(
    database: Database, images: list[uuid.UUID], tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(PermanentError, match=message):
        read(database, write(tmp_path, content))


def test_a_file_that_is_not_there_is_named(database: Database, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"can't read .*gone.json: No such file"):
        read(database, tmp_path / "gone.json")
