"""Vector indexes: 32-bit against 16-bit numbers, and from how many rows on an index is faster than a scan.

Clustered vectors of 768 numbers (what images look like) and of 1,024 (what texts mean), in the collections and with
the indexes that `embedding-assets indexes` builds, in an embedded Postgres. Recall@10 is against exact search, for
200 stored vectors, themselves left out. Times of queries are medians, of one client, with all pages in memory, for
the 100 nearest, as a search asks for. "writes" is what one transaction of 500 new vectors reaches with the index in
place.

    python benchmarks/indexes.py [--quick] [--check] [--json FILE] [--rows N]
"""

from __future__ import annotations

import statistics
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.reporting import Bar, arguments, finish, machine, print_machine, print_table
from benchmarks.vectors import clustered_vectors, copy_in, empty_database, load_images
from embedding_assets.pipeline.indexing import IndexBuilder, IndexOptions
from embedding_assets.settings import load_settings
from embedding_assets.store.database import Database
from embedding_assets.store.index_builds import create_vector_index, drop_index
from embedding_assets.store.index_recall import measure_recall
from embedding_assets.store.indexes import Kind, VectorIndex, find_indexes, vector_index_name
from embedding_assets.store.spaces import SLIG, UNDERSTANDING, Collection
from embedding_assets.store.vectors import encode_copy

ROWS = 20_000
QUICK_ROWS = 4_000
SIZES = (1_000, 2_000, 5_000, 10_000, 20_000)
QUICK_SIZES = (1_000, 4_000)
CANDIDATES = 100
"""Nearest vectors that a query asks for."""
EF_SEARCH = (40, 100, 200)
QUERIES = 200
WRITTEN = 500

MINIMUM_RECALL = 0.95
MAXIMUM_SIZE = 0.6
MAXIMUM_LOSS = 0.01


def build(
    database: Database, options: IndexOptions, collection: Collection, kind: Kind, rows: int
) -> tuple[VectorIndex, float, int]:
    """Builds an index; returns it, the seconds that took, and its bytes."""
    name = vector_index_name(collection.table, kind, options.m, options.ef_construction)
    done = create_vector_index(
        database,
        collection,
        name,
        kind,
        m=options.m,
        ef_construction=options.ef_construction,
        rows=rows,
        limits=options.limits,
    )
    assert not done.notes, done.notes
    with database.transaction() as connection:
        (size,) = [index.size_bytes for index in find_indexes(connection, collection) if index.name == name]
    return VectorIndex(kind, name), done.seconds, size


def query_times(
    database: Database, collection: Collection, index: VectorIndex | None, ids: Sequence[str], ef_search: int
) -> list[float]:
    """Milliseconds of each query for the nearest candidates; by a scan where there is no index."""
    where = f"(SELECT vec FROM {collection.qualified} WHERE id = :id)"
    order = f"(vec <=> {where}) + 0"
    if index is not None:
        kind = index.type_name(collection.dimension)
        order = f"{index.operand(collection.dimension)} <=> {where}::{kind}"
    statement = text(f"SELECT id FROM {collection.qualified} ORDER BY {order} LIMIT {CANDIDATES}")
    times = []
    with database.transaction() as connection:
        connection.execute(text(f"SET LOCAL hnsw.ef_search = {ef_search}"))
        if index is not None:
            # Postgres takes a scan of vectors that lie outside of the table's main part for much cheaper than it is.
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            plan = connection.execute(text(f"EXPLAIN {statement}"), {"id": ids[0]}).scalars()
            assert any(index.name in line for line in plan)
        for id_ in [*ids[:5], *ids]:
            start = time.perf_counter()
            found = connection.execute(statement, {"id": id_}).all()
            times.append((time.perf_counter() - start) * 1000)
            assert len(found) == min(CANDIDATES, ef_search) or index is None
    return times[5:]


def write_rate(database: Database, collection: Collection) -> float:
    """Rows a second of one transaction that adds vectors; they are taken out again."""
    vectors = clustered_vectors(WRITTEN, collection.dimension, seed=99)
    ids = [uuid.uuid4() for _ in range(WRITTEN)]
    data = encode_copy(ids, vectors, ["{}"] * WRITTEN)
    start = time.perf_counter()
    copy_in(database, f"COPY {collection.qualified} (id, vec, metadata) FROM STDIN BINARY", data)
    seconds = time.perf_counter() - start
    with database.transaction() as connection:
        connection.execute(
            text(f"DELETE FROM {collection.qualified} WHERE id = ANY(:ids)"), {"ids": [str(i) for i in ids]}
        )
    return WRITTEN / seconds


