"""The checkpoint of a document: a set of images, not a number."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from embedding_assets.keys import DocumentKey
from embedding_assets.store.database import Database
from embedding_assets.store.documents import coverage_of_document
from embedding_assets.store.images import images_lacking


@dataclass(frozen=True)
class EmbeddingCheckpoint:
    """What is done and what is left of a document at one stage.

    Attributes:
        done: images with a vector in the active space; for display, never to slice a list with.
        total: images that can have one (skipped ones left out).
        missing: ids of the images that are still to be embedded, in reading order.
    """

    key: DocumentKey
    done: int
    total: int
    missing: tuple[uuid.UUID, ...]


def read_checkpoint(database: Database, key: DocumentKey, flag: str, stage: str) -> EmbeddingCheckpoint:
    """Reads a document's checkpoint from the database, in one transaction."""
    with database.transaction() as connection:
        coverage = coverage_of_document(connection, key, flag, stage)
        missing = images_lacking(connection, key, flag, stage)
    return EmbeddingCheckpoint(key, coverage.embedded, coverage.total - coverage.skipped, tuple(missing))
