"""Documents that are already done, written straight into the tables: image rows, vectors, flags, partitions and
materializations, as many as wanted in minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text

from embedding_assets.encoders.protocol import EmbeddingSpace
from embedding_assets.keys import DocumentKey
from embedding_assets.store.database import Database
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import active_collection, ensure_collection
from embedding_assets.store.vectors import METADATA

WORKSPACE = "bench"
IMAGES_PER_DOCUMENT = 10
ASSETS = (
    "document_images",
    "slig_embeddings",
    "vision_analysis",
    "understanding_embeddings",
    "text_embeddings",
)

_ANALYSIS = (
    '{"material_type": "porcelain", "category": "tiles", "colors": ["warm grey", "sand"], "textures": ["matte"], '
    '"description": "A rectified porcelain tile with a stone look, laid in a running bond", "applications": '
    '["wall", "floor"], "dimensions": "600 x 600 mm"}'
)
_NEARBY = "Rectified porcelain, slip rating R10, frost resistant, suited to underfloor heating. " * 2


def document_key(number: int) -> DocumentKey:
    """The key of a document by its number."""
    return DocumentKey(WORKSPACE, f"catalogue-{number:06d}.pdf")


_NAME = "'catalogue-' || lpad(d::text, 6, '0') || '.pdf'"
"""The same as SQL, from the number `d`."""


def land_documents(landing: str, first: int, last: int) -> None:
    """Puts a small file for each document into the landing folder."""
    folder = Path(landing) / WORKSPACE
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, last):
        (folder / document_key(number).document_id).write_bytes(b"%PDF-1.7 " + str(number).encode())


def fill_rows(database: Database, first: int, last: int) -> float:
    """Writes documents `first` to `last - 1` with all their images embedded; returns the seconds."""
    start = time.perf_counter()
    range_ = {"first": first, "last": last - 1, "images": IMAGES_PER_DOCUMENT - 1, "workspace": WORKSPACE}
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO documents (workspace_id, document_id, source_kind, source_uri, content_hash, title, "
                "page_count, status, ingested_at) "
                f"SELECT :workspace, {_NAME}, 'pdf', '/landing/' || d, md5(d::text), "
                "'Catalogue ' || d, 12, 'ingested', now() FROM generate_series(:first, :last) d"
            ),
            range_,
        )
        flags = ", ".join(FLAGS.values())
        connection.execute(
            text(
                "INSERT INTO document_images (id, workspace_id, document_id, image_index, occurrence, content_hash, "
                "status, reference, store_key, image_format, width, height, byte_size, page_number, position, "
                "caption, nearby_text, quality_score, vision_analysis, vision_provider, vision_model, "
                f"vision_version, vision_analyzed_at, has_vision_analysis, {flags}) "
                f"SELECT md5('image ' || d || ' ' || n)::uuid, :workspace, {_NAME}, n, "
                "0, encode(sha256(convert_to(d || ' ' || n, 'UTF8')), 'hex'), 'ready', 'page ' || n, "
                "'ab/' || md5(d || ' ' || n) || '.jpg', 'JPEG', 1024, 768, 120000, n + 1, 0, 'Figure ' || n, "
                ":nearby, 0.5, CAST(:analysis AS jsonb), 'local', 'demo', 'local:demo:1', now(), true, "
                f"{', '.join('true' for _ in FLAGS)} "
                "FROM generate_series(:first, :last) d, generate_series(0, :images) n"
            ),
            {**range_, "analysis": _ANALYSIS, "nearby": _NEARBY},
        )
        for name in FLAGS:
            collection = active_collection(connection, name) or ensure_collection(
                connection, name, EmbeddingSpace(f"benchmark of {name}", "none", "none", 8)
            )
            connection.execute(
                text(
                    f"INSERT INTO {collection.qualified} (id, vec, metadata) SELECT i.id::text, "
                    f"CAST(:vector AS vector), {METADATA} FROM document_images i "
                    "WHERE i.workspace_id = :workspace AND i.document_id >= :first"
                ),
                {
                    "workspace": WORKSPACE,
                    "first": document_key(first).document_id,
                    "vector": str([round(collection.dimension**-0.5, 6)] * collection.dimension),
                },
            )
    _vacuum(database.engine, ["documents", "document_images", *(f'vecs."{name}"' for name in FLAGS)])
    return time.perf_counter() - start


def _vacuum(engine: Engine, tables: list[str]) -> None:
    """Does what autovacuum would have done by the time that so many documents are done."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in tables:
            connection.execute(text(f"VACUUM ANALYZE {table}"))


def fill_instance(instance: Any, first: int, last: int) -> float:
    """Registers the partitions and writes one materialization each of the five assets; returns the seconds.

    One materialization of each asset is reported to Dagster, and its row copied for the other documents.
    """
    import dagster as dg

    from embedding_assets.defs.partitions import documents

    start = time.perf_counter()
    engine = create_engine(str(instance.event_log_storage.postgres_url))
    template = str(document_key(last - 1))
    for asset in ASSETS:
        numbers = {"images": 10, "embedded": 10, "skipped": 0, "rejected": 0, "missing": 0, "coverage": 1.0}
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key=dg.AssetKey(asset),
                partition=template,
                metadata={**numbers, "failed_images": dg.MetadataValue.md("none")},
            )
        )
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO dynamic_partitions (partitions_def_name, partition) SELECT :name, "
                f"'{WORKSPACE}/' || {_NAME} FROM generate_series(:first, :last) d"
            ),
            {"name": documents.name, "first": first, "last": last - 1},
        )
        for asset in ASSETS:
            _copy_materialization(connection, asset, template, first, last - 1)
    _vacuum(engine, ["dynamic_partitions", "event_logs", "asset_event_tags"])
    engine.dispose()
    return time.perf_counter() - start


def _copy_materialization(connection: Connection, asset: str, template: str, first: int, last: int) -> None:
    connection.execute(
        text(
            "INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition) "
            "SELECT run_id, replace(event, :template, p), dagster_event_type, timestamp, step_key, asset_key, p "
            "FROM event_logs e, LATERAL (SELECT "
            f"'{WORKSPACE}/' || {_NAME} AS p FROM generate_series(:first, :last) d) names "
            "WHERE e.partition = :template AND e.asset_key = :asset AND p <> :template "
            "AND e.dagster_event_type = 'ASSET_MATERIALIZATION'"
        ),
        {"template": template, "asset": f'["{asset}"]', "first": first, "last": last},
    )
