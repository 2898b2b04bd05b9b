"""The SLIG stage: stored images become five vectors each, from one encoding: visual, and its four aspects."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence

import numpy as np
from sqlalchemy import Connection

from embedding_assets.encoders.aspects import ASPECTS, AspectMethod, SubspaceMethod, aspect_space
from embedding_assets.encoders.protocol import Encoder, Prepared, Vectors
from embedding_assets.errors import ModelUnavailable
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.clock import Clock
from embedding_assets.pipeline.stage_runner import StageRunner
from embedding_assets.store import stages
from embedding_assets.store.database import Database
from embedding_assets.store.images import ImageRow
from embedding_assets.store.models import ALL_SLIG
from embedding_assets.store.spaces import (
    ASPECT_COLLECTIONS,
    SLIG,
    Collection,
    active_collection,
    check_space,
    ensure_collection,
    record_speed,
)
from embedding_assets.store.vectors import copy_known_vectors, read_vectors_lacking, write_embeddings

logger = logging.getLogger(__name__)

STAGE = stages.SLIG
FLAG = ALL_SLIG

DERIVED_AT_ONCE = 1_000
"""Stored visual vectors that are read at once to derive aspects from."""


class SligEmbedder(StageRunner[Prepared, Vectors]):
    """Embeds stored images by their looks.

    Args:
        database: where rows and vectors live.
        image_store: where the images' bytes are.
        encoder: the model; its text tower embeds the words of the aspects, once a database.
        aspect_method: how a visual vector becomes those of its aspects.
        batch_size, max_retries, max_throttle_wait_s, decode_threads, clock: see `StageRunner`.
    """

    stage = STAGE
    flag = FLAG

    def __init__(
        self,
        database: Database,
        image_store: ImageStore,
        encoder: Encoder,
        *,
        aspect_method: AspectMethod | None = None,
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
        self.aspect_method: AspectMethod = aspect_method or SubspaceMethod()
        self._collection: Collection | None = None
        self._aspects: dict[str, Collection] = {}

    def open_collection(self) -> Collection:
        """The collection of visual vectors to write to; opens those of the aspects as well.

        Raises:
            ModelUnavailable: the model can't be had.
            SpaceMismatch: the active vectors are of another space than the model's, or another aspect method's.
        """
        space = self.encoder.space
        with self.database.transaction() as connection:
            collection = ensure_collection(connection, SLIG, space)
        self._aspects = {aspect: self._open_aspect(aspect) for aspect in ASPECTS}
        self._collection = collection
        return collection

    def _open_aspect(self, aspect: str) -> Collection:
        name = ASPECT_COLLECTIONS[aspect]
        space = aspect_space(self.encoder.space, self.aspect_method, aspect)
        with self.database.transaction() as connection:
            collection = active_collection(connection, name)
        if collection is not None:
            check_space(collection, space)
            return collection
        logger.info("embedding the words of the aspect %s, once for this database and model", aspect)
        try:
            fitted = self.aspect_method.fit(self.encoder, aspect)  # takes its time: in no transaction
        except ModelUnavailable as error:
            raise ModelUnavailable(
                f"the words of the aspect {aspect} can't be embedded: {error.message}", hint=error.hint
            ) from error
        with self.database.transaction() as connection:
            return ensure_collection(connection, name, space, fitted)

    def preflight(self) -> None:
        self.open_collection()

    @property
    def collection(self) -> Collection:
        """The collection of visual vectors that the pre-flight check opened."""
        return self._collection or self.open_collection()

    @property
    def aspects(self) -> dict[str, Collection]:
        """The collections of the aspects, by aspect, in the order of `ASPECTS`."""
        if not self._aspects:
            self.open_collection()
        return self._aspects

    def prepare_document(self, connection: Connection, key: DocumentKey) -> None:
        """Derives the aspects of images that have a visual vector only (embedded before there were aspects)."""
        after: uuid.UUID | None = None
        while True:
            ids, vectors = read_vectors_lacking(
                connection, key, self.collection, FLAG, after=after, limit=DERIVED_AT_ONCE
            )
            if not ids:
                return
            after = ids[-1]
            write_embeddings(connection, key.workspace_id, ids, self._aspect_vectors(vectors), stage=STAGE)

    def _aspect_vectors(self, vectors: Vectors) -> list[tuple[Collection, Vectors]]:
        found = []
        for collection in self.aspects.values():
            assert collection.projection is not None
            found.append((collection, self.aspect_method.of_images(collection.projection, vectors)))
        return found

    def describe(self) -> str:
        return str(self.encoder.space)

    def load(self, item: ImageRow) -> Prepared:
        return self.encoder.prepare(self.image_store.get(item.store_key))

    def call(self, inputs: Sequence[Prepared]) -> Sequence[Vectors | Exception]:
        """For each image its five vectors, shape (5, dimension): visual, then the aspects in order."""
        visual = self.encoder.encode_images(inputs)
        return list(np.stack([visual, *(vectors for _, vectors in self._aspect_vectors(visual))], axis=1))

    def write(
        self, connection: Connection, workspace_id: str, done: Sequence[tuple[ImageRow, Vectors]]
    ) -> int:
        vectors = np.stack([five for _, five in done], axis=1)
        ids = [row.image_id for row, _ in done]
        collections = [self.collection, *self.aspects.values()]
        return write_embeddings(
            connection, workspace_id, ids, list(zip(collections, vectors, strict=True)), stage=STAGE
        ).images

    def twin_key(self, row: ImageRow) -> str | None:
        return row.content_hash

    def copy_known(
        self, connection: Connection, workspace_id: str, ids: Sequence[uuid.UUID]
    ) -> list[uuid.UUID]:
        collections = [self.collection, *self.aspects.values()]
        return copy_known_vectors(connection, workspace_id, ids, collections, stage=STAGE)

    def speed(self) -> float | None:
        return self.open_collection().images_per_second

    def remember_speed(self, images_per_second: float) -> None:
        collection = self.open_collection()
        with self.database.transaction() as connection:
            record_speed(connection, collection, images_per_second)
