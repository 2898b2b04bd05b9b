"""Failure records: why an image or a document is not done."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from embedding_assets.errors import ErrorClass
from embedding_assets.keys import DocumentKey
from embedding_assets.store.json_text import to_json

RETRY_WAIT_S = 300.0
"""Seconds that the wait before the next run is doubled from: that of `pipeline.retry.LATER`."""
RETRY_DOUBLINGS = 6
"""How often that wait is doubled at most: 64 times 5 minutes are 5 hours and 20 minutes."""

MAX_MESSAGE = 2_000
"""Characters of an error message that are kept."""


@dataclass(frozen=True)
class Failure:
    """One failed image (or document, where `image_id` is None), to be recorded.

    `attempts` counts those of this run; the record adds them up over runs.
    """

    key: DocumentKey
    image_id: uuid.UUID | None
    stage: str
    error_class: ErrorClass
    error_type: str
    message: str
    attempts: int
    next_retry_at: datetime | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class OpenFailure:
    """A failure record that is not resolved, with what a person needs to find the image."""

    key: DocumentKey
    image_id: uuid.UUID | None
    index: int | None
    path: str | None
    page_number: int | None
    stage: str
    error_class: str
    error_type: str
    message: str
    attempts: int
    first_seen_at: datetime
    last_seen_at: datetime
    next_retry_at: datetime | None
    run_id: str | None


_RECORD = """
INSERT INTO embedding_failures AS f (workspace_id, document_id, image_id, stage, error_class, error_type, message,
  attempts, next_retry_at, run_id)
SELECT d.workspace_id, d.document_id, n.image_id, n.stage, n.error_class, n.error_type, n.message, n.attempts,
  n.next_retry_at, n.run_id
FROM jsonb_to_recordset(CAST(:failures AS jsonb)) AS n(workspace_id text, document_id text, image_id uuid,
  stage text, error_class text, error_type text, message text, attempts int, next_retry_at timestamptz, run_id text)
JOIN documents d ON d.workspace_id = n.workspace_id AND d.document_id = n.document_id
WHERE n.image_id IS NULL OR EXISTS (SELECT FROM document_images i WHERE i.id = n.image_id
  AND i.workspace_id = d.workspace_id AND i.document_id = d.document_id)
ORDER BY d.workspace_id, d.document_id, n.stage, n.image_id
ON CONFLICT (workspace_id, document_id, stage,
  coalesce(image_id, '00000000-0000-0000-0000-000000000000'::uuid)) WHERE resolved_at IS NULL
DO UPDATE SET error_class = excluded.error_class, error_type = excluded.error_type, message = excluded.message,
  attempts = f.attempts + excluded.attempts, last_seen_at = now(), run_id = excluded.run_id,
  next_retry_at = excluded.next_retry_at + CASE WHEN f.error_class = 'permanent' OR excluded.error_class = 'permanent'
    THEN interval '0' ELSE make_interval(secs => :wait * (power(2, least(:doublings,
    f.attempts / greatest(1, excluded.attempts))) - 1) * (0.75 + 0.5 * random())) END
