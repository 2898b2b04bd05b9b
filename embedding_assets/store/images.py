"""Rows of images: saving what ingest found, and asking what lacks a vector."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from embedding_assets.ingest.records import FoundImage
from embedding_assets.keys import DocumentKey
from embedding_assets.store.json_text import clean_text, to_json
from embedding_assets.store.spaces import Collection
from embedding_assets.store.stages import TEXT, needs_of
from embedding_assets.store.vectors import delete_vectors


@dataclass(frozen=True)
class ImageRow:
    """What a stage needs to know of an image to work on it."""

    image_id: uuid.UUID
    key: DocumentKey
    index: int
    content_hash: str
    store_key: str
    reference: str
    page_number: int | None
    caption: str | None = None
    nearby_text: str | None = None
    vision_analysis: dict[str, Any] | None = None


_COLUMNS = (
    "id, workspace_id, document_id, image_index, occurrence, content_hash, status, status_reason, reference, "
    "store_key, image_format, width, height, byte_size, page_number, position, bbox, caption, nearby_text, "
    "quality_score, extra"
)
_KEPT = {"id", "workspace_id", "document_id", "occurrence", "content_hash"}
_UPDATED = [name for name in _COLUMNS.split(", ") if name not in _KEPT]
_SAME_TEXT = "(i.caption, i.nearby_text) IS NOT DISTINCT FROM (excluded.caption, excluded.nearby_text)"
_SAVE = f"""
INSERT INTO document_images AS i ({_COLUMNS})
SELECT {_COLUMNS} FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS n(
    id uuid, workspace_id text, document_id text, image_index int, occurrence int, content_hash text, status text,
    status_reason text, reference text, store_key text, image_format text, width int, height int,
    byte_size bigint, page_number int, position int, bbox jsonb, caption text, nearby_text text,
    quality_score float8, extra jsonb)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _UPDATED)}, updated_at = now(),
    has_text_embedding = i.has_text_embedding AND {_SAME_TEXT},
    stage_skips = CASE WHEN {_SAME_TEXT} THEN i.stage_skips ELSE i.stage_skips - '{TEXT}' END
WHERE i.workspace_id = excluded.workspace_id AND i.document_id = excluded.document_id
    AND ({", ".join(f"i.{name}" for name in _UPDATED)})
    IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _UPDATED)})
RETURNING id, (xmax = 0) AS inserted
"""


@dataclass(frozen=True)
class SaveCounts:
    """Rows that a save changed: new images, and known ones whose page, caption or the like changed."""

    inserted: int
    updated: int


def save_images(
    connection: Connection, key: DocumentKey, images: Iterable[tuple[uuid.UUID, int, FoundImage]]
) -> SaveCounts:
    """Inserts images that are new and updates those whose description changed.

    Flags are not touched, but for one: where caption or nearby text changed, the text vector is of another text,
    so its flag falls; the caller drops the vector (`vectors.drop_unflagged`) in the same transaction. An image
    that was left out of the text vectors is then due there again.

    Args:
        images: (image id, occurrence, image); no id twice.
    """
    rows = [
        {
            "id": str(image_id),
            "workspace_id": key.workspace_id,
            "document_id": key.document_id,
            "image_index": image.index,
            "occurrence": occurrence,
            "content_hash": image.content_hash,
            "status": image.status.value,
            "status_reason": image.reason,
            "reference": image.reference,
            "store_key": image.store_key,
            "image_format": image.image_format,
            "width": image.width,
            "height": image.height,
            "byte_size": image.byte_size,
            "page_number": image.page_number,
            "position": image.position,
            "bbox": list(image.bbox) if image.bbox else None,
            "caption": image.caption,
            "nearby_text": image.nearby_text,
            "quality_score": image.quality_score,
            "extra": image.extra,
        }
        for image_id, occurrence, image in images
    ]
    if not rows:
        return SaveCounts(0, 0)
    changed = connection.execute(text(_SAVE), {"rows": to_json(rows)}).all()
    inserted = sum(1 for row in changed if row.inserted)
    return SaveCounts(inserted, len(changed) - inserted)


def remove_images_not_in(
    connection: Connection,
    key: DocumentKey,
    keep: Sequence[uuid.UUID],
    collections: Sequence[Collection],
    *,
    index: int | None = None,
) -> int:
    """Removes the document's images that are not among `keep`: rows, vectors and failures together.

    Args:
        index: only those at this position of the document.

    Returns:
        How many images were removed.
    """
    gone = (
        connection.execute(
            text(
                "SELECT id FROM document_images WHERE workspace_id = :workspace AND document_id = :document "
                "AND NOT id = ANY(CAST(:keep AS uuid[])) "
                "AND (CAST(:index AS int) IS NULL OR image_index = CAST(:index AS int)) ORDER BY id FOR UPDATE"
            ),
            {
                "workspace": key.workspace_id,
                "document": key.document_id,
                "keep": [str(i) for i in keep],
                "index": index,
            },
        )
        .scalars()
        .all()
    )
    if not gone:
        return 0
    delete_vectors(connection, gone, collections)
    return connection.execute(
        text("DELETE FROM document_images WHERE id = ANY(CAST(:ids AS uuid[]))"),
        {"ids": [str(i) for i in gone]},
    ).rowcount


def count_by_status(connection: Connection, key: DocumentKey) -> Counter[str]:
    """How many images the document has of each status."""
    rows = connection.execute(
        text(
            "SELECT status, count(*) AS images FROM document_images "
            "WHERE workspace_id = :workspace AND document_id = :document GROUP BY status"
        ),
        {"workspace": key.workspace_id, "document": key.document_id},
    ).all()
    return Counter({row.status: row.images for row in rows})


def count_before(connection: Connection, key: DocumentKey, content_hash: str, index: int) -> int:
    """How many images before position `index` of the document have the same bytes."""
    return int(
        connection.execute(
            text(
                "SELECT count(*) FROM document_images WHERE workspace_id = :workspace "
                "AND document_id = :document AND content_hash = :hash AND image_index < :index"
            ),
            {
                "workspace": key.workspace_id,
                "document": key.document_id,
                "hash": content_hash,
                "index": index,
            },
        ).scalar_one()
    )


_TO_DO = """
i.status = 'ready' AND NOT i.{flag} AND {needs} AND NOT jsonb_exists(i.stage_skips, :stage)
AND NOT EXISTS (
    SELECT FROM embedding_failures f WHERE f.image_id = i.id AND f.stage = :stage AND f.resolved_at IS NULL
    AND (f.error_class = 'permanent' OR f.run_id = :run_id))
