"""What a query may be, and what a found image looks like."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection

from embedding_assets.errors import PermanentError
from embedding_assets.keys import DocumentKey
from embedding_assets.store.images import describe_images

MAX_QUERY_CHARACTERS = 2_000
MAX_TOP_K = 200


@dataclass(frozen=True)
class Hit:
    """One found image. `score` is the cosine similarity of query and image, -1 to 1."""

    image_id: uuid.UUID
    score: float
    document: DocumentKey
    page_number: int | None
    reference: str
    caption: str | None
    store_key: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {**asdict(self), "image_id": str(self.image_id), "document": str(self.document)}


def checked_query(text: str) -> str:
    """The query without blanks around it; raises PermanentError where it is empty or too long."""
    query = text.strip()
    if not query:
        raise PermanentError("the query is empty", hint="say what to look for, such as 'blue herringbone'")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise PermanentError(f"the query has {len(query)} characters; {MAX_QUERY_CHARACTERS} is the limit")
    return query


def describe_hits(
    connection: Connection, workspace_id: str, found: Sequence[tuple[uuid.UUID, float]]
) -> list[Hit]:
    """Hits with what a person wants to see of them, in the order found."""
    rows = describe_images(connection, workspace_id, [image_id for image_id, _ in found])
    return [
        Hit(
            image_id=image_id,
            score=score,
            document=DocumentKey(workspace_id, rows[image_id].document_id),
            page_number=rows[image_id].page_number,
            reference=rows[image_id].reference,
            caption=rows[image_id].caption,
            store_key=rows[image_id].store_key,
        )
        for image_id, score in found
        if image_id in rows
    ]
