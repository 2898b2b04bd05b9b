"""Where images stand: finding the images that somebody names by id, or by document and reference."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class ImagePlace:
    """A sound image and where it stands in its source (`reference`: "page 3, image 2", "0004.jpg")."""

    image_id: uuid.UUID
    document_id: str
    reference: str


def find_images(
    connection: Connection,
    workspace_id: str,
    ids: Sequence[uuid.UUID],
    places: Sequence[tuple[str, str]],
) -> list[ImagePlace]:
    """Sound images of a workspace that have one of the ids, or stand at one of the places.

    Args:
        ids: image ids.
        places: (document id, reference) pairs; a posted list may hold one reference twice.

    Returns:
        Those that there are, ordered by id.
    """
    rows = connection.execute(
        text(
            "SELECT id, document_id, reference FROM document_images "
            "WHERE workspace_id = :workspace AND status = 'ready' AND (id = ANY(CAST(:ids AS uuid[])) "
            "OR (document_id, reference) IN (SELECT document_id, reference FROM "
            "unnest(CAST(:documents AS text[]), CAST(:references AS text[])) AS n(document_id, reference))) "
            "ORDER BY id"
        ),
        {
            "workspace": workspace_id,
            "ids": [str(image_id) for image_id in ids],
            "documents": [document for document, _ in places],
            "references": [reference for _, reference in places],
        },
    ).all()
    return [ImagePlace(row.id, row.document_id, row.reference) for row in rows]
