"""The SLIG stage: stored images become visual vectors."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection

from embedding_assets.encoders.protocol import ImageEncoder, Prepared, Vectors
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.pipeline.clock import Clock
from embedding_assets.pipeline.stage_runner import StageRunner
from embedding_assets.store import stages
from embedding_assets.store.database import Database
from embedding_assets.store.images import ImageRow
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import SLIG, Collection, ensure_collection, record_speed
from embedding_assets.store.vectors import copy_known_vectors, write_embeddings

STAGE = stages.SLIG
FLAG = FLAGS[SLIG]


class SligEmbedder(StageRunner[Prepared, Vectors]):
    """Embeds stored images by their looks.

    Args:
        database: where rows and vectors live.
        image_store: where the images' bytes are.
        encoder: the model.
        batch_size, max_retries, max_throttle_wait_s, decode_threads, clock: see `StageRunner`.
    """

    stage = STAGE
    flag = FLAG

    def __init__(
        self,
        database: Database,
        image_store: ImageStore,
        encoder: ImageEncoder,
        *,
        batch_size: int = 20,
        max_retries: int = 3,
        max_throttle_wait_s: float = 3600.0,
        decode_threads: int = 0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            database,
            batch_size=batch_size,
            max_retries=max_retries,
            max_throttle_wait_s=max_throttle_wait_s,
            threads=decode_threads,
            clock=clock,
        )
        self.image_store = image_store
        self.encoder = encoder
        self._collection: Collection | None = None

    def open_collection(self) -> Collection:
        """The collection to write to.

        Raises:
            ModelUnavailable: the model can't be had.
            SpaceMismatch: the active vectors are of another space than the model's.
        """
        space = self.encoder.space
        with self.database.transaction() as connection:
            self._collection = ensure_collection(connection, SLIG, space)
        return self._collection

    def preflight(self) -> None:
        self.open_collection()

    @property
    def collection(self) -> Collection:
        """The collection that the pre-flight check opened."""
        return self._collection or self.open_collection()

    def describe(self) -> str:
        return str(self.encoder.space)

    def load(self, item: ImageRow) -> Prepared:
        return self.encoder.prepare(self.image_store.get(item.store_key))

    def call(self, inputs: Sequence[Prepared]) -> Sequence[Vectors | Exception]:
        return list(self.encoder.encode_images(inputs))

    def write(
        self, connection: Connection, workspace_id: str, done: Sequence[tuple[ImageRow, Vectors]]
    ) -> int:
        vectors = np.stack([vector for _, vector in done])
        ids = [row.image_id for row, _ in done]
        return write_embeddings(
            connection, workspace_id, ids, [(self.collection, vectors)], stage=STAGE
        ).images

    def twin_key(self, row: ImageRow) -> str | None:
        return row.content_hash

    def copy_known(
        self, connection: Connection, workspace_id: str, ids: Sequence[uuid.UUID]
    ) -> list[uuid.UUID]:
        return copy_known_vectors(connection, workspace_id, ids, [self.collection], stage=STAGE)

    def speed(self) -> float | None:
        return self.open_collection().images_per_second

    def remember_speed(self, images_per_second: float) -> None:
        collection = self.open_collection()
        with self.database.transaction() as connection:
            record_speed(connection, collection, images_per_second)
