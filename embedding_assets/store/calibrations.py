"""Stored calibrations: by what fused search scales each collection's cosines (`search.calibration`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from embedding_assets.store.spaces import Collection


@dataclass(frozen=True)
class Calibration:
    """How high cosines of one kind of query are in a collection.

    Attributes:
        query_kind: "text" or "image".
        low: cosine that is scaled to 0.
        high: cosine that is scaled to 1.
        queries, vectors: how many it was measured with and on.
        rows: vectors in the collection at that time.
    """

    query_kind: str
    low: float
    high: float
    queries: int
    vectors: int
    rows: int


def read_calibrations(
    connection: Connection, collections: Sequence[Collection]
) -> dict[tuple[str, str], Calibration]:
    """Stored calibrations by (`Collection.table`, kind of query)."""
    rows = connection.execute(
        text("SELECT * FROM search_calibrations WHERE collection = ANY(:tables)"),
        {"tables": [collection.table for collection in collections]},
    ).all()
    return {
        (row.collection, row.query_kind): Calibration(
            row.query_kind, row.low, row.high, row.queries, row.vectors, row.rows
        )
        for row in rows
    }


def write_calibration(connection: Connection, collection: Collection, calibration: Calibration) -> None:
    """Stores a calibration in place of an earlier one."""
    connection.execute(
        text(
            "INSERT INTO search_calibrations (collection, query_kind, low, high, queries, vectors, rows) "
            "VALUES (:collection, :kind, :low, :high, :queries, :vectors, :rows) "
            "ON CONFLICT (collection, query_kind) DO UPDATE SET low = excluded.low, high = excluded.high, "
            "queries = excluded.queries, vectors = excluded.vectors, rows = excluded.rows, computed_at = now()"
        ),
        {
            "collection": collection.table,
            "kind": calibration.query_kind,
            "low": calibration.low,
            "high": calibration.high,
            "queries": calibration.queries,
            "vectors": calibration.vectors,
            "rows": calibration.rows,
        },
    )


def count_vectors(connection: Connection, collection: Collection, most: int | None = None) -> int:
    """Vectors in a collection, counted up to `most` (maintenance: not scoped to a workspace)."""
    counted = text(f"SELECT count(*) FROM (SELECT FROM {collection.qualified} LIMIT CAST(:most AS bigint)) n")
    return int(connection.execute(counted, {"most": most}).scalar_one())


def estimate_vectors(connection: Connection, collections: Sequence[Collection]) -> dict[str, int]:
    """Vectors of each collection, by `Collection.table`, as the planner's statistics know them; 0: not known yet."""
    rows = connection.execute(
        text(
            "SELECT c.relname, greatest(c.reltuples, 0)::bigint AS rows FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'vecs' AND c.relname = ANY(:tables)"
        ),
        {"tables": [collection.table for collection in collections]},
    ).all()
    return {row.relname: int(row.rows) for row in rows}


def estimate_shares(connection: Connection) -> dict[str, float]:
    """What part of all images is of each large workspace, as the planner knows it (maintenance: of all workspaces).

    Not in the answer: workspaces that are too small for its statistics, and all of them before there are any.
    """
    rows = connection.execute(
        text(
            "SELECT unnest(s.most_common_vals::text::text[]) AS workspace_id, unnest(s.most_common_freqs) AS share "
            "FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename "
            "JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.schemaname "
            "WHERE c.oid = to_regclass('document_images') AND s.attname = 'workspace_id' AND NOT s.inherited"
        )
    ).all()
    return {row.workspace_id: float(row.share) for row in rows}
