"""Writing vectors in bulk, together with the flags and failure records that speak of them.

`vecs.upsert` can't do this: its transaction is its own, and 500 rows a statement reach a tenth of COPY's
speed (benchmarks/bulk_write.py). The tables are the ones that vecs makes, so its clients read them.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg2
import psycopg2.errors
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from embedding_assets.encoders.protocol import Vectors
from embedding_assets.errors import SpaceMismatch, StoreUnavailable
from embedding_assets.keys import DocumentKey
from embedding_assets.store.spaces import Collection

METADATA = (
    "jsonb_build_object('workspace_id', i.workspace_id, 'document_id', i.document_id, "
    "'page_number', i.page_number, 'quality_score', i.quality_score)"
)
"""Metadata of an image's vectors, as SQL over document_images AS i."""


@dataclass(frozen=True)
class WriteCounts:
    """What a write changed, counted from the rows.

    Attributes:
        vectors: vectors inserted or replaced, over all collections.
        images: images that did not have all of these vectors before and have them now.
        resolved: failure records closed.
    """

    vectors: int = 0
    images: int = 0
    resolved: int = 0


def encode_copy(ids: Sequence[uuid.UUID], vectors: Vectors, metadata: Sequence[str]) -> bytes:
    """Rows (id varchar, vec vector, metadata jsonb) in Postgres' binary COPY format.

    Args:
        ids: n ids.
        vectors: float32, shape (n, d).
        metadata: n JSON texts.

    Source: "Binary Format" of the COPY page of the Postgres manual; pgvector's vector_recv reads a vector as
    int16 dimension, int16 zero, and d big-endian float32; jsonb_recv reads a version byte (1) and text.
    """
    count, dimension = vectors.shape
    # Padded with spaces, which JSON allows, all rows have one length, and numpy lays them out at once.
    encoded = [words.encode() for words in metadata]
    width = max((len(words) for words in encoded), default=0)
    row = np.dtype(
        [
            ("fields", ">i2"),
            ("id_length", ">i4"),
            ("id", "S36"),
            ("vec_length", ">i4"),
            ("dimension", ">i2"),
            ("unused", ">i2"),
            ("vec", ">f4", (dimension,)),
            ("metadata_length", ">i4"),
            ("version", "u1"),
            ("metadata", f"S{max(1, width)}"),
        ]
    )
    rows = np.zeros(count, dtype=row)
    rows["fields"] = 3
    rows["id_length"] = 36
    rows["id"] = [str(i) for i in ids]
    rows["vec_length"] = 4 + 4 * dimension
    rows["dimension"] = dimension
    rows["vec"] = vectors
    rows["metadata_length"] = 1 + width
    rows["version"] = 1
    rows["metadata"] = [words.ljust(width) for words in encoded]
    return b"".join((b"PGCOPY\n\xff\r\n\0", bytes(8), rows.tobytes(), b"\xff\xff"))


def write_embeddings(
    connection: Connection,
    workspace_id: str,
    ids: Sequence[uuid.UUID],
    vectors: Sequence[tuple[Collection, Vectors]],
    *,
    stage: str,
) -> WriteCounts:
    """Stores vectors of images, sets their flags and closes their failure records of this stage.

    All in the caller's transaction. Images that are no longer there (their document changed meanwhile) are
    left out; so are images of other workspaces.

    Args:
        workspace_id: workspace of all the images.
        ids: n image ids, no id twice.
        vectors: for each collection, float32 of shape (n, collection.dimension), in the order of `ids`.
        stage: the failure records' stage to close.

    Raises:
        SpaceMismatch: the shape is not the collection's.
        sqlalchemy.exc.DataError: a number is not finite.
    """
    if not ids or not vectors:
        return WriteCounts()
    if len(set(ids)) != len(ids):
        raise ValueError("write_embeddings takes each image id once")
    for collection, array in vectors:
        if array.shape != (len(ids), collection.dimension):
            raise SpaceMismatch(
                f"{collection.logical_name} takes {len(ids)} vectors of {collection.dimension} numbers, "
                f"got an array of shape {array.shape}"
            )
    # Locks are taken in the order of ids, so that two processes with the same images can't deadlock.
    present = connection.execute(
        text(
            f"SELECT id, CAST({METADATA} AS text) AS metadata FROM document_images i "
            "WHERE workspace_id = :workspace AND id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE"
        ),
        {"workspace": workspace_id, "ids": [str(i) for i in ids]},
    ).all()
    if not present:
        return WriteCounts()
    place = {i: n for n, i in enumerate(ids)}
    kept = [row.id for row in present]
    order = [place[i] for i in kept]
    metadata = [row.metadata for row in present]
    written = 0
    for collection, array in vectors:
        # The rows' locks keep other writers of ours away, so deleting and copying is an upsert; it is written
        # once, where a temporary table would be written, read, and written again.
        connection.execute(
            text(f"DELETE FROM {collection.qualified} WHERE id = ANY(:ids)"), {"ids": [str(i) for i in kept]}
        )
        written += _copy_in(
            connection,
            f"COPY {collection.qualified} (id, vec, metadata) FROM STDIN BINARY",
            encode_copy(kept, array[order], metadata),
        )
    return _settle(connection, kept, [collection for collection, _ in vectors], written, stage)


