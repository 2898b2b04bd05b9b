"""The SLIG stage: stored images become visual vectors."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np

from embedding_assets.encoders.decode_ahead import prepare_ahead
from embedding_assets.encoders.protocol import ImageEncoder, Prepared, Vectors
from embedding_assets.errors import ErrorClass
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.batch import BatchRunner, ItemFailure, Progress, describe
from embedding_assets.pipeline.clock import Clock, SystemClock
from embedding_assets.pipeline.report import StageReport
from embedding_assets.pipeline.retry import next_retry
from embedding_assets.store.database import Database
from embedding_assets.store.failures import Failure, record_failures
from embedding_assets.store.images import ImageRow, images_lacking, load_images_to_do
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import SLIG, Collection, ensure_collection, record_speed
from embedding_assets.store.vectors import copy_known_vectors, write_embeddings

logger = logging.getLogger(__name__)

STAGE = "slig"
FLAG = FLAGS[SLIG]

BATCHES_AHEAD = 2
"""Batches decoded while the model works on one: what bounds the memory of prepared images."""


class SligEmbedder:
    """Embeds stored images by their looks, in batches, with retries and a checkpoint in the database.

    Args:
        database: where rows and vectors live.
        image_store: where the images' bytes are.
        encoder: the model.
        batch_size: images encoded and committed together.
        max_retries: tries of an image after its first.
        max_throttle_wait_s: seconds that a batch may wait for a throttling provider.
        decode_threads: threads that decode ahead of the model; 0: one per core, 8 at most.
        clock: time.
    """

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
        self.database = database
        self.image_store = image_store
        self.encoder = encoder
        self.batch_size = batch_size
        self.max_retries = max_retries
        self.max_throttle_wait_s = max_throttle_wait_s
        self.decode_threads = decode_threads
        self.clock: Clock = clock or SystemClock()

    def open_collection(self) -> Collection:
        """The collection to write to; the pre-flight check of every run.

        Raises:
            ModelUnavailable: the model can't be had.
            SpaceMismatch: the active vectors are of another space than the model's.
        """
        space = self.encoder.space
        with self.database.transaction() as connection:
            return ensure_collection(connection, SLIG, space)

    def pending(self, key: DocumentKey, run_id: str | None = None) -> list[uuid.UUID]:
        """Ids of a document's images that are still to do, in reading order (see `store.images_lacking`)."""
        with self.database.transaction() as connection:
            return images_lacking(connection, key, FLAG, STAGE, run_id)

    def embed(
        self,
        workspace_id: str,
        ids: Sequence[uuid.UUID],
        *,
        run_id: str | None = None,
        progress: Progress | None = None,
    ) -> StageReport:
        """Embeds those of the images that are still to do.

        When it returns, each of them has its vector or a failure record. What is embedded when it raises
        stays: each batch is its own transaction.

        Args:
            workspace_id: workspace of all the images.
            ids: image ids; images that are done already are left out.
            run_id: recorded with failures. Images that failed in this very run are not tried again.
            progress: called after each batch.

        Raises:
            FatalError: a person has to act.
            InfrastructureError: the database or the model is gone; try the whole call again.
        """
        start = self.clock.monotonic()
        collection = self.open_collection()
        report = StageReport()
        stage = _SligStage(self, collection, workspace_id, run_id, report)
        runner: BatchRunner[Prepared, Vectors] = BatchRunner(
            stage,
            max_retries=self.max_retries,
            max_throttle_wait_s=self.max_throttle_wait_s,
            clock=self.clock,
            report=report,
        )
        feed = _Feed(self, collection, workspace_id, run_id, report)
        try:
            decoding = prepare_ahead(feed.batches(ids), stage.load, self.decode_threads, BATCHES_AHEAD)
            with closing(decoding):  # an error must not leave its threads behind
                for prepared in decoding:
                    batch = feed.next_batch()
                    runner.run(batch, prepared)
                    logger.info(
                        "slig: batch %d of %d images done; %d embedded, %d failed so far",
                        report.batches,
                        len(batch),
                        report.embedded,
                        len(report.failed),
                    )
                    if progress:
                        progress(report)
            for batch in feed.leftovers():
                runner.run(batch)
                if progress:
                    progress(report)
        finally:
            report.elapsed_s += self.clock.monotonic() - start
        return report

    def remember_speed(self, images_per_second: float) -> None:
        """Stores a measured speed, by which later runs size their steps."""
        collection = self.open_collection()
        with self.database.transaction() as connection:
            record_speed(connection, collection, images_per_second)