def sample(database: Database, collection: Collection) -> list[str]:
    """Ids of the stored vectors that serve as queries."""
    with database.transaction() as connection:
        return list(
            connection.execute(
                text(f"SELECT id FROM {collection.qualified} ORDER BY id DESC LIMIT :n"), {"n": QUERIES}
            ).scalars()
        )


def compare_kinds(
    database: Database, options: IndexOptions, collection: Collection, count: int
) -> list[dict[str, Any]]:
    """One row for each kind of index on a filled collection; leaves it without one."""
    ids = sample(database, collection)
    rows = []
    without = write_rate(database, collection)
    kinds: tuple[Kind, ...] = ("vector", "halfvec")
    for kind in kinds:
        index, seconds, size = build(database, options, collection, kind, count)
        row: dict[str, Any] = {
            "dimensions": collection.dimension,
            "index": kind,
            "built in s": seconds,
            "MiB": size / 2**20,
        }
        for ef_search in EF_SEARCH:
            with database.transaction() as connection:
                recall = measure_recall(connection, collection, index, queries=QUERIES, ef_search=ef_search)
            assert recall is not None
            row[f"recall@10, ef {ef_search}"] = f"{recall.value:.4f}"
        for ef_search in EF_SEARCH[1:]:
            row[f"ms, ef {ef_search}"] = statistics.median(
                query_times(database, collection, index, ids, ef_search)
            )
        row["writes/s"] = write_rate(database, collection)
        row["without index"] = without
        rows.append(row)
        drop_index(database, index.name)
    return rows


def compare_scan(
    database: Database, options: IndexOptions, collection: Collection, sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """A scan against a halfvec index, over the first N rows of a collection."""
    rows = []
    whole = replace(collection, table=f"{collection.table}_whole")
    with database.transaction() as connection:
        connection.execute(text(f"CREATE TABLE {whole.qualified} AS SELECT * FROM {collection.qualified}"))
    for size in sizes:
        with database.transaction() as connection:
            connection.execute(text(f"TRUNCATE {collection.qualified}"))
            connection.execute(
                text(f"INSERT INTO {collection.qualified} SELECT * FROM {whole.qualified} LIMIT {size}")
            )
        with database.session({}) as connection:
            connection.execute(text(f"VACUUM ANALYZE {collection.qualified}"))
        ids = sample(database, collection)
        index, _, _ = build(database, options, collection, "halfvec", size)
        scan = statistics.median(
            query_times(database, collection, None, ids[: max(10, 400_000 // size)], 100)
        )
        hnsw = statistics.median(query_times(database, collection, index, ids, 100))
        rows.append({"rows": size, "scan, ms": scan, "HNSW, ms": hnsw, "scan / HNSW": scan / hnsw})
        drop_index(database, index.name)
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, help=f"vectors in each collection (default: {ROWS:,})")
    args = parser.parse_args()
    count = args.rows or (QUICK_ROWS if args.quick else ROWS)
    sizes = [size for size in (QUICK_SIZES if args.quick else SIZES) if size <= count]
    with empty_database(shared_buffers="128MB") as database:
        facts = machine("psycopg2-binary", "numpy")
        with database.transaction() as connection:
            facts["postgres"] = connection.execute(text("SHOW server_version")).scalar_one()
            facts["pgvector"] = connection.execute(
                text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
            ).scalar_one()
        print_machine(facts)
        loaded = load_images(
            database,
            ["shop"],
            count,
            {SLIG: 768, **({} if args.quick else {UNDERSTANDING: 1024})},
        )
        options = IndexBuilder.from_settings(load_settings(database_url=database.url), database).options
        kinds: list[dict[str, Any]] = []
        for collection in loaded.collections.values():
            kinds += compare_kinds(database, options, collection, count)
        print_table(kinds)
        scans = compare_scan(database, options, loaded.collections[SLIG], sizes)
        print_table(scans)
    vector, half = kinds[:2]
    bars = [
        Bar("recall@10 of halfvec, ef_search 100", float(half["recall@10, ef 100"]), minimum=MINIMUM_RECALL),
        Bar(
            "recall@10 that halfvec loses",
            float(vector["recall@10, ef 100"]) - float(half["recall@10, ef 100"]),
            maximum=MAXIMUM_LOSS,
        ),
        Bar("size of halfvec, times vector", half["MiB"] / vector["MiB"], maximum=MAXIMUM_SIZE),
    ]
    finish({"machine": facts, "rows": count, "kinds": kinds, "scans": scans}, bars, args)


if __name__ == "__main__":
    main()
