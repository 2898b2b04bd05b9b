"""Running one stage over images: what is to do, in batches, with retries, twins copied, failures recorded.

                what is to do (database)
                       |
       feed:  batches of rows, twins copied -> threads: load ahead -> batch core: call, waves
                                                                          |
                                          one transaction: outputs, flags, failures, skips

What belongs here: what all stages share. What does not: what a stage loads, calls and writes (`slig`,
`vision`, `texts`), and what to do about errors (`batch`).
"""

from __future__ import annotations

import logging
import threading
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import Connection

from embedding_assets.encoders.decode_ahead import prepare_ahead
from embedding_assets.errors import ErrorClass, ImageSkipped
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.batch import BatchRunner, ItemFailure, Progress, describe
from embedding_assets.pipeline.clock import Clock, SystemClock
from embedding_assets.pipeline.report import StageReport
from embedding_assets.pipeline.retry import next_retry
from embedding_assets.store.database import Database
from embedding_assets.store.failures import Failure, record_failures
from embedding_assets.store.images import ImageRow, images_lacking, load_images_to_do, skip_images

logger = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")

BATCHES_AHEAD = 2
"""Batches loaded while one is worked on: what bounds the memory of prepared images."""


class StageRunner(ABC, Generic[In, Out]):
    """Does one stage's work on images, in batches, with retries and a checkpoint in the database.

    Args:
        database: where rows and vectors live.
        batch_size: images worked on and committed together.
        max_retries: tries of an image after its first.
        max_throttle_wait_s: seconds that a batch may wait for a throttling provider.
        threads: threads that load ahead; 0: one per core, 8 at most.
        clock: time.
    """

    stage: ClassVar[str]
    """Name in failure records and logs."""
    flag: ClassVar[str]
    """Column of document_images that says that the stage has done an image."""

    def __init__(
        self,
        database: Database,
        *,
        batch_size: int = 20,
        max_retries: int = 3,
        max_throttle_wait_s: float = 3600.0,
        threads: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.batch_size = batch_size
        self.max_retries = max_retries
        self.max_throttle_wait_s = max_throttle_wait_s
        self.threads = threads
        self.clock: Clock = clock or SystemClock()

    # -- what a stage is ------------------------------------------------------------------------------------
    @abstractmethod
    def preflight(self) -> None:
        """Refuses what can't succeed before anything is written; raises FatalError."""

    @abstractmethod
    def describe(self) -> str:
        """The model or provider, for people."""

    @abstractmethod
    def load(self, item: ImageRow) -> In:
        """Makes the input of one image. Runs in several threads. ImageSkipped leaves the image out."""

    @abstractmethod
    def call(self, inputs: Sequence[In]) -> Sequence[Out | Exception]:
        """One call of the encoder or provider; see `pipeline.batch.Stage`."""

    @abstractmethod
    def write(self, connection: Connection, workspace_id: str, done: Sequence[tuple[ImageRow, Out]]) -> int:
        """Stores outputs, flags and closed failure records; returns how many images are newly done."""

    def prepare_document(self, connection: Connection, key: DocumentKey) -> None:
        """What has to happen in a document's rows before it is asked what is to do; nothing by default."""

    def copy_known(
        self, connection: Connection, workspace_id: str, ids: Sequence[uuid.UUID]
    ) -> list[uuid.UUID]:
        """Gives images the outputs of images with the same bytes; returns those that got one. None by default."""
        return []

    def twin_key(self, row: ImageRow) -> str | None:
        """Images of equal keys have equal outputs, so one of them is enough; None: no such thing."""
        return None

    def split(self, rows: list[ImageRow]) -> list[list[ImageRow]]:
        """Cuts rows into batches that one call takes; one batch by default."""
        return [rows]

    def speed(self) -> float | None:
        """Measured images per second, to size Dagster steps; None where it is not known."""
        return None

    def remember_speed(self, images_per_second: float) -> None:
        """Stores a measured speed; nothing by default."""

    def tokens_used(self) -> int:
        """Tokens that a provider has charged to this process; 0 where there are none."""
        return 0

    # -- what all stages do ---------------------------------------------------------------------------------
    def pending(self, key: DocumentKey, run_id: str | None = None) -> list[uuid.UUID]:
        """Ids of a document's images that are still to do, in reading order (see `store.images_lacking`)."""
        with self.database.transaction() as connection:
            self.prepare_document(connection, key)
            return images_lacking(connection, key, self.flag, self.stage, run_id)

    def run(
        self,
        workspace_id: str,
        ids: Sequence[uuid.UUID],
        *,
        run_id: str | None = None,
        progress: Progress | None = None,
    ) -> StageReport:
        """Does the stage's work on those of the images that are still to do.

        When it returns, each of them is done, skipped with a reason, or has a failure record. What is done when
        it raises stays: each batch is its own transaction.

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
        self.preflight()
        report = StageReport()
        work: _Work[In, Out] = _Work(self, workspace_id, run_id, report)
        runner: BatchRunner[In, Out] = BatchRunner(
            work,
            max_retries=self.max_retries,
            max_throttle_wait_s=self.max_throttle_wait_s,
            clock=self.clock,
            report=report,
        )
        tokens = self.tokens_used()
        try:
            loading = prepare_ahead(work.batches(ids), work.load, self.threads, BATCHES_AHEAD)
            with closing(loading):  # an error must not leave its threads behind
                for prepared in loading:
                    batch = work.next_batch()
                    runner.run(batch, prepared)
                    logger.info(
                        "%s: batch %d of %d images done; %d done, %d failed so far",
                        self.stage,
                        report.batches,
                        len(batch),
                        report.embedded,
                        len(report.failed),
                    )
                    if progress:
                        progress(report)
            for batch in work.leftovers():
                runner.run(batch)
                if progress:
                    progress(report)
        finally:
            report.elapsed_s += self.clock.monotonic() - start
            report.tokens += self.tokens_used() - tokens
        return report


class _Work(Generic[In, Out]):
    """One run of a stage: hands out its batches, and is what the batch core calls (`pipeline.batch.Stage`)."""

    def __init__(
        self, runner: StageRunner[In, Out], workspace_id: str, run_id: str | None, report: StageReport
    ) -> None:
        self.runner = runner
        self.name = runner.stage
        self.workspace_id = workspace_id
        self.run_id = run_id
        self.report = report
        self._handed_out: deque[list[ImageRow]] = deque()
        self._twins: list[uuid.UUID] = []
        self._lock = threading.Lock()

    def next_batch(self) -> list[ImageRow]:
        """The batch that belongs to the next list of prepared images."""
        return self._handed_out.popleft()

    def batches(self, ids: Sequence[uuid.UUID]) -> Iterator[list[ImageRow]]:
        """Batches of images with different outputs to come; their twins wait for `leftovers`."""
        seen: set[str] = set()
        for rows in self._chunks(ids):
            batch = []
            for row in rows:
                twin_key = self.runner.twin_key(row)
                if twin_key is not None and twin_key in seen:
                    self._twins.append(row.image_id)
                    continue
                if twin_key is not None:
                    seen.add(twin_key)
                batch.append(row)
            for part in self.runner.split(batch) if batch else []:
                self._handed_out.append(part)
                yield part

    def leftovers(self) -> Iterator[list[ImageRow]]:
        """Copies the outputs of twins; hands out those whose twin was not done."""
        for rows in self._chunks(self._twins):
            if rows:
                yield from self.runner.split(rows)

    def _chunks(self, ids: Sequence[uuid.UUID]) -> Iterator[list[ImageRow]]:
        size = self.runner.batch_size
        for start in range(0, len(ids), size):
            chunk = ids[start : start + size]
            with self.runner.database.transaction() as connection:
                copied = self.runner.copy_known(connection, self.workspace_id, chunk)
                rows = load_images_to_do(
                    connection, self.workspace_id, chunk, self.runner.flag, self.name, self.run_id
                )
            self.report.copied += len(copied)
            self.report.embedded += len(copied)
            yield rows

    def load(self, item: ImageRow) -> In:
        """Loads one image; runs in several threads."""
        start = self.runner.clock.monotonic()
        try:
            return self.runner.load(item)
        finally:
            with self._lock:
                self.report.decode_s += self.runner.clock.monotonic() - start

    def prepare(self, items: Sequence[ImageRow]) -> Sequence[In | Exception]:
        with closing(prepare_ahead([items], self.load, self.runner.threads, 1)) as loading:
            return next(loading)

    def call(self, inputs: Sequence[In]) -> Sequence[Out | Exception]:
        return self.runner.call(inputs)

    def save(self, done: Sequence[tuple[ImageRow, Out]], failures: Sequence[ItemFailure]) -> int:
        skipped = {f.item.image_id: str(f.error) for f in failures if isinstance(f.error, ImageSkipped)}
        failed = [f for f in failures if f.item.image_id not in skipped]
        with self.runner.database.transaction() as connection:
            written = self.runner.write(connection, self.workspace_id, done) if done else 0
            if skipped:
                skip_images(connection, self.workspace_id, skipped, self.name)
            if failed:
                self._record(connection, failed)
        return written

    def _record(self, connection: Connection, failures: Sequence[ItemFailure]) -> None:
        # Another process may have done an image since this one began; it has not failed then.
        ids = [failure.item.image_id for failure in failures]
        to_do = load_images_to_do(connection, self.workspace_id, ids, self.runner.flag, self.name)
        lacking = {row.image_id for row in to_do}
        now = self.runner.clock.now()
        record_failures(
            connection,
            [
                Failure(
                    key=failure.item.key,
                    image_id=failure.item.image_id,
                    stage=self.name,
                    error_class=failure.error_class,
                    error_type=type(failure.error).__name__,
                    message=describe(failure),
                    attempts=failure.attempts,
                    next_retry_at=None if failure.error_class is ErrorClass.PERMANENT else next_retry(now),
                    run_id=self.run_id,
                )
                for failure in failures
                if failure.item.image_id in lacking
            ],
        )


AnyRunner = StageRunner[Any, Any]
"""A runner of whatever stage."""
