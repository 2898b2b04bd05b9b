"""A judged set of one's own: a JSON file with queries and the images of a workspace that answer them.

    {"relevant_from": 2,
     "queries": [
       {"text": "matte grey porcelain R11", "family": "joint",
        "relevant": [{"image_id": "0b9c...", "grade": 3},
                     {"document": "oak.pdf", "reference": "page 3, image 2", "grade": 1}]},
       {"image": "uploads/lobby.jpg", "family": "image", "split": "tuning",
        "relevant": [{"document": "showroom", "reference": "0004.jpg"}]}]}

Image ids, documents and references are what `embedding-assets search --json` prints. Paths of images are relative to
the file. Without them, "family" is "all", "split" "gate", "grade" 1, "relevant_from" 1, and "id" the text or image.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import Connection

from embedding_assets.errors import PermanentError
from embedding_assets.search.evaluation import GradedQuery
from embedding_assets.search.request import SearchRequest
from embedding_assets.store.image_places import find_images

MAX_GRADE = 10


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Relevant(_Strict):
    image_id: uuid.UUID | None = None
    document: str | None = None
    reference: str | None = None
    grade: int = Field(1, ge=1, le=MAX_GRADE)

    @model_validator(mode="after")
    def _names_an_image(self) -> _Relevant:
        by_place = self.document is not None and self.reference is not None
        either = self.document is not None or self.reference is not None
        if either != by_place or by_place == (self.image_id is not None):
            raise ValueError("expected image_id, or document and reference")
        return self

    def __str__(self) -> str:
        return str(self.image_id or f"{self.document}: {self.reference}")


class _Query(_Strict):
    id: str = ""
    text: str | None = None
    image: Path | None = None
    family: str = Field("all", min_length=1)
    split: Literal["tuning", "gate"] = "gate"
    relevant: list[_Relevant] = Field(min_length=1)

    @model_validator(mode="after")
    def _asks_something(self) -> _Query:
        if not self.text and self.image is None:
            raise ValueError("expected a text, an image or both")
        return self

    @property
    def name(self) -> str:
        return self.id or " + ".join(part for part in (self.text, str(self.image or "")) if part)


class _File(_Strict):
    relevant_from: int = Field(1, ge=1, le=MAX_GRADE)
    queries: list[_Query] = Field(min_length=1)


@dataclass(frozen=True)
class JudgedSet:
    """Queries with graded answers, and the grade from which an image counts as relevant for recall and MRR."""

    queries: tuple[GradedQuery, ...]
    relevant_from: int


def read_judged_set(connection: Connection, workspace_id: str, path: Path) -> JudgedSet:
    """Reads a judged set and finds its images.

    Raises:
        PermanentError: the file or an image that it names can't be read, it is not of the shape above, a query can't
            be asked or stands twice, or an image is not in the workspace; the message says which.
    """
    try:
        parsed = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PermanentError(f"can't read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PermanentError(
            f"{path} is no judged set: {where}: {first['msg'].removeprefix('Value error, ')}"
            + (f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""),
            hint="docs/search-quality.md shows the format",
        ) from error
    found = _find(connection, workspace_id, [one for query in parsed.queries for one in query.relevant])
    queries: dict[str, GradedQuery] = {}
    for query in parsed.queries:
        if query.name in queries:
            raise PermanentError(f"{path}: two queries are called {query.name!r}", hint='give each an "id"')
        image = _read_image(path, query.image) if query.image is not None else None
        SearchRequest(workspace_id, query.text, image).checked()
        grades: dict[uuid.UUID, int] = {}
        for relevant in query.relevant:
            if not found[relevant]:
                raise PermanentError(
                    f"{path}: query {query.name!r}: workspace {workspace_id} has no sound image {relevant}",
                    hint="`embedding-assets search --json` prints image_id, document_id and reference of images",
                )
            for image_id in found[relevant]:
                grades[image_id] = max(relevant.grade, grades.get(image_id, 0))
        if max(grades.values()) < parsed.relevant_from:
            raise PermanentError(
                f"{path}: query {query.name!r} has no image of grade {parsed.relevant_from} or better"
            )
        queries[query.name] = GradedQuery(query.name, query.family, query.split, query.text, image, grades)
    return JudgedSet(tuple(queries.values()), parsed.relevant_from)


def _find(
    connection: Connection, workspace_id: str, named: Sequence[_Relevant]
) -> dict[_Relevant, list[uuid.UUID]]:
    """The images that each of these names; none where the workspace has no such image."""
    ids = [one.image_id for one in named if one.image_id is not None]
    places = [(one.document, one.reference) for one in named if one.document and one.reference]
    found = find_images(connection, workspace_id, ids, places)
    by_name: dict[object, list[uuid.UUID]] = {}
    for place in found:
        by_name.setdefault(place.image_id, []).append(place.image_id)
        by_name.setdefault((place.document_id, place.reference), []).append(place.image_id)
    return {one: by_name.get(one.image_id or (one.document, one.reference), []) for one in named}


def _read_image(path: Path, image: Path) -> bytes:
    try:
        return (path.parent / image).read_bytes()
    except OSError as error:
        raise PermanentError(
            f"{path}: can't read the image {path.parent / image}: {error.strerror}"
        ) from error
