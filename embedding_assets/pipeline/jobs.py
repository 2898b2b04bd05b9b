"""Jobs: work that was asked for from outside, carried out by Dagster's queue or here, and followed by its id.

    asked for -> row (queued) -> runs in the queue, or a thread of this process -> ended: done or failed
                    |
        the same id and request again: the job as it is; after a failure, once more

Progress is counted in the database, as everywhere; Dagster only tells whether runs wait, go on or have ended.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from embedding_assets.errors import PermanentError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import assets_in_use, stages_in_use
from embedding_assets.pipeline.requests import WorkToDo
from embedding_assets.pipeline.service import ImageEmbeddingService, failed_image
from embedding_assets.settings import Settings
from embedding_assets.store.coverage_totals import CoverageTotal, coverage_totals
from embedding_assets.store.database import Database
from embedding_assets.store.failures import open_failures
from embedding_assets.store.jobs import (
    ENDED,
    JobMode,
    JobRow,
    JobState,
    add_job,
    count_since,
    get_job,
    images_without_vectors,
    restart_job,
    update_job,
)
from embedding_assets.store.listing import count_vectors_by_kind
from embedding_assets.store.models import FLAGS
from embedding_assets.store.stages import SLIG, VISION

logger = logging.getLogger(__name__)

SAVE_IMAGES = "save_images"
INLINE_STAGES_LEFT_OUT = ("text",)
"""Stages that a job in this process does not run; see `ImageEmbeddingService`."""


MAX_LISTED = 1_000
"""Documents that a job lists; with more, its progress is that of the whole workspace."""


class JobConflict(PermanentError):  # noqa: N818
    """The job id was used before, for something else."""


@dataclass(frozen=True)
class QueuedRuns:
    """How the runs of a job are going.

    Attributes:
        state: queued, running, done or failed.
        run_ids: of the runs that there are, the latest first.
        reason: why it failed; "" where it did not.
    """

    state: JobState
    run_ids: tuple[str, ...]
    reason: str


class RunQueue(Protocol):
    """Where runs over documents are asked for."""

    def submit(
        self,
        targets: Mapping[str, Sequence[DocumentKey]],
        *,
        title: str,
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> str:
        """Asks for runs that materialize documents: asset -> documents, asset -> config. Returns an id for them."""

    def look(self, backfill_id: str) -> QueuedRuns:
        """How they are going."""

    def is_served(self) -> bool:
        """Whether something is there to start them."""

    def depth(self) -> dict[str, int]:
        """Runs that have not ended, by status."""

    def close(self) -> None:
        """Lets go of what it holds."""


@dataclass(frozen=True)
class JobProgress:
    """A job and how far it is.

    Attributes:
        row: the job.
        stages: sums over its documents at each stage that it runs.
        vectors: images of its documents with a vector, by logical name of the collection.
        run_ids: Dagster runs that work on it.
        served: whether a daemon is there to start its runs; None where it needs none.
    """

    row: JobRow
    stages: dict[str, CoverageTotal]
    vectors: dict[str, int]
    run_ids: tuple[str, ...] = ()
    served: bool | None = None


@dataclass(frozen=True)
class PostedList:
    """A posted document: its images as `ImageEmbeddingService` takes them, and how to work on them."""

    key: DocumentKey
    images: Sequence[Mapping[str, Any]] = field(repr=False)
    batch_size: int | None = None
    max_retries: int | None = None

    def config(self, settings: Settings) -> dict[str, dict[str, Any]]:
        """Run config by asset."""
        config: dict[str, dict[str, Any]] = {}
        for stage in stages_in_use(settings):
            values: dict[str, Any] = {}
            if self.batch_size is not None and stage.name in (SLIG, VISION):
                values["batch_size"] = self.batch_size
            if self.max_retries is not None:
                values["max_retries"] = self.max_retries
            if values:
                config[stage.asset] = values
        return config


class JobService:
    """Starts jobs and tells how they are going. Safe to share between threads.

    Args:
        database: where jobs are kept.
        settings: of the stages.
        queue: takes runs.
        embedding: saves and embeds posted lists, for jobs in this process; made when first needed.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        queue: RunQueue,
        embedding: Callable[[], ImageEmbeddingService],
    ) -> None:
        self.database = database
        self.settings = settings
        self.queue = queue
        self._embedding = embedding
        # One at a time: a job keeps the model and all cores busy by itself.
        self._here = ThreadPoolExecutor(1, thread_name_prefix="inline-job")
        self._running: dict[tuple[str, str], Future[None]] = {}
        self._lock = threading.Lock()

    # -- starting --------------------------------------------------------------------------------------------
    def save_images(
        self, posted: PostedList, job_id: str, *, mode: JobMode, created_by: str, wait_s: float
    ) -> JobProgress:
        """Saves and embeds a posted list, by the queue or here.

        Args:
            mode: "run": by the queue, and this returns at once; "inline": in this process.
            created_by: id of the key that asked.
            wait_s: seconds that this waits for a job in this process; it goes on after that.

        Raises:
            JobConflict: the id was used for another request.
            DocumentError: the document lies in the landing folder.
            EmbeddingAssetsError: the job ran here and failed.
        """
        key = posted.key
        stages = [
            stage.name
            for stage in stages_in_use(self.settings)
            if mode == "run" or stage.name not in INLINE_STAGES_LEFT_OUT
        ]
        digest = request_hash(
            SAVE_IMAGES, key.document_id, list(posted.images), posted.batch_size, posted.max_retries
        )
        with self.database.transaction() as connection:
            add_job(
                connection,
                key.workspace_id,
                job_id,
                kind=SAVE_IMAGES,
                mode=mode,
                request_hash=digest,
                document_ids=[key.document_id],
                stages=stages,
                counts={
                    "posted": len(posted.images),
                    "lacked": [str(i) for i in images_without_vectors(connection, key)],
                },
                created_by=created_by,
            )
            row = self._same_request(get_job(connection, key.workspace_id, job_id), digest)
            restart_job(connection, key.workspace_id, job_id)
        if row.mode == "run":
            self._submit(
                key.workspace_id,
                job_id,
                {asset: [key] for asset in assets_in_use(self.settings)},
                posted.config(self.settings),
                before=lambda: self._embedding().ingestor.register_posted(key, posted.images),
            )
        elif row.state != "done":
            self._run_here(posted, job_id, wait_s)
        return self.progress(key.workspace_id, job_id)

    def start(
        self,
        workspace_id: str,
        kind: str,
        find: Callable[[], WorkToDo],
        *,
        job_id: str | None,
        asked: Mapping[str, Any],
        created_by: str,
    ) -> JobProgress:
        """Starts a job by the queue.

        Args:
            kind: what it is, for people.
            find: finds what is to be done, and makes it due; not called where the id was used already.
            job_id: an id that makes the request repeatable; None draws one.
            asked: what was asked for, to tell whether the same id means the same.

        Raises:
            JobConflict: the id was used for another request.
        """
        chosen = job_id or f"{kind}-{uuid.uuid4()}"
        digest = request_hash(kind, asked)
        with self.database.transaction() as connection:
            row = get_job(connection, workspace_id, chosen)
        if row is not None and self._same_request(row, digest).state != "failed":
            return self.progress(workspace_id, chosen)
        work = find()
        stages = [stage.name for stage in stages_in_use(self.settings) if stage.asset in work.targets]
        with self.database.transaction() as connection:
            add_job(
                connection,
                workspace_id,
                chosen,
                kind=kind,
                mode="run",
                request_hash=digest,
                document_ids=work.document_ids if len(work.document_ids) <= MAX_LISTED else None,
                stages=stages,
                counts={**work.counts, "documents": len(work.document_ids)},
                created_by=created_by,
            )
            self._same_request(get_job(connection, workspace_id, chosen), digest)
            restart_job(connection, workspace_id, chosen)
            if not work.targets:
                update_job(connection, workspace_id, chosen, state="done", result={})
        if work.targets:
            self._submit(workspace_id, chosen, work.targets)
        return self.progress(workspace_id, chosen)

    # -- following -------------------------------------------------------------------------------------------
    def find(self, workspace_id: str, job_id: str) -> JobProgress | None:
        """A workspace's job and how far it is; None where it has none of that id."""
        with self.database.transaction() as connection:
            row = get_job(connection, workspace_id, job_id)
        return None if row is None else self._progress_of(row)

    def progress(self, workspace_id: str, job_id: str) -> JobProgress:
        """As `find`, of a job that there is."""
        found = self.find(workspace_id, job_id)
        assert found is not None
        return found

    def close(self) -> None:
        """Waits for the job that runs here, and lets go of the queue; those that have not begun are not begun."""
        self._here.shutdown(wait=True, cancel_futures=True)
        self.queue.close()

    # -- inside ----------------------------------------------------------------------------------------------
    @staticmethod
    def _same_request(row: JobRow | None, digest: str) -> JobRow:
        assert row is not None
        if row.request_hash != digest:
            raise JobConflict(
                f"job {row.job_id} of workspace {row.workspace_id} was asked for with other contents",
                hint="take a new job id for a new request",
            )
        return row

    def _submit(
        self,
        workspace_id: str,
        job_id: str,
        targets: Mapping[str, Sequence[DocumentKey]],
        config: Mapping[str, Mapping[str, Any]] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Hands the job to the queue, unless it was: the row is held, so that two requests can't both do it."""
        try:
            with self.database.transaction() as connection:
                row = get_job(connection, workspace_id, job_id)
            if row is not None and before is not None and row.backfill_id is None and not row.ended:
                before()
            with self.database.transaction() as connection:
                row = get_job(connection, workspace_id, job_id, for_update=True)
                assert row is not None
                if row.backfill_id is not None or row.ended:
                    return
                backfill = self.queue.submit(
                    targets, title=f"{row.kind} {workspace_id}/{job_id}", config=config
                )
                update_job(connection, workspace_id, job_id, state="queued", backfill_id=backfill)
        except PermanentError as error:
            self._end(workspace_id, job_id, "failed", error=error.message)
            raise

    def _run_here(self, posted: PostedList, job_id: str, wait_s: float) -> None:
        slot = (posted.key.workspace_id, job_id)
        with self._lock:
            future = self._running.get(slot)
            if future is None:
                future = self._running[slot] = self._here.submit(self._save, posted, job_id)
                future.add_done_callback(lambda _: self._running.pop(slot, None))
        try:
            future.result(wait_s)
        except FutureTimeout:
            logger.info("job %s/%s goes on: it was waited for %g s", *slot, wait_s)

    def _save(self, posted: PostedList, job_id: str) -> None:
        workspace_id = posted.key.workspace_id
        with self.database.transaction() as connection:
            update_job(connection, workspace_id, job_id, state="running")
        try:
            result = self._embedding().save_images_and_generate_clips(
                posted.images,
                posted.key.document_id,
                workspace_id,
                batch_size=posted.batch_size or self.settings.batch_size,
                max_retries=self.settings.max_retries if posted.max_retries is None else posted.max_retries,
            )
        except Exception as error:
            self._end(workspace_id, job_id, "failed", error=str(error) or type(error).__name__)
            raise
        self._end(workspace_id, job_id, "done", result=result)

    def _end(
        self,
        workspace_id: str,
        job_id: str,
        state: Literal["done", "failed"],
        *,
        result: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        with self.database.transaction() as connection:
            update_job(connection, workspace_id, job_id, state=state, result=result, error=error)

    def _progress_of(self, row: JobRow) -> JobProgress:
        runs: tuple[str, ...] = ()
        served = None
        if row.backfill_id is not None:
            found = self.queue.look(row.backfill_id)
            runs = found.run_ids
            if not row.ended:
                row = self._settled(row, found)
                served = None if row.ended else self.queue.is_served()
        if row.kind == SAVE_IMAGES and row.mode == "run" and row.result is None:
            row = replace(row, result=self._result(row))
        stages = [stage for stage in stages_in_use(self.settings) if stage.name in row.stages]
        totals: dict[str, CoverageTotal] = {}
        with self.database.transaction() as connection:
            if stages:
                totals = coverage_totals(
                    connection, row.workspace_id, stages, self.settings.min_coverage, row.document_ids
                )
            vectors = count_vectors_by_kind(
                connection, row.workspace_id, list(FLAGS.values()), row.document_ids
            )
        kinds = {name: vectors[flag] for name, flag in FLAGS.items()}
        return JobProgress(row, totals, kinds, runs, served)

    def _settled(self, row: JobRow, found: QueuedRuns) -> JobRow:
        """The job as its runs say; where they have ended, so has it, with its result."""
        if found.state == row.state:
            return row
        result = (self._result(row) if row.kind == SAVE_IMAGES else {}) if found.state in ENDED else None
        with self.database.transaction() as connection:
            current = get_job(connection, row.workspace_id, row.job_id, for_update=True)
            assert current is not None
            if current.ended or current.backfill_id != row.backfill_id:
                return current
            update_job(
                connection,
                row.workspace_id,
                row.job_id,
                state=found.state,
                result=result,
                error=found.reason or None,
            )
            changed = get_job(connection, row.workspace_id, row.job_id)
        assert changed is not None
        return changed

    def _result(self, row: JobRow) -> dict[str, Any]:
        """What came of a posted list so far, counted from its rows."""
        assert row.document_ids is not None
        key = DocumentKey(row.workspace_id, row.document_ids[0])
        with self.database.transaction() as connection:
            saved, embedded = count_since(connection, key, row.created_at, row.counts.get("lacked", []))
            failures = open_failures(connection, key.workspace_id, key.document_id)
        return {
            "images_saved": saved,
            "clip_embeddings_generated": embedded,
            "failed_images": [failed_image(failure) for failure in failures],
        }


def request_hash(*asked: Any) -> str:
    """A digest of what was asked for; the order of keys does not count."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
