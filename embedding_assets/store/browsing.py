"""What people look through: a workspace's documents and their images, page by page, and one image in full."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey
from embedding_assets.store.models import FLAGS


@dataclass(frozen=True)
class DocumentSummary:
    """A document as a list shows it."""

    key: DocumentKey
    title: str | None
    source_kind: str
    page_count: int | None
    status: str
    ingested_at: datetime | None


@dataclass(frozen=True)
class ImageSummary:
    """An image as a grid shows it.

    Attributes:
        index: position in its document, from 0.
        status: ready, skipped, rejected or pending.
        status_reason: why it is skipped or rejected.
        vectors: logical names of the collections that hold a vector of it.
        failed: stages with an open failure record.
    """

    image_id: uuid.UUID
    key: DocumentKey
    index: int
    status: str
    status_reason: str | None
    reference: str
    page_number: int | None
    caption: str | None
    width: int | None
    height: int | None
    vectors: tuple[str, ...]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageDetail:
    """All that is known of one image.

    Attributes:
        vision_analysis: as stored; None where there is none.
        stage_skips: stage -> why the image is left out there.
        vision_provider, vision_model, vision_analyzed_at: who analysed it, and when.
    """

    summary: ImageSummary
    nearby_text: str | None
    vision_analysis: dict[str, Any] | None
    stage_skips: dict[str, str]
    image_format: str | None
    byte_size: int | None
    quality_score: float | None
    store_key: str | None
    vision_provider: str | None
    vision_model: str | None
    vision_analyzed_at: datetime | None


_SUMMARY = (
    "i.id, i.workspace_id, i.document_id, i.image_index, i.status, i.status_reason, i.reference, i.page_number, "
    f"i.caption, i.width, i.height, {', '.join(f'i.{flag}' for flag in FLAGS.values())}"
)
_FAILED = (
    "ARRAY(SELECT f.stage FROM embedding_failures f WHERE f.image_id = i.id AND f.resolved_at IS NULL "
    "ORDER BY f.stage) AS failed"
)


def summarize_documents(
    connection: Connection, workspace_id: str, document_ids: Sequence[str]
) -> dict[str, DocumentSummary]:
    """Those documents of a workspace that there are, by document id."""
    rows = connection.execute(
        text(
            "SELECT document_id, title, source_kind, page_count, status, ingested_at FROM documents "
            "WHERE workspace_id = :workspace AND document_id = ANY(:documents)"
        ),
        {"workspace": workspace_id, "documents": list(document_ids)},
    ).all()
    return {
        row.document_id: DocumentSummary(
            DocumentKey(workspace_id, row.document_id),
            row.title,
            row.source_kind,
            row.page_count,
            row.status,
            row.ingested_at,
        )
        for row in rows
    }


def list_images(
    connection: Connection, key: DocumentKey, *, after: int = -1, limit: int = 100
) -> list[ImageSummary]:
    """A document's images in reading order, from behind position `after`.

    Images that share a position stay together, so there may be a few more than `limit`; the last one's `index` is
    the `after` of the next page.
    """
    rows = connection.execute(
        text(
            f"SELECT {_SUMMARY}, {_FAILED} FROM document_images i "
            "WHERE i.workspace_id = :workspace AND i.document_id = :document AND i.image_index > :after "
            "ORDER BY i.image_index FETCH FIRST :limit ROWS WITH TIES"
        ),
        {"workspace": key.workspace_id, "document": key.document_id, "after": after, "limit": limit},
    ).all()
    return sorted((_summary(row) for row in rows), key=lambda image: (image.index, image.image_id))


def sample_images(
    connection: Connection, workspace_id: str, limit: int, document_id: str | None = None
) -> list[ImageSummary]:
    """Some embedded images of a workspace, of all its documents or of one: always the same while they are there."""
    rows = connection.execute(
        text(
            f"SELECT {_SUMMARY}, ARRAY[]::text[] AS failed FROM document_images i "
            "WHERE i.workspace_id = :workspace AND i.has_slig_embedding AND i.status = 'ready' "
            f"{'' if document_id is None else 'AND i.document_id = :document '}"
            "ORDER BY i.content_hash, i.id LIMIT :limit"  # hashes are as good as drawn
        ),
        {"workspace": workspace_id, "limit": limit, "document": document_id},
    ).all()
    return [_summary(row) for row in rows]


def get_image(connection: Connection, workspace_id: str, image_id: uuid.UUID) -> ImageDetail | None:
    """An image of a workspace in full; None where the workspace has none with that id."""
    row = connection.execute(
        text(
            f"SELECT {_SUMMARY}, {_FAILED}, i.nearby_text, i.vision_analysis, i.stage_skips, i.image_format, "
            "i.byte_size, i.quality_score, i.store_key, i.vision_provider, i.vision_model, "
            "i.vision_analyzed_at FROM document_images i WHERE i.workspace_id = :workspace AND i.id = :image"
        ),
        {"workspace": workspace_id, "image": image_id},
    ).first()
    if row is None:
        return None
    return ImageDetail(
        _summary(row),
        nearby_text=row.nearby_text,
        vision_analysis=row.vision_analysis,
        stage_skips=row.stage_skips,
        image_format=row.image_format,
        byte_size=row.byte_size,
        quality_score=row.quality_score,
        store_key=row.store_key,
        vision_provider=row.vision_provider,
        vision_model=row.vision_model,
        vision_analyzed_at=row.vision_analyzed_at,
    )


def _summary(row: Any) -> ImageSummary:
    return ImageSummary(
        row.id,
        DocumentKey(row.workspace_id, row.document_id),
        row.image_index,
        row.status,
        row.status_reason,
        row.reference,
        row.page_number,
        row.caption,
        row.width,
        row.height,
        tuple(name for name, flag in FLAGS.items() if getattr(row, flag)),
        tuple(row.failed),
    )