"""


def images_lacking(
    connection: Connection, key: DocumentKey, flag: str, stage: str, run_id: str | None = None
) -> list[uuid.UUID]:
    """Ids of the document's images that are still to do at a stage, in reading order.

    Left out are images that lack what the stage needs (an analysis, say), those skipped there for a stated
    reason or with a permanent failure, and those that already failed in the run `run_id`: their attempts are
    used up, and an op that is retried must not give them new ones.
    """
    rows = connection.execute(
        text(
            "SELECT i.id FROM document_images i WHERE i.workspace_id = :workspace AND i.document_id = :document "
            f"AND {_TO_DO.format(flag=flag, needs=needs_of(stage))} ORDER BY i.image_index, i.id"
        ),
        {"workspace": key.workspace_id, "document": key.document_id, "stage": stage, "run_id": run_id or ""},
    )
    return [row.id for row in rows]


def load_images_to_do(
    connection: Connection,
    workspace_id: str,
    ids: Sequence[uuid.UUID],
    flag: str,
    stage: str,
    run_id: str | None = None,
) -> list[ImageRow]:
    """Rows of those images that are (still) to do, in the order of `ids`; see `images_lacking`."""
    rows = connection.execute(
        text(
            "SELECT i.id, i.document_id, i.image_index, i.content_hash, i.store_key, i.reference, i.page_number, "
            "i.caption, i.nearby_text, i.vision_analysis "
            "FROM document_images i WHERE i.workspace_id = :workspace AND i.id = ANY(CAST(:ids AS uuid[])) "
            f"AND {_TO_DO.format(flag=flag, needs=needs_of(stage))}"
        ),
        {"workspace": workspace_id, "ids": [str(i) for i in ids], "stage": stage, "run_id": run_id or ""},
    ).all()
    found = {
        row.id: ImageRow(
            row.id,
            DocumentKey(workspace_id, row.document_id),
            row.image_index,
            row.content_hash,
            row.store_key,
            row.reference,
            row.page_number,
            row.caption,
            row.nearby_text,
            row.vision_analysis,
        )
        for row in rows
    }
    return [found[i] for i in ids if i in found]


def skip_images(
    connection: Connection, workspace_id: str, reasons: Mapping[uuid.UUID, str], stage: str
) -> int:
    """Leaves images out of a stage, each for its reason; returns how many rows changed."""
    return connection.execute(
        text(
            "UPDATE document_images i SET stage_skips = i.stage_skips || jsonb_build_object(:stage, n.reason), "
            "updated_at = now() FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[])) AS n(id, reason) "
            "WHERE i.id = n.id AND i.workspace_id = :workspace"
        ),
        {
            "workspace": workspace_id,
            "stage": stage,
            "ids": [str(i) for i in reasons],
            "reasons": [clean_text(reason) for reason in reasons.values()],
        },
    ).rowcount


def describe_images(
    connection: Connection, workspace_id: str, ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, Any]:
    """Rows (document_id, page_number, reference, caption, nearby_text, store_key) of images, by id."""
    rows = connection.execute(
        text(
            "SELECT id, document_id, page_number, reference, caption, nearby_text, store_key "
            "FROM document_images WHERE workspace_id = :workspace AND id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"workspace": workspace_id, "ids": [str(i) for i in ids]},
    ).all()
    return {row.id: row for row in rows}
