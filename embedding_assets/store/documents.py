"""Rows of documents, and coverage counted from the rows of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey
from embedding_assets.store.json_text import clean_text, to_json
from embedding_assets.store.stages import blamed_stages, excused_by


@dataclass(frozen=True)
class DocumentRow:
    """A document as the database knows it."""

    key: DocumentKey
    source_kind: str
    source_uri: str | None
    posted_images: list[dict[str, Any]] | None
    content_hash: str | None
    title: str | None
    page_count: int | None
    status: str


@dataclass(frozen=True)
class Coverage:
    """How far one document is at one stage.

    `total` = embedded + skipped + rejected + missing. All are counts of images.

    Attributes:
        embedded: images with a vector in the active space.
        skipped: images left out for a stated reason.
        rejected: images with a permanent failure.
        missing: images still to do: not tried yet, not fetched yet, or failed for a passing reason.
        ingested: whether the rows stand for the document's latest content; without it, nothing is complete.
    """

    key: DocumentKey
    total: int
    embedded: int
    skipped: int
    rejected: int
    missing: int
    ingested: bool = True

    @property
    def ratio(self) -> float:
        """Embedded / (total - skipped); 1 where there is nothing to embed."""
        wanted = self.total - self.skipped
        return self.embedded / wanted if wanted else 1.0

    def is_complete(self, minimum: float) -> bool:
        """Whether it is ingested, nothing is missing and the coverage is at least `minimum` (0 to 1)."""
        return self.ingested and self.missing == 0 and self.ratio >= minimum


def _where(key: DocumentKey) -> dict[str, str]:
    return {"workspace": key.workspace_id, "document": key.document_id}


def register_document(
    connection: Connection,
    key: DocumentKey,
    source_kind: str,
    source_uri: str | None = None,
    posted_images: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Makes the document's row, or brings its source up to date; never touches its images."""
    connection.execute(
        text(
            "INSERT INTO documents AS d (workspace_id, document_id, source_kind, source_uri, posted_images) "
            "VALUES (:workspace, :document, :kind, :uri, CAST(:posted AS jsonb)) "
            "ON CONFLICT (workspace_id, document_id) DO UPDATE SET source_kind = excluded.source_kind, "
            "  source_uri = excluded.source_uri, posted_images = excluded.posted_images, updated_at = now() "
            "WHERE (d.source_kind, d.source_uri, d.posted_images) "
            "  IS DISTINCT FROM (excluded.source_kind, excluded.source_uri, excluded.posted_images)"
        ),
        {
            **_where(key),
            "kind": source_kind,
            "uri": None if source_uri is None else clean_text(source_uri),
            "posted": None if posted_images is None else to_json(list(posted_images)),
        },
    )


def get_document(connection: Connection, key: DocumentKey) -> DocumentRow | None:
    """The document's row; None where it is not registered."""
    row = connection.execute(
        text("SELECT * FROM documents WHERE workspace_id = :workspace AND document_id = :document"),
        _where(key),
    ).first()
    if row is None:
        return None
    return DocumentRow(
        key,
        row.source_kind,
        row.source_uri,
        row.posted_images,
        row.content_hash,
        row.title,
        row.page_count,
        row.status,
    )


def list_documents(connection: Connection, workspace_id: str) -> list[DocumentKey]:
    """Keys of a workspace's documents, sorted."""
    rows = connection.execute(
        text("SELECT document_id FROM documents WHERE workspace_id = :workspace ORDER BY document_id"),
        {"workspace": workspace_id},
    ).scalars()
    return [DocumentKey(workspace_id, document_id) for document_id in rows]


def list_workspaces(connection: Connection) -> list[str]:
    """All workspaces that have documents (maintenance: not scoped to a workspace)."""
    return list(
        connection.execute(
            text("SELECT DISTINCT workspace_id FROM documents ORDER BY workspace_id")
        ).scalars()
    )


def mark_ingested(
    connection: Connection, key: DocumentKey, content_hash: str, title: str | None, page_count: int | None
) -> None:
    """Says that the image rows stand for this content."""
    connection.execute(
        text(
            "UPDATE documents SET status = 'ingested', content_hash = :hash, title = :title, "
            "page_count = :pages, ingested_at = now(), updated_at = now() "
            "WHERE workspace_id = :workspace AND document_id = :document"
        ),
        {
            **_where(key),
            "hash": content_hash,
            "title": None if title is None else clean_text(title),
            "pages": page_count,
        },
    )


def mark_failed(connection: Connection, key: DocumentKey) -> None:
    """Says that the document could not be read. Rows and vectors of an earlier reading stay."""
    connection.execute(
        text(
            "UPDATE documents SET status = 'failed', content_hash = NULL, updated_at = now() "
            "WHERE workspace_id = :workspace AND document_id = :document"
        ),
        _where(key),
    )


_COVERAGE = """
SELECT d.document_id, d.status = 'ingested' AS ingested,
       count(i.id) AS total,
       count(*) FILTER (WHERE i.status = 'ready' AND i.{flag}) AS embedded,
       count(*) FILTER (WHERE i.status = 'skipped' OR i.excused OR (i.todo AND i.left_out)) AS skipped,
       count(*) FILTER (WHERE i.status = 'rejected' AND NOT i.excused OR (i.todo AND NOT i.left_out AND i.blamed))
         AS rejected,
       count(*) FILTER (WHERE i.status = 'pending' AND NOT i.excused OR (i.todo AND NOT i.left_out AND NOT i.blamed))
         AS missing
FROM documents d
LEFT JOIN LATERAL (
    SELECT i.id, i.status, i.{flag}, i.status = 'ready' AND NOT i.{flag} AS todo,
           jsonb_exists(i.stage_skips, :stage) AS left_out, {excused} AS excused,
           EXISTS (SELECT FROM embedding_failures f WHERE f.image_id = i.id AND f.stage = ANY(:blamed)
                   AND f.resolved_at IS NULL AND f.error_class = 'permanent') AS blamed
    FROM document_images i WHERE i.workspace_id = d.workspace_id AND i.document_id = d.document_id
) i ON true
WHERE d.workspace_id = :workspace AND (CAST(:document AS text) IS NULL OR d.document_id = CAST(:document AS text))
GROUP BY d.document_id, d.status ORDER BY d.document_id
"""


def coverage_of_workspace(
    connection: Connection, workspace_id: str, flag: str, stage: str, document_id: str | None = None
) -> list[Coverage]:
    """Coverage of each document of a workspace, counted from image rows and open failures.

    Args:
        flag: flag column of the stage's collection (a value of `models.FLAGS`).
        stage: the stage of the failure records that count as rejections.
        document_id: only this document.
    """
    rows = connection.execute(
        text(_COVERAGE.format(flag=flag, excused=excused_by(stage))),
        {
            "workspace": workspace_id,
            "document": document_id,
            "stage": stage,
            "blamed": blamed_stages(stage),
        },
    ).all()
    return [
        Coverage(
            DocumentKey(workspace_id, row.document_id),
            row.total,
            row.embedded,
            row.skipped,
            row.rejected,
            row.missing,
            row.ingested,
        )
        for row in rows
    ]


def coverage_of_document(connection: Connection, key: DocumentKey, flag: str, stage: str) -> Coverage:
    """Coverage of one document; all zero, and not ingested, where it is not registered."""
    rows = coverage_of_workspace(connection, key.workspace_id, flag, stage, key.document_id)
    return rows[0] if rows else Coverage(key, 0, 0, 0, 0, 0, ingested=False)
