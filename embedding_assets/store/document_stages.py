"""Which version of each stage a document is complete at."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey


def record_done(connection: Connection, keys: Sequence[DocumentKey], stage: str, version: str) -> int:
    """Says that documents are complete at a stage, done by this version of it; returns how many rows changed.

    Documents that are no longer there are left out.

    Args:
        stage: `ingest`, or a name of `store.stages`.
        version: see `pipeline.versions.code_version_of`.
    """
    return connection.execute(
        text(
            "INSERT INTO document_stages AS s (workspace_id, document_id, stage, version) "
            "SELECT d.workspace_id, d.document_id, :stage, :version "
            "FROM unnest(CAST(:workspaces AS text[]), CAST(:documents AS text[])) AS n(workspace_id, document_id) "
            "JOIN documents d USING (workspace_id, document_id) ORDER BY 1, 2 "
            "ON CONFLICT (workspace_id, document_id, stage) "
            "DO UPDATE SET version = excluded.version, done_at = now()"
        ),
        {
            "stage": stage,
            "version": version,
            "workspaces": [key.workspace_id for key in keys],
            "documents": [key.document_id for key in keys],
        },
    ).rowcount
