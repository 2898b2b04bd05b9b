"""Embedding spaces and the vecs collections that hold their vectors."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors
from embedding_assets.errors import SpaceMismatch
from embedding_assets.store.models import FLAGS
from embedding_assets.store.schema import SCHEMA_LOCK

SLIG = "image_slig_embeddings"
"""Logical name of the visual vectors' collection."""

UNDERSTANDING = "image_understanding_embeddings"
"""Logical name of the collection of understanding vectors."""
TEXT = "image_text_embeddings"
"""Logical name of the collection of the text around images."""
COLOR = "image_color_embeddings"
"""Logical name of the collection of colour vectors, one of the four aspects of the visual vector."""
TEXTURE = "image_texture_embeddings"
STYLE = "image_style_embeddings"
MATERIAL = "image_material_embeddings"

ASPECT_COLLECTIONS = {"color": COLOR, "texture": TEXTURE, "style": STYLE, "material": MATERIAL}
"""Aspect (`encoders.aspects.ASPECTS`) -> logical name of its collection."""

MAX_DIMENSION = 16_000
"""pgvector's limit for the type `vector`."""

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Collection:
    """The active vecs collection of a logical name.

    Attributes:
        logical_name: the name that the project uses ("image_slig_embeddings").
        table: the physical vecs collection, table `vecs."<table>"`.
        flag: column of document_images that says whether an image has a vector here.
        dimension: numbers in a vector.
        space_id: the space of its vectors.
        description: the space's fields.
        images_per_second: speed that runs measured; None before the first.
        projection_bytes: `projection` as it is stored.
    """

    logical_name: str
    table: str
    flag: str
    dimension: int
    space_id: str
    description: dict[str, Any]
    images_per_second: float | None = None
    projection_bytes: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def projection(self) -> Vectors | None:
        """What makes its vectors from visual ones (`encoders.aspects`), float32, shape (rows, dimension); None for
        vectors that are made otherwise."""
        if self.projection_bytes is None:
            return None
        stored = np.frombuffer(self.projection_bytes, dtype="<f4")
        return stored.reshape(-1, self.dimension).astype(np.float32)

    @property
    def qualified(self) -> str:
        """Quoted name for SQL. The name was checked against the grammar of identifiers when it was read."""
        return f'vecs."{self.table}"'


def _to_collection(row: Any) -> Collection:
    if not _IDENTIFIER.fullmatch(row.collection):
        raise SpaceMismatch(
            f"embedding_spaces holds the collection name {row.collection!r}, which is not valid"
        )
    return Collection(
        row.logical_name,
        row.collection,
        FLAGS[row.logical_name],
        row.dimension,
        row.space_id,
        dict(row.description),
        row.images_per_second,
        None if row.projection is None else bytes(row.projection),
    )


def active_collection(connection: Connection, logical_name: str) -> Collection | None:
    """The active collection of a logical name; None before the first vector space was registered."""
    row = connection.execute(
        text("SELECT * FROM embedding_spaces WHERE logical_name = :name AND active"), {"name": logical_name}
    ).first()
    return _to_collection(row) if row else None


def active_collections(connection: Connection) -> dict[str, Collection]:
    """The active collection of every logical name that has one, in one query."""
    rows = connection.execute(text("SELECT * FROM embedding_spaces WHERE active ORDER BY id")).all()
    return {row.logical_name: _to_collection(row) for row in rows}


def existing_collections(connection: Connection) -> dict[str, Collection]:
    """The active collections whose table is there, by logical name: somebody may have dropped one."""
    rows = connection.execute(
        text(
            "SELECT s.* FROM embedding_spaces s "
            "JOIN pg_tables t ON t.schemaname = 'vecs' AND t.tablename = s.collection WHERE s.active ORDER BY s.id"
        )
    ).all()
    return {row.logical_name: _to_collection(row) for row in rows}


def all_collections(connection: Connection) -> list[Collection]:
    """Every registered collection, active or not (maintenance: not scoped to a workspace)."""
    rows = connection.execute(text("SELECT * FROM embedding_spaces ORDER BY id")).all()
    return [_to_collection(row) for row in rows]


