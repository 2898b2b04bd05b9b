"""Makes what tests need rows and vectors of: documents with images, embedding spaces, unit vectors."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections import Counter
from contextlib import closing
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors
from embedding_assets.ingest.records import FoundImage, ImageStatus
from embedding_assets.keys import DocumentKey, image_id
from embedding_assets.store.database import Database
from embedding_assets.store.documents import register_document
from embedding_assets.store.images import save_images
from embedding_assets.store.spaces import SLIG, Collection, ensure_collection
from embedding_assets.store.vectors import encode_copy


def as_key(key: DocumentKey | str) -> DocumentKey:
    """The key itself, or the one that the text spells."""
    return key if isinstance(key, DocumentKey) else DocumentKey.parse(key)


def found_image(index: int = 0, content: str = "", **changes: Any) -> FoundImage:
    """A ready image. Images with the same `content` (default: the index) have the same content hash."""
    fields: dict[str, Any] = {
        "index": index,
        "reference": f"page {index // 4 + 1}, image {index % 4 + 1}",
        "status": ImageStatus.READY,
        "content_hash": hashlib.sha256((content or f"image {index}").encode()).hexdigest(),
        "store_key": f"{index}.png",
        "image_format": "PNG",
        "width": 640,
        "height": 480,
        "byte_size": 1000 + index,
        "page_number": index // 4 + 1,
        "position": index % 4,
    }
    return FoundImage(**{**fields, **changes})


def found_images(
    key: DocumentKey | str, count: int, *, first: int = 0, **changes: Any
) -> list[tuple[uuid.UUID, int, FoundImage]]:
    """`count` ready images of a document with distinct contents, as `save_images` takes them.

    Contents differ between documents too, so nothing can be copied from one to another unless asked for by
    `content_hash=...` or `content=...`.
    """
    key = as_key(key)
    images = []
    seen: Counter[str] = Counter()
    for index in range(first, first + count):
        image = found_image(index, **{"content": f"{key} image {index}", **changes})
        occurrence = seen[image.content_hash]
        seen[image.content_hash] += 1
        images.append((image_id(key, image.content_hash, occurrence), occurrence, image))
    return images


def make_document(
    database: Database, key: DocumentKey | str, count: int, *, first: int = 0, **changes: Any
) -> list[uuid.UUID]:
    """Registers a document, saves `count` ready images with distinct contents, and returns their ids.

    Args:
        key: the document's key, or its text "workspace/document".
        first: index of the first image, to add images to a document that has some.
        changes: fields of `FoundImage` that differ from the default, for all the images.
    """
    key = as_key(key)
    images = found_images(key, count, first=first, **changes)
    with database.transaction() as connection:
        register_document(connection, key, "folder", f"/landing/{key}")
        save_images(connection, key, images)
    return [number for number, _, _ in images]


def space(dimension: int = 8, **changes: Any) -> EmbeddingSpace:
    """An embedding space; `changes` are fields of it."""
    fields: dict[str, Any] = {
        "model": "test-model",
        "weights": "sha256:0123",
        "preprocessing": "none",
        "dimension": dimension,
    }
    return EmbeddingSpace(**{**fields, **changes})


def random_vectors(n: int, d: int = 8, seed: int = 0) -> Vectors:
    """Float32 of shape (n, d), each row of unit length."""
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scalar(connection: Connection, statement: str, **parameters: Any) -> Any:
    """The one value that a statement gives."""
    return connection.execute(text(statement), parameters).scalar()


def fill_collection(
    database: Database, rows: int, dimension: int = 16, *, name: str = SLIG, vectors: Vectors | None = None
) -> Collection:
    """Adds vectors, which belong to no image, to the active collection of a logical name.

    Args:
        vectors: float32, shape (rows, dimension); default: random ones.
    """
    vectors = random_vectors(rows, dimension) if vectors is None else vectors
    ids = [uuid.UUID(int=n, version=4) for n in np.random.default_rng(1).permutation(rows).tolist()]
    with database.transaction() as connection:
        collection = ensure_collection(connection, name, space(dimension))
        with closing(connection.connection.cursor()) as cursor:
            cursor.copy_expert(
                f"COPY {collection.qualified} (id, vec, metadata) FROM STDIN BINARY",
                io.BytesIO(encode_copy(ids, vectors, ['{"workspace_id": "shop"}'] * rows)),
            )
    return collection


def nearest(
    connection: Connection, workspace_id: str, collection: Collection, vector: Vectors, limit: int
) -> list[tuple[uuid.UUID, float]]:
    """Exact nearest images of one workspace by cosine similarity.

    Args:
        vector: float32, shape (dimension,).
        limit: how many at most.

    Returns:
        (image id, cosine similarity), most similar first, ties by id.
    """
    rows = connection.execute(
        text(
            # "+ 0" keeps approximate indexes out: they would leave out neighbours when rows are filtered.
            # A vecs client may have stored ids that are no images; the join on text leaves them out.
            f"SELECT i.id, 1 - (v.vec <=> CAST(:query AS vector)) AS similarity FROM {collection.qualified} v "
            "JOIN document_images i ON i.id::text = v.id WHERE i.workspace_id = :workspace "
            "ORDER BY (v.vec <=> CAST(:query AS vector)) + 0, i.id LIMIT :limit"
        ),
        {
            "query": "[" + ",".join(repr(float(x)) for x in vector) + "]",
            "workspace": workspace_id,
            "limit": limit,
        },
    ).all()
    return [(row.id, float(row.similarity)) for row in rows]
