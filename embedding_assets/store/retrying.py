"""Failures that somebody wants tried again: all of a workspace, of a document, or of some images."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class FailedStage:
    """A document with open failures at a stage, and how many."""

    document_id: str
    stage: str
    failures: int


_CHOSEN = (
    "workspace_id = :workspace AND resolved_at IS NULL "
    "AND (CAST(:document AS text) IS NULL OR document_id = CAST(:document AS text)) "
    "AND (CAST(:images AS uuid[]) IS NULL OR image_id = ANY(CAST(:images AS uuid[]))) "
    "AND (CAST(:stage AS text) IS NULL OR stage = CAST(:stage AS text))"
)


def failures_to_retry(
    connection: Connection,
    workspace_id: str,
    *,
    document_id: str | None = None,
    image_ids: Sequence[uuid.UUID] | None = None,
    stage: str | None = None,
) -> list[FailedStage]:
    """Open failures of a workspace that are meant, by document and stage."""
    rows = connection.execute(
        text(
            f"SELECT document_id, stage, count(*) AS failures FROM embedding_failures WHERE {_CHOSEN} "
            "GROUP BY document_id, stage ORDER BY document_id, stage"
        ),
        _meant(workspace_id, document_id, image_ids, stage),
    ).all()
    return [FailedStage(row.document_id, row.stage, row.failures) for row in rows]


def release_chosen(
    connection: Connection,
    workspace_id: str,
    *,
    document_id: str | None = None,
    image_ids: Sequence[uuid.UUID] | None = None,
    stage: str | None = None,
) -> int:
    """Makes the permanent ones of them due again, those of ingest apart; returns how many rows changed."""
    return connection.execute(
        text(
            "UPDATE embedding_failures SET error_class = 'transient', next_retry_at = now() "
            f"WHERE {_CHOSEN} AND image_id IS NOT NULL AND error_class = 'permanent' AND stage <> 'ingest'"
        ),
        _meant(workspace_id, document_id, image_ids, stage),
    ).rowcount


def _meant(
    workspace_id: str, document_id: str | None, image_ids: Sequence[uuid.UUID] | None, stage: str | None
) -> dict[str, Any]:
    return {
        "workspace": workspace_id,
        "document": document_id,
        "images": None if image_ids is None else [str(i) for i in image_ids],
        "stage": stage,
    }