def _copy_in(connection: Connection, statement: str, data: bytes) -> int:
    """Runs COPY FROM STDIN and returns the rows; errors are SQLAlchemy's, as those of every other statement."""
    raw = connection.connection
    try:
        cursor = raw.cursor()
        try:
            cursor.copy_expert(statement, io.BytesIO(data), size=2**20)
            return int(cursor.rowcount)
        finally:
            cursor.close()
    except psycopg2.errors.UniqueViolation as error:
        raise StoreUnavailable(
            "another client wrote vectors of the same images at the same moment; trying again replaces them"
        ) from error
    except psycopg2.Error as error:
        gone = bool(raw.dbapi_connection is not None and raw.dbapi_connection.closed)
        wrapped = DBAPIError.instance(
            statement, None, error, psycopg2.Error, connection_invalidated=gone, dialect=connection.dialect
        )
        if gone:
            connection.invalidate(error)
        raise wrapped from error


def _settle(
    connection: Connection,
    ids: Sequence[uuid.UUID],
    collections: Sequence[Collection],
    written: int,
    stage: str,
) -> WriteCounts:
    parameters = {"ids": [str(i) for i in ids], "stage": stage}
    flags = [collection.flag for collection in collections]
    images = connection.execute(
        text(
            f"UPDATE document_images SET {', '.join(f'{flag} = true' for flag in flags)}, updated_at = now() "
            f"WHERE id = ANY(CAST(:ids AS uuid[])) AND NOT ({' AND '.join(flags)})"
        ),
        parameters,
    ).rowcount
    resolved = connection.execute(
        text(
            "UPDATE embedding_failures SET resolved_at = now() "
            "WHERE image_id = ANY(CAST(:ids AS uuid[])) AND stage = :stage AND resolved_at IS NULL"
        ),
        parameters,
    ).rowcount
    return WriteCounts(written, images, resolved)


def copy_known_vectors(
    connection: Connection,
    workspace_id: str,
    ids: Sequence[uuid.UUID],
    collections: Sequence[Collection],
    *,
    stage: str,
    same_analysis: bool = False,
) -> list[uuid.UUID]:
    """Gives images the vectors of other images of the workspace with the very same bytes.

    Args:
        same_analysis: only where both have the same vision analysis too: vectors of analyses need that.

    Returns:
        Ids of the images that got all their vectors this way and had not had them; the others have them
        already, or have to be encoded.
    """
    if not ids or not collections:
        return []
    flags = " AND ".join(f"o.{collection.flag}" for collection in collections)
    done = " AND ".join(f"i.{collection.flag}" for collection in collections)
    alike = "AND o.vision_analysis = i.vision_analysis " if same_analysis else ""
    donors = connection.execute(
        text(
            "SELECT i.id, d.id AS donor FROM document_images i JOIN LATERAL ("
            "  SELECT o.id FROM document_images o WHERE o.workspace_id = i.workspace_id "
            f"  AND o.content_hash = i.content_hash AND o.id <> i.id AND {flags} {alike}ORDER BY o.id LIMIT 1"
            ") d ON true "
            "WHERE i.workspace_id = :workspace AND i.id = ANY(CAST(:ids AS uuid[])) AND i.status = 'ready' "
            f"AND NOT ({done}) ORDER BY i.id FOR UPDATE OF i"
        ),
        {"workspace": workspace_id, "ids": [str(i) for i in ids]},
    ).all()
    if not donors:
        return []
    # One statement, so one snapshot: an image gets its vectors in all collections or in none.
    joins = " ".join(
        f"JOIN {collection.qualified} v{n} ON v{n}.id = n.donor::text"
        for n, collection in enumerate(collections)
    )
    columns = ", ".join(f"v{n}.vec AS vec_{n}" for n in range(len(collections)))
    inserts = ", ".join(
        f"written_{n} AS (INSERT INTO {collection.qualified} (id, vec, metadata) "
        f"SELECT id::text, vec_{n}, metadata FROM source ORDER BY id "
        "ON CONFLICT (id) DO UPDATE SET vec = excluded.vec, metadata = excluded.metadata RETURNING id)"
        for n, collection in enumerate(collections)
    )
    written = connection.execute(
        text(
            f"WITH source AS MATERIALIZED (SELECT i.id, {METADATA} AS metadata, {columns} "
            "FROM unnest(CAST(:ids AS uuid[]), CAST(:donors AS uuid[])) AS n(id, donor) "
            f"JOIN document_images i ON i.id = n.id {joins}), {inserts} "
            + " UNION ALL ".join(
                f"SELECT {n} AS number, id FROM written_{n}" for n in range(len(collections))
            )
        ),
        {"ids": [str(row.id) for row in donors], "donors": [str(row.donor) for row in donors]},
    ).all()
    complete = sorted(uuid.UUID(row.id) for row in written if row.number == 0)
    _settle(connection, complete, collections, len(written), stage)
    return complete