class _Feed:
    """Hands out batches of rows that are still to do; gives known bytes their known vectors on the way."""

    def __init__(
        self,
        embedder: SligEmbedder,
        collection: Collection,
        workspace_id: str,
        run_id: str | None,
        report: StageReport,
    ) -> None:
        self.embedder = embedder
        self.collection = collection
        self.workspace_id = workspace_id
        self.run_id = run_id
        self.report = report
        self._handed_out: deque[list[ImageRow]] = deque()
        self._twins: list[uuid.UUID] = []

    def next_batch(self) -> list[ImageRow]:
        """The batch that belongs to the next list of prepared images."""
        return self._handed_out.popleft()

    def batches(self, ids: Sequence[uuid.UUID]) -> Iterator[list[ImageRow]]:
        """Batches of images with different bytes; further images with the same bytes wait for `leftovers`."""
        seen: set[str] = set()
        for rows in self._chunks(ids):
            batch = []
            for row in rows:
                if row.content_hash in seen:
                    self._twins.append(row.image_id)
                else:
                    seen.add(row.content_hash)
                    batch.append(row)
            if batch:
                self._handed_out.append(batch)
                yield batch

    def leftovers(self) -> Iterator[list[ImageRow]]:
        """Copies the vectors of images with the same bytes; hands out those whose twin was not embedded."""
        for rows in self._chunks(self._twins):
            if rows:
                yield rows

    def _chunks(self, ids: Sequence[uuid.UUID]) -> Iterator[list[ImageRow]]:
        size = self.embedder.batch_size
        for start in range(0, len(ids), size):
            chunk = ids[start : start + size]
            with self.embedder.database.transaction() as connection:
                copied = copy_known_vectors(
                    connection, self.workspace_id, chunk, [self.collection], stage=STAGE
                )
                rows = load_images_to_do(connection, self.workspace_id, chunk, FLAG, STAGE, self.run_id)
            self.report.copied += len(copied)
            self.report.embedded += len(copied)
            yield rows


class _SligStage:
    """What the batch core calls; see `pipeline.batch.Stage`."""

    name = STAGE

    def __init__(
        self,
        embedder: SligEmbedder,
        collection: Collection,
        workspace_id: str,
        run_id: str | None,
        report: StageReport,
    ) -> None:
        self.embedder = embedder
        self.collection = collection
        self.workspace_id = workspace_id
        self.run_id = run_id
        self.report = report
        self._lock = threading.Lock()

    def load(self, item: ImageRow) -> Prepared:
        """Reads and prepares one image; runs in several threads."""
        start = self.embedder.clock.monotonic()
        try:
            return self.embedder.encoder.prepare(self.embedder.image_store.get(item.store_key))
        finally:
            with self._lock:
                self.report.decode_s += self.embedder.clock.monotonic() - start

    def prepare(self, items: Sequence[ImageRow]) -> Sequence[Prepared | Exception]:
        with closing(prepare_ahead([items], self.load, self.embedder.decode_threads, 1)) as ahead:
            return next(ahead)

    def call(self, inputs: Sequence[Prepared]) -> Sequence[Vectors | Exception]:
        return list(self.embedder.encoder.encode_images(inputs))

    def save(self, done: Sequence[tuple[ImageRow, Vectors]], failures: Sequence[ItemFailure]) -> int:
        now = self.embedder.clock.now()
        with self.embedder.database.transaction() as connection:
            written = 0
            if done:
                written = write_embeddings(
                    connection,
                    self.workspace_id,
                    [row.image_id for row, _ in done],
                    [(self.collection, np.stack([vector for _, vector in done]))],
                    stage=STAGE,
                ).images
            if not failures:
                return written
            # Another process may have embedded an image since this one began; it has not failed then.
            failed = [failure.item.image_id for failure in failures]
            to_do = load_images_to_do(connection, self.workspace_id, failed, FLAG, STAGE)
            lacking = {row.image_id for row in to_do}
            record_failures(
                connection,
                [
                    Failure(
                        key=failure.item.key,
                        image_id=failure.item.image_id,
                        stage=STAGE,
                        error_class=failure.error_class,
                        error_type=type(failure.error).__name__,
                        message=describe(failure),
                        attempts=failure.attempts,
                        next_retry_at=None
                        if failure.error_class is ErrorClass.PERMANENT
                        else next_retry(now),
                        run_id=self.run_id,
                    )
                    for failure in failures
                    if failure.item.image_id in lacking
                ],
            )
        return written
