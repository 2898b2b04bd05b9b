"""How many of the true nearest neighbours an index finds, measured on vectors that are stored."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from sqlalchemy import Connection, text

from embedding_assets.store.indexes import VectorIndex
from embedding_assets.store.spaces import Collection


@dataclass(frozen=True)
class Recall:
    """Recall@k of an index, averaged over `queries` stored vectors."""

    value: float
    queries: int


def measure_recall(
    connection: Connection,
    collection: Collection,
    index: VectorIndex,
    *,
    k: int = 10,
    queries: int = 100,
    ef_search: int = 100,
) -> Recall | None:
    """The share of the k nearest neighbours of stored vectors, themselves left out, that the index finds.

    A neighbour that it finds counts where fewer than k rows are truly nearer, so of equally near ones any will do.
    Truth comes from one scan for all queries. Ends the transaction's own settings with the transaction (maintenance:
    not scoped to a workspace).

    Args:
        connection: in a transaction; its settings `enable_seqscan` and `hnsw.ef_search` are changed until its end.
        k: neighbours.
        queries: vectors to try; the first ones by id, which are as good as random, as ids of images are hashes.
        ef_search: candidates that the index looks at.

    Returns:
        None where the collection has no two rows, or Postgres does not use this index for such a query.
    """
    ids = list(
        connection.execute(
            text(f"SELECT id FROM {collection.qualified} ORDER BY id LIMIT :n"), {"n": queries}
        ).scalars()
    )
    rows = connection.execute(text(f"SELECT count(*) FROM {collection.qualified}")).scalar_one()
    if rows < 2:
        return None
    connection.execute(text(f"SET LOCAL hnsw.ef_search = {int(ef_search)}"))
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    found = _found_by(connection, collection, index, ids, k)
    connection.execute(text("SET LOCAL enable_seqscan = on"))
    if found is None:
        return None
    expected = min(k, rows - 1)
    nearer = _rows_nearer(connection, collection, found)
    hits = sum(
        sum(1 for distance in distances if nearer(query, distance) < k) for query, distances in found.items()
    )
    return Recall(hits / (expected * len(ids)), len(ids))


def _found_by(
    connection: Connection, collection: Collection, index: VectorIndex, ids: list[str], k: int
) -> dict[str, list[float]] | None:
    """Exact distances of the up to k neighbours that the index finds for each id; None where it is not used."""
    kind = index.type_name(collection.dimension)
    statement = (
        f"SELECT id, vec <=> (SELECT vec FROM {collection.qualified} WHERE id = :id) AS distance "
        f"FROM {collection.qualified} ORDER BY {index.operand(collection.dimension)} <=> "
        f"(SELECT vec::{kind} FROM {collection.qualified} WHERE id = :id) LIMIT {int(k) + 1}"
    )
    plan = connection.execute(text(f"EXPLAIN {statement}"), {"id": ids[0]}).scalars()
    if not any(f"using {index.name} on" in line.replace('"', "") for line in plan):
        return None
    found = {}
    for query in ids:
        others = [
            row.distance for row in connection.execute(text(statement), {"id": query}) if row.id != query
        ]
        found[query] = others[:k]
    return found


class _RowsNearer:
    """For each query, how many rows are nearer than a distance, of those distances that were asked for."""

    def __init__(self, buckets: dict[str, tuple[list[float], list[int]]]) -> None:
        self._buckets = buckets

    def __call__(self, query: str, distance: float) -> int:
        thresholds, counts = self._buckets[query]
        return sum(counts[: bisect_left(thresholds, distance) + 1])


def _rows_nearer(
    connection: Connection, collection: Collection, found: dict[str, list[float]]
) -> _RowsNearer:
    thresholds = {query: sorted(set(distances)) for query, distances in found.items() if distances}
    buckets = {query: (values, [0] * len(values)) for query, values in thresholds.items()}
    # subvector() makes a copy in memory, exact to the bit: a long vector lies in the table's outer part, and would
    # be read from there again for each of the comparisons. OFFSET 0 keeps Postgres from undoing that.
    dimension = int(collection.dimension)
    counted = connection.execute(
        text(
            f"WITH queries AS MATERIALIZED (SELECT q.id, subvector(v.vec, 1, {dimension}) AS vec, "
            "  CAST(q.distances AS float8[]) AS distances "
            "  FROM unnest(CAST(:ids AS text[]), CAST(:distances AS text[])) AS q(id, distances) "
            f"  JOIN {collection.qualified} v USING (id)) "
            "SELECT near.id, width_bucket(near.distance, near.distances) AS bucket, count(*) AS n "
            f"FROM (SELECT id, subvector(vec, 1, {dimension}) AS vec FROM {collection.qualified} OFFSET 0) v "
            "CROSS JOIN LATERAL (SELECT q.id, q.distances, v.vec <=> q.vec AS distance FROM queries q "
            "  WHERE q.id <> v.id OFFSET 0) near "
            "WHERE near.distance < near.distances[cardinality(near.distances)] GROUP BY 1, 2"
        ),
        {
            "ids": list(thresholds),
            "distances": ["{" + ",".join(map(repr, values)) + "}" for values in thresholds.values()],
        },
    ).all()
    for row in counted:
        buckets[row.id][1][row.bucket] += row.n
    return _RowsNearer(buckets)