def read_vectors_lacking(
    connection: Connection,
    key: DocumentKey,
    collection: Collection,
    flag: str,
    *,
    after: uuid.UUID | None = None,
    limit: int = 1_000,
) -> tuple[list[uuid.UUID], Vectors]:
    """Vectors of a document's images that are in a collection but lack another flag.

    Args:
        flag: flag column that they lack.
        after: only ids behind this one, to read page by page.
        limit: how many at most.

    Returns:
        Ids in their order, and float32 of shape (n, collection.dimension).
    """
    rows = connection.execute(
        text(
            "SELECT i.id, CAST(v.vec AS real[]) AS vec FROM document_images i "
            f"JOIN {collection.qualified} v ON v.id = i.id::text "
            "WHERE i.workspace_id = :workspace AND i.document_id = :document AND i.status = 'ready' "
            f"AND i.{collection.flag} AND NOT i.{flag} "
            "AND (CAST(:after AS uuid) IS NULL OR i.id > CAST(:after AS uuid)) "
            "ORDER BY i.id LIMIT :limit"
        ),
        {
            "workspace": key.workspace_id,
            "document": key.document_id,
            "after": str(after) if after else None,
            "limit": limit,
        },
    ).all()
    vectors = np.asarray([row.vec for row in rows], dtype=np.float32)
    return [row.id for row in rows], vectors.reshape(len(rows), collection.dimension)


def refresh_metadata(
    connection: Connection, workspace_id: str, document_id: str, collection: Collection
) -> int:
    """Brings the metadata of a document's vectors up to its image rows; returns how many changed."""
    return connection.execute(
        text(
            f"UPDATE {collection.qualified} v SET metadata = {METADATA} FROM document_images i "
            "WHERE i.workspace_id = :workspace AND i.document_id = :document AND v.id = i.id::text "
            f"AND v.metadata IS DISTINCT FROM {METADATA}"
        ),
        {"workspace": workspace_id, "document": document_id},
    ).rowcount


def drop_unflagged(
    connection: Connection, workspace_id: str, document_id: str, collection: Collection
) -> int:
    """Removes the vectors of a document's images that no longer have the flag; returns how many."""
    return connection.execute(
        text(
            f"DELETE FROM {collection.qualified} v USING document_images i WHERE i.workspace_id = :workspace "
            f"AND i.document_id = :document AND NOT i.{collection.flag} AND v.id = i.id::text"
        ),
        {"workspace": workspace_id, "document": document_id},
    ).rowcount


def forget_vectors(
    connection: Connection,
    key: DocumentKey,
    collections: Sequence[Collection],
    *,
    stage: str,
    image_ids: Sequence[uuid.UUID] | None = None,
) -> int:
    """Removes all vectors that a document has in some collections, with their flags: its images are due again.

    What the stage had left out (`stage_skips`) is due again too.

    Args:
        image_ids: only those of these images; None for all.

    Returns:
        How many images lost a flag.
    """
    if not collections:
        return 0
    flags = [collection.flag for collection in collections]
    where = "i.workspace_id = :workspace AND i.document_id = :document"
    parameters: dict[str, Any] = {
        "workspace": key.workspace_id,
        "document": key.document_id,
        "stage": stage,
    }
    if image_ids is not None:
        where += " AND i.id = ANY(CAST(:images AS uuid[]))"
        parameters["images"] = [str(i) for i in image_ids]
    ids = (
        connection.execute(
            text(f"SELECT i.id FROM document_images i WHERE {where} ORDER BY i.id FOR NO KEY UPDATE"),
            parameters,
        )
        .scalars()
        .all()
    )
    delete_vectors(connection, ids, collections)
    flagged = connection.execute(
        text(
            f"UPDATE document_images i SET {', '.join(f'{flag} = false' for flag in flags)}, updated_at = now() "
            f"WHERE {where} AND ({' OR '.join(flags)})"
        ),
        parameters,
    ).rowcount
    connection.execute(
        text(
            "UPDATE document_images i SET stage_skips = i.stage_skips - CAST(:stage AS text), updated_at = now() "
            f"WHERE {where} AND jsonb_exists(i.stage_skips, :stage)"
        ),
        parameters,
    )
    return flagged


def delete_vectors(
    connection: Connection, ids: Sequence[uuid.UUID], collections: Sequence[Collection]
) -> int:
    """Removes the vectors of images that are being removed; the caller deletes their rows along with it."""
    return sum(
        connection.execute(
            text(f"DELETE FROM {collection.qualified} WHERE id = ANY(:ids)"), {"ids": [str(i) for i in ids]}
        ).rowcount
        for collection in collections
    )
