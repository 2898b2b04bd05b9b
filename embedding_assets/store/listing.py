"""Lists that are read page by page, each in the order of a key: page n costs no more than page 1."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import Connection, text

from embedding_assets.store.failures import OpenFailure, to_open_failure

FailureCursor = tuple[str, int, str, str]
"""Document, position of the image (-1 for the document itself), stage, image id ("" for the document itself)."""

_NOBODY = "00000000-0000-0000-0000-000000000000"


def page_of_documents(connection: Connection, workspace_id: str, after: str | None, limit: int) -> list[str]:
    """Ids of a workspace's documents behind `after`, sorted, at most `limit`."""
    return list(
        connection.execute(
            text(
                "SELECT document_id FROM documents WHERE workspace_id = :workspace "
                "AND document_id > :after ORDER BY document_id LIMIT :limit"
            ),
            {"workspace": workspace_id, "after": after or "", "limit": limit},
        ).scalars()
    )


def page_of_failures(
    connection: Connection,
    workspace_id: str,
    *,
    document_id: str | None = None,
    stage: str | None = None,
    error_class: str | None = None,
    after: FailureCursor | None = None,
    limit: int = 100,
) -> list[OpenFailure]:
    """Unresolved failures of a workspace in document and page order, behind `after`, at most `limit`."""
    order = f"f.document_id, coalesce(i.image_index, -1), f.stage, coalesce(f.image_id, '{_NOBODY}')"
    behind = ""
    if after is not None:
        behind = f"AND ({order}) > (:document_after, :index_after, :stage_after, CAST(:image_after AS uuid)) "
    document, index, of_stage, image = after or ("", -1, "", "")
    rows = connection.execute(
        text(
            "SELECT f.*, i.image_index, i.reference, i.page_number FROM embedding_failures f "
            "LEFT JOIN document_images i ON i.id = f.image_id "
            "WHERE f.workspace_id = :workspace AND f.resolved_at IS NULL "
            "AND (CAST(:document AS text) IS NULL OR f.document_id = CAST(:document AS text)) "
            "AND (CAST(:stage AS text) IS NULL OR f.stage = CAST(:stage AS text)) "
            "AND (CAST(:class AS text) IS NULL OR f.error_class = CAST(:class AS text)) "
            f"{behind} ORDER BY {order} LIMIT :limit"
        ),
        {
            "workspace": workspace_id,
            "document": document_id,
            "stage": stage,
            "class": error_class,
            "document_after": document,
            "index_after": index,
            "stage_after": of_stage,
            "image_after": image or _NOBODY,
            "limit": limit,
        },
    ).all()
    return [to_open_failure(row) for row in rows]


def cursor_of(failure: OpenFailure) -> FailureCursor:
    """The place of a failure in `page_of_failures`."""
    index = -1 if failure.index is None else failure.index
    return failure.key.document_id, index, failure.stage, str(failure.image_id or "")


def count_vectors_by_kind(
    connection: Connection, workspace_id: str, flags: Sequence[str], document_ids: Sequence[str] | None = None
) -> dict[str, int]:
    """How many images have each flag, in a workspace or in some of its documents.

    Args:
        flags: columns of document_images that say that an image has a vector.
    """
    counts = ", ".join(f"count(*) FILTER (WHERE {flag}) AS {flag}" for flag in flags)
    row = connection.execute(
        text(
            f"SELECT {counts} FROM document_images WHERE workspace_id = :workspace "
            "AND (CAST(:documents AS text[]) IS NULL OR document_id = ANY(CAST(:documents AS text[])))"
        ),
        {"workspace": workspace_id, "documents": None if document_ids is None else list(document_ids)},
    ).one()
    return {flag: getattr(row, flag) for flag in flags}


def documents_of_images(
    connection: Connection, workspace_id: str, ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, str]:
    """Image id -> document id, of those of the images that the workspace has."""
    rows = connection.execute(
        text(
            "SELECT id, document_id FROM document_images WHERE workspace_id = :workspace "
            "AND id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"workspace": workspace_id, "ids": [str(i) for i in ids]},
    ).all()
    return {row.id: row.document_id for row in rows}
