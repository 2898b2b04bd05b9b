"""Which documents lack something at a stage, have failed there, or were done by another version of it.

Each answer is a statement or two over a workspace, whatever the number of documents. Whether a document is complete is
counted as everywhere (`documents.coverage_of_workspace`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey
from embedding_assets.store.documents import coverage_of_workspace
from embedding_assets.store.stages import blamed_stages, excused_by

INGEST = "ingest"


def documents_lacking(
    connection: Connection, workspace_id: str, stage: str, flag: str, minimum: float
) -> list[DocumentKey]:
    """Ingested documents that a run of the stage can bring further.

    Those with images still to do there, and those that are complete but were never materialized. Left out are
    documents that only permanent failures keep below the minimum: a run changes nothing about them.

    Args:
        flag: flag column of the stage.
        minimum: coverage that a document needs, 0 to 1.
    """
    # First by the images that are to do, which an index knows; coverage is counted only where documents that have
    # nothing to do were never materialized, which is rare.
    to_do = _keys(
        connection,
        workspace_id,
        "SELECT DISTINCT i.document_id FROM document_images i JOIN documents d USING (workspace_id, document_id) "
        "WHERE i.workspace_id = :workspace AND d.status = 'ingested' AND ("
        f"i.status = 'ready' AND NOT i.{flag} AND NOT jsonb_exists(i.stage_skips, :stage) "
        "AND NOT EXISTS (SELECT FROM embedding_failures f WHERE f.image_id = i.id AND f.stage = ANY(:blamed) "
        "AND f.resolved_at IS NULL AND f.error_class = 'permanent') "
        f"OR i.status = 'pending' AND NOT {excused_by(stage)}) ORDER BY i.document_id",
        stage=stage,
        blamed=blamed_stages(stage),
    )
    unrecorded = set(
        _keys(
            connection,
            workspace_id,
            "SELECT d.document_id FROM documents d WHERE d.workspace_id = :workspace AND d.status = 'ingested' "
            "AND NOT EXISTS (SELECT FROM document_stages s WHERE s.workspace_id = d.workspace_id "
            "AND s.document_id = d.document_id AND s.stage = :stage)",
            stage=stage,
        )
    ) - set(to_do)
    if not unrecorded:
        return to_do
    coverages = coverage_of_workspace(connection, workspace_id, flag, stage)
    complete = {row.key for row in coverages if row.key in unrecorded and row.is_complete(minimum)}
    return sorted({*to_do, *complete})


def documents_to_ingest(connection: Connection, workspace_id: str) -> list[DocumentKey]:
    """Documents that were never read, wait for images that could not be had, or were never materialized."""
    return _keys(
        connection,
        workspace_id,
        "SELECT d.document_id FROM documents d WHERE d.workspace_id = :workspace AND (d.status = 'registered' "
        "OR d.status = 'ingested' AND (NOT EXISTS (SELECT FROM document_stages s WHERE s.stage = 'ingest' "
        "AND s.workspace_id = d.workspace_id AND s.document_id = d.document_id) "
        "OR EXISTS (SELECT FROM document_images i WHERE i.status = 'pending' "
        "AND i.workspace_id = d.workspace_id AND i.document_id = d.document_id))) ORDER BY d.document_id",
    )


def documents_never_read(connection: Connection, workspace_id: str) -> list[DocumentKey]:
    """Documents that are registered and no more."""
    return _keys(
        connection,
        workspace_id,
        "SELECT document_id FROM documents WHERE workspace_id = :workspace AND status = 'registered' "
        "ORDER BY document_id",
    )


def documents_with_failures(connection: Connection, workspace_id: str, stage: str) -> list[DocumentKey]:
    """Documents with an open failure record at the stage, of an image or of the document itself."""
    return _keys(
        connection,
        workspace_id,
        "SELECT DISTINCT document_id FROM embedding_failures WHERE workspace_id = :workspace AND stage = :stage "
        "AND resolved_at IS NULL ORDER BY document_id",
        stage=stage,
    )


def documents_of_other_versions(
    connection: Connection, workspace_id: str, stage: str, version: str
) -> list[DocumentKey]:
    """Documents that were materialized at the stage by another version of it than this one."""
    return _keys(
        connection,
        workspace_id,
        "SELECT document_id FROM document_stages WHERE workspace_id = :workspace AND stage = :stage "
        "AND version <> :version ORDER BY document_id",
        stage=stage,
        version=version,
    )


def release_failures(connection: Connection, keys: Sequence[DocumentKey], stage: str) -> int:
    """Makes the permanent failures of documents due again: somebody asked for it. Returns how many rows changed.

    At the stage `ingest`, documents with failures are to be read again even where their content has not changed.
    """
    where = {
        "stage": stage,
        "workspaces": [key.workspace_id for key in keys],
        "documents": [key.document_id for key in keys],
    }
    chosen = (
        "JOIN unnest(CAST(:workspaces AS text[]), CAST(:documents AS text[])) AS n(workspace_id, document_id) "
        "USING (workspace_id, document_id)"
    )
    if stage == INGEST:
        return connection.execute(
            text(
                "UPDATE documents SET content_hash = NULL WHERE (workspace_id, document_id) IN "
                f"(SELECT workspace_id, document_id FROM embedding_failures {chosen} "
                "WHERE stage = :stage AND resolved_at IS NULL)"
            ),
            where,
        ).rowcount
    return connection.execute(
        text(
            "UPDATE embedding_failures SET error_class = 'transient', next_retry_at = now() WHERE id IN "
            f"(SELECT id FROM embedding_failures {chosen} WHERE stage = :stage AND image_id IS NOT NULL "
            "AND resolved_at IS NULL AND error_class = 'permanent')"
        ),
        where,
    ).rowcount


def _keys(connection: Connection, workspace_id: str, query: str, **values: Any) -> list[DocumentKey]:
    rows = connection.execute(text(query), {"workspace": workspace_id, **values}).scalars()
    return [DocumentKey(workspace_id, document_id) for document_id in rows]