def check_space(collection: Collection, space: EmbeddingSpace) -> None:
    """Raises SpaceMismatch, with the numbers of both, where `space` is not the collection's."""
    if collection.space_id == space.space_id:
        return
    active = collection.description
    differing = [
        f"{name} {active.get(name)!r} there, {value!r} here"
        for name, value in space.identity().items()
        if active.get(name) != value
    ]
    raise SpaceMismatch(
        f"{collection.logical_name} holds {collection.dimension}-D vectors of space {collection.space_id} "
        f"({active.get('model')}), but the configured model {space.model} makes {space.dimension}-D vectors of "
        f"space {space.space_id}: {'; '.join(differing)}",
        hint="configure the model that made the vectors, or use another database for this one",
    )


def ensure_collection(
    connection: Connection, logical_name: str, space: EmbeddingSpace, projection: Vectors | None = None
) -> Collection:
    """The active collection for vectors of `space`; makes and activates it where there is none yet.

    Safe to call from many processes at once: making takes an advisory lock for the transaction.

    Args:
        projection: kept with a collection that is made now, float32, shape (rows, dimension). A collection that is
            there already keeps its own: use the one that is returned.

    Raises:
        SpaceMismatch: another space is active.
    """
    collection = active_collection(connection, logical_name)
    if collection is None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
        collection = active_collection(connection, logical_name)
    if collection is None:
        collection = _reactivate(connection, logical_name, space) or _make_collection(
            connection, logical_name, space, projection
        )
    check_space(collection, space)
    return collection


def _reactivate(connection: Connection, logical_name: str, space: EmbeddingSpace) -> Collection | None:
    row = connection.execute(
        text(
            "UPDATE embedding_spaces SET active = true "
            "WHERE logical_name = :name AND space_id = :space RETURNING *"
        ),
        {"name": logical_name, "space": space.space_id},
    ).first()
    return _to_collection(row) if row else None


def _make_collection(
    connection: Connection, logical_name: str, space: EmbeddingSpace, projection: Vectors | None
) -> Collection:
    if not 0 < space.dimension <= MAX_DIMENSION:
        raise SpaceMismatch(f"{space} has {space.dimension} dimensions; pgvector takes 1 to {MAX_DIMENSION}")
    taken = connection.execute(
        text("SELECT to_regclass(:name) IS NOT NULL"), {"name": f'vecs."{logical_name}"'}
    ).scalar_one()
    table = f"{logical_name}_{space.space_id[:8]}" if taken else logical_name
    # The columns that vecs 0.4.5 makes (collection.build_table), so that its client can open the table.
    connection.execute(
        text(
            f'CREATE TABLE vecs."{table}" (id varchar PRIMARY KEY, vec vector({int(space.dimension)}) NOT NULL, '
            "metadata jsonb NOT NULL DEFAULT '{}'::jsonb)"
        )
    )
    row = connection.execute(
        text(
            "INSERT INTO embedding_spaces "
            "(logical_name, space_id, collection, dimension, description, active, projection) VALUES "
            "(:logical_name, :space_id, :collection, :dimension, CAST(:description AS jsonb), true, :projection) "
            "RETURNING *"
        ),
        {
            "logical_name": logical_name,
            "space_id": space.space_id,
            "collection": table,
            "dimension": space.dimension,
            "description": json.dumps({**space.identity(), "label": space.label}),
            "projection": None if projection is None else projection.astype("<f4").tobytes(),
        },
    ).one()
    return _to_collection(row)


def record_speed(connection: Connection, collection: Collection, images_per_second: float) -> None:
    """Remembers the measured speed, smoothed over runs, so that steps can be sized by it."""
    connection.execute(
        text(
            "UPDATE embedding_spaces SET images_per_second = "
            "coalesce(0.5 * images_per_second + 0.5 * :speed, :speed) WHERE collection = :collection"
        ),
        {"speed": images_per_second, "collection": collection.table},
    )
