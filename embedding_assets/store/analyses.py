"""Vision analyses in image rows, and what has to change together with them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey
from embedding_assets.store.json_text import clean_json
from embedding_assets.store.spaces import Collection
from embedding_assets.store.stages import UNDERSTANDING, VISION
from embedding_assets.store.vectors import delete_vectors


@dataclass(frozen=True)
class AnalysisVersion:
    """What an analysis is of; analyses of another version do not count. `str()` is what the row holds."""

    provider: str
    model: str
    schema_version: int

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}:schema-{self.schema_version}"


def write_analyses(
    connection: Connection,
    workspace_id: str,
    analyses: Sequence[tuple[uuid.UUID, dict[str, Any]]],
    version: AnalysisVersion,
    understanding: Collection | None,
) -> int:
    """Stores analyses and closes the images' failure records of the stage, in the caller's transaction.

    An understanding vector made from an earlier analysis goes with it, and so do its flag, its skip reason and its
    failure record: the new analysis has another text.

    Args:
        analyses: (image id, analysis as plain JSON values), no id twice.
        understanding: the collection of understanding vectors; None where there is none yet.

    Returns:
        How many images have an analysis of this version now and had none before.
    """
    ids = [str(image_id) for image_id, _ in analyses]
    held = connection.execute(
        text(
            "SELECT id, has_vision_analysis FROM document_images WHERE workspace_id = :workspace "
            "AND id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE"
        ),
        {"workspace": workspace_id, "ids": ids},
    ).all()
    kept = {row.id for row in held}
    if not kept:
        return 0
    if understanding is not None:
        delete_vectors(connection, sorted(kept), [understanding])
    connection.execute(
        text(
            "UPDATE document_images i SET vision_analysis = n.analysis, vision_provider = :provider, "
            "vision_model = :model, vision_version = :version, vision_analyzed_at = now(), "
            "has_vision_analysis = true, has_understanding_embedding = false, "
            "stage_skips = i.stage_skips - 'understanding', updated_at = now() "
            "FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS n(id uuid, analysis jsonb) WHERE i.id = n.id"
        ),
        {
            "provider": version.provider,
            "model": version.model,
            "version": str(version),
            "rows": json.dumps(
                [
                    {"id": str(image_id), "analysis": clean_json(analysis)}
                    for image_id, analysis in analyses
                    if image_id in kept
                ]
            ),
        },
    )
    connection.execute(
        text(
            "UPDATE embedding_failures SET resolved_at = now() WHERE workspace_id = :workspace "
            "AND image_id = ANY(CAST(:ids AS uuid[])) AND stage = ANY(:stages) AND resolved_at IS NULL"
        ),
        {"workspace": workspace_id, "ids": [str(i) for i in kept], "stages": [VISION, UNDERSTANDING]},
    )
    return sum(1 for row in held if not row.has_vision_analysis)


def copy_known_analyses(
    connection: Connection,
    workspace_id: str,
    ids: Sequence[uuid.UUID],
    version: AnalysisVersion,
    understanding: Collection | None,
) -> list[uuid.UUID]:
    """Gives images the analysis of other images of the workspace with the very same bytes.

    Returns:
        Ids of the images that got one.
    """
    rows = connection.execute(
        text(
            "SELECT i.id, d.vision_analysis FROM document_images i JOIN LATERAL ("
            "  SELECT o.vision_analysis FROM document_images o WHERE o.workspace_id = i.workspace_id "
            "  AND o.content_hash = i.content_hash AND o.id <> i.id AND o.has_vision_analysis "
            "  AND o.vision_version = :version ORDER BY o.id LIMIT 1) d ON true "
            "WHERE i.workspace_id = :workspace AND i.id = ANY(CAST(:ids AS uuid[])) AND i.status = 'ready' "
            "AND NOT i.has_vision_analysis"
        ),
        {"workspace": workspace_id, "ids": [str(i) for i in ids], "version": str(version)},
    ).all()
    if rows:
        write_analyses(
            connection, workspace_id, [(row.id, row.vision_analysis) for row in rows], version, understanding
        )
    return [row.id for row in rows]


def expire_analyses(connection: Connection, key: DocumentKey, version: AnalysisVersion) -> int:
    """Makes the document's images that hold an analysis of another version due again.

    The old analysis and its vector stay until the new one replaces them. Returns how many rows changed.
    """
    return connection.execute(
        text(
            "UPDATE document_images SET has_vision_analysis = false, updated_at = now() "
            "WHERE workspace_id = :workspace AND document_id = :document AND has_vision_analysis "
            "AND vision_version IS DISTINCT FROM :version"
        ),
        {"workspace": key.workspace_id, "document": key.document_id, "version": str(version)},
    ).rowcount


def forget_analyses(connection: Connection, key: DocumentKey) -> int:
    """Makes all the document's analysed images due again, as `expire_analyses` does; returns how many rows changed."""
    return connection.execute(
        text(
            "UPDATE document_images SET has_vision_analysis = false, updated_at = now() "
            "WHERE workspace_id = :workspace AND document_id = :document AND has_vision_analysis"
        ),
        {"workspace": key.workspace_id, "document": key.document_id},
    ).rowcount


_WITHOUT_VECTOR = """
FROM document_images i WHERE i.workspace_id = :workspace
AND (CAST(:document AS text) IS NULL OR i.document_id = CAST(:document AS text))
AND i.status = 'ready' AND i.has_vision_analysis AND NOT i.has_understanding_embedding
AND NOT jsonb_exists(i.stage_skips, 'understanding')
"""


def analysed_without_vector(
    connection: Connection,
    workspace_id: str,
    document_id: str | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[uuid.UUID]:
    """Ids of images that have an analysis and no vector of it, in the order of ids, from behind `after` on."""
    rows = connection.execute(
        text(
            f"SELECT i.id {_WITHOUT_VECTOR} AND (CAST(:after AS uuid) IS NULL OR i.id > CAST(:after AS uuid)) "
            "ORDER BY i.id LIMIT :limit"
        ),
        {
            "workspace": workspace_id,
            "document": document_id,
            "after": str(after) if after else None,
            "limit": limit,
        },
    ).scalars()
    return list(rows)


def count_analysed_without_vector(connection: Connection, workspace_id: str, document_id: str | None) -> int:
    """How many images have an analysis and no vector of it."""
    return int(
        connection.execute(
            text(f"SELECT count(*) {_WITHOUT_VECTOR}"), {"workspace": workspace_id, "document": document_id}
        ).scalar_one()
    )


def documents_to_understand(
    connection: Connection, workspace_id: str, document_id: str | None = None
) -> dict[str, int]:
    """Document id -> how many of its images have an analysis and no vector of it; only documents with such images."""
    rows = connection.execute(
        text(
            f"SELECT i.document_id, count(*) AS images {_WITHOUT_VECTOR} "
            "GROUP BY i.document_id ORDER BY i.document_id"
        ),
        {"workspace": workspace_id, "document": document_id},
    ).all()
    return {row.document_id: row.images for row in rows}