"""
# In one order, so that two processes with the same failures can't deadlock.


def record_failures(connection: Connection, failures: Sequence[Failure]) -> int:
    """Opens or brings up to date the records of failures; returns how many rows changed.

    A failure of an image that is no longer there is left out. Where an image fails twice in one call, the last
    failure is kept and the attempts are added up. An image that fails in one run after the other waits longer each
    time: its `next_retry_at` moves by 5, 15, 35 minutes and so on, and a random part.
    """
    merged: dict[tuple[DocumentKey, uuid.UUID | None, str], dict[str, Any]] = {}
    for failure in failures:
        slot = (failure.key, failure.image_id, failure.stage)
        merged[slot] = {
            "workspace_id": failure.key.workspace_id,
            "document_id": failure.key.document_id,
            "image_id": str(failure.image_id) if failure.image_id else None,
            "stage": failure.stage,
            "error_class": failure.error_class.value,
            "error_type": failure.error_type,
            "message": failure.message[:MAX_MESSAGE],
            "attempts": failure.attempts + (merged[slot]["attempts"] if slot in merged else 0),
            "next_retry_at": failure.next_retry_at.isoformat() if failure.next_retry_at else None,
            "run_id": failure.run_id,
        }
    if not merged:
        return 0
    return connection.execute(
        text(_RECORD),
        {"failures": to_json(list(merged.values())), "wait": RETRY_WAIT_S, "doublings": RETRY_DOUBLINGS},
    ).rowcount


def resolve_failures(
    connection: Connection, key: DocumentKey, stage: str, image_ids: Sequence[uuid.UUID] | None
) -> int:
    """Closes open records of a stage; returns how many rows changed.

    Args:
        image_ids: the images whose records to close; None closes the record of the document itself.
    """
    if image_ids is not None and not image_ids:
        return 0
    which = "image_id IS NULL" if image_ids is None else "image_id = ANY(CAST(:images AS uuid[]))"
    return connection.execute(
        text(
            "UPDATE embedding_failures SET resolved_at = now() WHERE workspace_id = :workspace "
            f"AND document_id = :document AND stage = :stage AND resolved_at IS NULL AND {which}"
        ),
        {
            "workspace": key.workspace_id,
            "document": key.document_id,
            "stage": stage,
            "images": [str(i) for i in image_ids or ()],
        },
    ).rowcount


def release_for_retry(connection: Connection, key: DocumentKey, stage: str, run_id: str | None = None) -> int:
    """Makes permanent failures of a document's images due again: somebody asked for it.

    They become transient, so that the next run tries them; returns how many rows changed.
    """
    return connection.execute(
        text(
            "UPDATE embedding_failures SET error_class = 'transient', next_retry_at = now() "
            "WHERE workspace_id = :workspace AND document_id = :document AND stage = :stage "
            "AND image_id IS NOT NULL AND resolved_at IS NULL AND error_class = 'permanent'"
        ),
        {"workspace": key.workspace_id, "document": key.document_id, "stage": stage},
    ).rowcount


def open_failures(
    connection: Connection, workspace_id: str, document_id: str | None = None, limit: int | None = None
) -> list[OpenFailure]:
    """Unresolved failures of a workspace, or of one document of it, in document and page order."""
    rows = connection.execute(
        text(
            "SELECT f.*, i.image_index, i.reference, i.page_number FROM embedding_failures f "
            "LEFT JOIN document_images i ON i.id = f.image_id "
            "WHERE f.workspace_id = :workspace AND f.resolved_at IS NULL "
            "AND (CAST(:document AS text) IS NULL OR f.document_id = CAST(:document AS text)) "
            "ORDER BY f.document_id, i.image_index NULLS FIRST, f.stage LIMIT :limit"
        ),
        {"workspace": workspace_id, "document": document_id, "limit": limit},
    ).all()
    return [to_open_failure(row) for row in rows]


@dataclass(frozen=True)
class RunFailures:
    """The open failures that one run saw last.

    Attributes:
        by_class: how many of each error class.
        first: the first of them, in document and page order.
    """

    by_class: dict[str, int]
    first: tuple[OpenFailure, ...]


def failures_of_run(connection: Connection, run_id: str, limit: int = 5) -> RunFailures:
    """What a run failed at (maintenance: a run may hold documents of several workspaces).

    Args:
        limit: failures given in detail.
    """
    counts = connection.execute(
        text(
            "SELECT error_class, count(*) FROM embedding_failures WHERE run_id = :run AND resolved_at IS NULL "
            "GROUP BY error_class ORDER BY error_class"
        ),
        {"run": run_id},
    ).all()
    rows = connection.execute(
        text(
            "SELECT f.*, i.image_index, i.reference, i.page_number FROM embedding_failures f "
            "LEFT JOIN document_images i ON i.id = f.image_id "
            "WHERE f.run_id = :run AND f.resolved_at IS NULL "
            "ORDER BY f.workspace_id, f.document_id, i.image_index NULLS FIRST, f.stage LIMIT :limit"
        ),
        {"run": run_id, "limit": limit},
    ).all()
    return RunFailures({row[0]: row[1] for row in counts}, tuple(to_open_failure(row) for row in rows))


def to_open_failure(row: Any) -> OpenFailure:
    """The failure that a row of embedding_failures, with its image's columns, stands for."""
    return OpenFailure(
        key=DocumentKey(row.workspace_id, row.document_id),
        image_id=row.image_id,
        index=row.image_index,
        path=row.reference,
        page_number=row.page_number,
        stage=row.stage,
        error_class=row.error_class,
        error_type=row.error_type,
        message=row.message,
        attempts=row.attempts,
        first_seen_at=row.first_seen_at,
        last_seen_at=row.last_seen_at,
        next_retry_at=row.next_retry_at,
        run_id=row.run_id,
    )
