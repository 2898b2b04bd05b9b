"""Rows of jobs: work that was asked for through the API. A job's id is its workspace's own: two may share one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey
from embedding_assets.store.json_text import clean_text, to_json
from embedding_assets.store.models import ALL_SLIG

JobState = Literal["queued", "running", "done", "failed"]
JobMode = Literal["run", "inline"]

ENDED: tuple[JobState, ...] = ("done", "failed")


@dataclass(frozen=True)
class JobRow:
    """A job as the database knows it; see `models.Job` for what each column means."""

    workspace_id: str
    job_id: str
    kind: str
    mode: JobMode
    state: JobState
    request_hash: str
    document_ids: tuple[str, ...] | None
    stages: tuple[str, ...]
    counts: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    backfill_id: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ENDED


def add_job(
    connection: Connection,
    workspace_id: str,
    job_id: str,
    *,
    kind: str,
    mode: JobMode,
    request_hash: str,
    document_ids: Sequence[str] | None,
    stages: Sequence[str],
    counts: Mapping[str, Any],
    created_by: str,
) -> bool:
    """Makes a job's row, queued; returns False, and changes nothing, where the workspace has one of that id."""
    return bool(
        connection.execute(
            text(
                "INSERT INTO jobs (workspace_id, job_id, kind, mode, state, request_hash, document_ids, stages, "
                "counts, created_by) VALUES (:workspace, :job, :kind, :mode, 'queued', :hash, "
                "CAST(:documents AS text[]), CAST(:stages AS text[]), CAST(:counts AS jsonb), :by) "
                "ON CONFLICT (workspace_id, job_id) DO NOTHING"
            ),
            {
                "workspace": workspace_id,
                "job": job_id,
                "kind": kind,
                "mode": mode,
                "hash": request_hash,
                "documents": None if document_ids is None else list(document_ids),
                "stages": list(stages),
                "counts": to_json(dict(counts)),
                "by": created_by,
            },
        ).rowcount
    )


def get_job(
    connection: Connection, workspace_id: str, job_id: str, *, for_update: bool = False
) -> JobRow | None:
    """A workspace's job; None where it has none of that id.

    Args:
        for_update: nobody else changes it before the transaction ends.
    """
    row = connection.execute(
        text(
            "SELECT * FROM jobs WHERE workspace_id = :workspace AND job_id = :job"
            + (" FOR UPDATE" if for_update else "")
        ),
        {"workspace": workspace_id, "job": job_id},
    ).first()
    return None if row is None else _to_job(row)


def page_of_jobs(
    connection: Connection, workspace_id: str, after: tuple[str, str] | None, limit: int
) -> list[JobRow]:
    """A workspace's jobs, the latest first, behind `after` (created_at as ISO text, job id), at most `limit`."""
    behind = "AND (created_at, job_id) < (CAST(:created AS timestamptz), :job) " if after else ""
    created, job = after or (None, None)
    rows = connection.execute(
        text(
            f"SELECT * FROM jobs WHERE workspace_id = :workspace {behind}"
            "ORDER BY created_at DESC, job_id DESC LIMIT :limit"
        ),
        {"workspace": workspace_id, "created": created, "job": job, "limit": limit},
    ).all()
    return [_to_job(row) for row in rows]


def update_job(
    connection: Connection,
    workspace_id: str,
    job_id: str,
    *,
    state: JobState,
    result: Mapping[str, Any] | None = None,
    error: str | None = None,
    backfill_id: str | None = None,
) -> bool:
    """Says how a job is going; `finished_at` is set where it ends. Returns whether there is such a job.

    Args:
        backfill_id: None keeps the one that it has.
    """
    return bool(
        connection.execute(
            text(
                "UPDATE jobs SET state = :state, result = CAST(:result AS jsonb), error = :error, "
                "backfill_id = coalesce(CAST(:backfill AS text), backfill_id), updated_at = now(), "
                "finished_at = CASE WHEN :state IN ('done', 'failed') THEN now() END "
                "WHERE workspace_id = :workspace AND job_id = :job"
            ),
            {
                "workspace": workspace_id,
                "job": job_id,
                "state": state,
                "result": None if result is None else to_json(dict(result)),
                "error": None if error is None else clean_text(error)[:2_000],
                "backfill": backfill_id,
            },
        ).rowcount
    )


def restart_job(connection: Connection, workspace_id: str, job_id: str) -> bool:
    """Queues a job that failed once more, without its backfill; returns whether it was one."""
    return bool(
        connection.execute(
            text(
                "UPDATE jobs SET state = 'queued', error = NULL, result = NULL, backfill_id = NULL, "
                "finished_at = NULL, updated_at = now() "
                "WHERE workspace_id = :workspace AND job_id = :job AND state = 'failed'"
            ),
            {"workspace": workspace_id, "job": job_id},
        ).rowcount
    )


def count_jobs(connection: Connection, workspace_id: str) -> dict[str, int]:
    """A workspace's jobs by state."""
    rows = connection.execute(
        text("SELECT state, count(*) AS jobs FROM jobs WHERE workspace_id = :workspace GROUP BY state"),
        {"workspace": workspace_id},
    ).all()
    return {row.state: row.jobs for row in rows}


def images_without_vectors(connection: Connection, key: DocumentKey) -> list[uuid.UUID]:
    """Ids of the document's images that have not all of their visual vectors, sorted."""
    return list(
        connection.execute(
            text(
                f"SELECT id FROM document_images WHERE workspace_id = :workspace AND document_id = :document "
                f"AND NOT {ALL_SLIG} ORDER BY id"
            ),
            {"workspace": key.workspace_id, "document": key.document_id},
        ).scalars()
    )


def count_since(
    connection: Connection, key: DocumentKey, since: datetime, lacked: Sequence[str]
) -> tuple[int, int]:
    """What became of a document since a moment.

    Args:
        lacked: ids of the images that had no vectors at that moment.

    Returns:
        (image rows that are new, images that have their visual vectors now and had not then).
    """
    row = connection.execute(
        text(
            "SELECT count(*) FILTER (WHERE created_at >= :since) AS saved, "
            f"count(*) FILTER (WHERE {ALL_SLIG} AND (created_at >= :since OR id = ANY(CAST(:lacked AS uuid[])))) "
            "AS embedded FROM document_images WHERE workspace_id = :workspace AND document_id = :document"
        ),
        {
            "workspace": key.workspace_id,
            "document": key.document_id,
            "since": since,
            "lacked": list(lacked),
        },
    ).one()
    return row.saved, row.embedded


def _to_job(row: Any) -> JobRow:
    return JobRow(
        workspace_id=row.workspace_id,
        job_id=row.job_id,
        kind=row.kind,
        mode=row.mode,
        state=row.state,
        request_hash=row.request_hash,
        document_ids=None if row.document_ids is None else tuple(row.document_ids),
        stages=tuple(row.stages),
        counts=dict(row.counts),
        result=row.result,
        error=row.error,
        backfill_id=row.backfill_id,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
    )
