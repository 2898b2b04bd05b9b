"""Removing whole documents: rows, vectors, failures and what the landing folder was seen to hold, together."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey
from embedding_assets.store.landed import forget_landed
from embedding_assets.store.spaces import all_collections
from embedding_assets.store.vectors import delete_vectors


def landing_documents(connection: Connection) -> dict[DocumentKey, str | None]:
    """Documents that come from the landing folder, with their place; posted ones are left out (maintenance: all
    workspaces)."""
    rows = connection.execute(
        text("SELECT workspace_id, document_id, source_uri FROM documents WHERE source_kind <> 'posted'")
    )
    return {DocumentKey(row[0], row[1]): row[2] for row in rows}


def remove_documents(connection: Connection, keys: Sequence[DocumentKey]) -> int:
    """Removes documents with their images, vectors in all collections, and failures; returns how many there were."""
    where = {
        "workspaces": [key.workspace_id for key in keys],
        "documents": [key.document_id for key in keys],
    }
    chosen = "SELECT * FROM unnest(CAST(:workspaces AS text[]), CAST(:documents AS text[]))"
    images = (
        connection.execute(
            text(
                f"SELECT id FROM document_images WHERE (workspace_id, document_id) IN ({chosen}) "
                "ORDER BY id FOR UPDATE"
            ),
            where,
        )
        .scalars()
        .all()
    )
    if images:
        delete_vectors(connection, images, all_collections(connection))
    forget_landed(connection, keys)
    return connection.execute(
        text(f"DELETE FROM documents WHERE (workspace_id, document_id) IN ({chosen})"), where
    ).rowcount
