"""Documents become image rows: what is new is added, what has changed is updated, what left is removed."""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError

from embedding_assets.errors import DocumentError, ErrorClass, InfrastructureError, TransientError
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.landing import LandingDocument, SourceKind, locate
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.posted import PostedAccess
from embedding_assets.ingest.posted_document import read_posted_image
from embedding_assets.ingest.records import FoundImage, ImageStatus
from embedding_assets.ingest.sources import PostedDocument, document_fingerprint, read_document
from embedding_assets.keys import DocumentKey, image_id
from embedding_assets.pipeline.clock import Clock, SystemClock
from embedding_assets.pipeline.fetch_waves import fetch_in_waves
from embedding_assets.pipeline.retry import next_retry, wave_wait
from embedding_assets.store.database import Database
from embedding_assets.store.documents import (
    DocumentRow,
    get_document,
    mark_failed,
    mark_ingested,
    register_document,
)
from embedding_assets.store.failures import Failure, record_failures, resolve_failures
from embedding_assets.store.images import count_before, count_by_status, remove_images_not_in, save_images
from embedding_assets.store.json_text import clean_json
from embedding_assets.store.spaces import all_collections
from embedding_assets.store.vectors import drop_unflagged, refresh_metadata

logger = logging.getLogger(__name__)

INGEST = "ingest"
"""The stage's name in failure records."""

CHUNK = 500
"""Image rows written in one statement."""


@dataclass(frozen=True)
class IngestReport:
    """What a document holds (images by status), and what ingest changed (rows).

    Attributes:
        images: image rows of the document; ready + skipped + rejected + pending.
        inserted, updated, removed: image rows changed.
        page_count: pages of the document; None where it has none.
        unchanged: its content was known already, so nothing was read or written.
        elapsed_s: seconds.
    """

    images: int = 0
    ready: int = 0
    skipped: int = 0
    rejected: int = 0
    pending: int = 0
    inserted: int = 0
    updated: int = 0
    removed: int = 0
    page_count: int | None = None
    unchanged: bool = False
    elapsed_s: float = 0.0

    def __str__(self) -> str:
        if self.unchanged:
            return f"unchanged, {self.images} images"
        return (
            f"{self.images} images: {self.ready} ready, {self.skipped} skipped, {self.rejected} rejected, "
            f"{self.pending} pending; {self.inserted} new, {self.updated} changed, {self.removed} removed"
        )


@dataclass(frozen=True)
class _Identified:
    """A found image with its derived id."""

    image_id: uuid.UUID
    occurrence: int
    image: FoundImage


class DocumentIngestor:
    """Brings the image rows of documents up to their content.

    Args:
        database: where the rows are.
        image_store: where sound images go.
        landing_root: where documents land, folder or URL.
        limits: on images and PDFs.
        access: from where posted images may be read.
        max_retries: tries, after the first, of an image or document that can't be had for a passing reason.
        max_throttle_wait_s: seconds that one document may wait in all for servers that throttle.
        clock: time.
    """

    def __init__(
        self,
        database: Database,
        image_store: ImageStore,
        *,
        landing_root: str,
        limits: IngestLimits,
        access: PostedAccess,
        max_retries: int = 3,
        max_throttle_wait_s: float = 3600.0,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.image_store = image_store
        self.landing_root = landing_root
        self.limits = limits
        self.access = access
        self.max_retries = max_retries
        self.max_throttle_wait_s = max_throttle_wait_s
        self.clock: Clock = clock or SystemClock()

    def register(self, document: LandingDocument) -> None:
        """Makes the row of a document that was found in the landing folder."""
        with self.database.transaction() as connection:
            register_document(connection, document.key, document.kind.value, document.uri)

    def register_posted(self, key: DocumentKey, material_images: Sequence[Mapping[str, Any]]) -> None:
        """Makes the row of a document whose images are posted as a list; the list is kept with it.

        Raises:
            DocumentError: the document lies in the landing folder; a list would hide it.
        """
        with self.database.transaction() as connection:
            row = get_document(connection, key)
            if row is not None and row.posted_images is None:
                raise DocumentError(
                    f"document {key} comes from {row.source_uri}; a posted list can't replace it",
                    hint="post the list under another document_id",
                )
            register_document(
                connection,
                key,
                SourceKind.POSTED.value,
                posted_images=[_as_kept(item) for item in material_images],
            )

    def is_current(self, key: DocumentKey) -> bool:
        """Whether the document's rows stand for its content as it is now, with nothing left to fetch.

        Raises:
            DocumentError: the document is not there, or can't be read.
        """
        row = self._row(key)
        if row is None or row.status != "ingested" or row.content_hash is None:
            return False
        with self.database.transaction() as connection:
            pending = count_by_status(connection, key)["pending"]
        return not pending and self._fingerprint(self._source(key, row)) == row.content_hash

    def ingest(self, key: DocumentKey, *, force: bool = False, run_id: str | None = None) -> IngestReport:
        """Reads a document and brings its rows up to date.

        All rows are written in one transaction, in which images that left the document lose rows and vectors.

        Args:
            force: read it even where its content is known.
            run_id: recorded with failures.

        Raises:
            DocumentError: it is not there or can't be read, not even after `max_retries` where the reason may
                pass (it is still being written, its folder does not answer). Recorded; rows of an earlier
                reading stay.
            InfrastructureError: the database is gone; try again.
        """
        start = self.clock.monotonic()
        with self._recorded_failure(key, run_id):
            for retry in range(1, self.max_retries + 1):
                try:
                    return self._ingest(key, force, run_id, start)
                except InfrastructureError:
                    raise
                except TransientError as error:
                    wait = wave_wait(retry)
                    logger.warning(
                        "ingest: retry %d of %d for %s in %.0f s: %s",
                        retry,
                        self.max_retries,
                        key,
                        wait,
                        error,
                    )
                    self.clock.sleep(wait)
            return self._ingest(key, force, run_id, start)

    def add_posted_image(
        self, key: DocumentKey, material_image: Mapping[str, Any], run_id: str | None = None
    ) -> tuple[uuid.UUID, FoundImage]:
        """Adds one image to a posted document (made where it is missing) and saves its row.

        An image that stands in the document's list already keeps its place.

        Returns:
            The image's id, and what was found of it: it may be skipped, rejected or not to be had for now.
        """
        row = self._row(key)
        images = list(row.posted_images or ()) if row else []
        posted = _as_kept(material_image)
        if posted not in images:
            self.register_posted(key, [*images, posted])
            images.append(posted)
        source = PostedDocument(key, tuple(images))
        index = images.index(posted)
        (image,) = self._with_retries(source, iter([self._read_posted(source, index)]))
        with self.database.transaction() as connection:
            occurrence = count_before(connection, key, image.content_hash, image.index)
            found = _Identified(image_id(key, image.content_hash, occurrence), occurrence, image)
            save_images(connection, key, [(found.image_id, occurrence, image)])
            for collection in all_collections(connection):
                drop_unflagged(connection, key.workspace_id, key.document_id, collection)
            if image.status is not ImageStatus.PENDING:
                # While it could not be had, its row went by where it is; now that there are bytes, by those.
                collections = all_collections(connection)
                remove_images_not_in(connection, key, [found.image_id], collections, index=image.index)
            record_failures(connection, self._failures(key, [found], run_id))
            resolve_failures(connection, key, INGEST, [found.image_id] if _is_sound(image) else [])
        return found.image_id, image

    def _ingest(self, key: DocumentKey, force: bool, run_id: str | None, start: float) -> IngestReport:
        row = self._row(key)
        source = self._source(key, row)
        if isinstance(source, LandingDocument):
            self.register(source)
        if not force and self.is_current(key):
            with self.database.transaction() as connection:
                counts = count_by_status(connection, key)
            return IngestReport(
                images=counts.total(),
                ready=counts["ready"],
                skipped=counts["skipped"],
                rejected=counts["rejected"],
                page_count=row.page_count if row else None,
                unchanged=True,
                elapsed_s=self.clock.monotonic() - start,
            )
        return self._read(key, source, run_id, start)

    def _read(
        self, key: DocumentKey, source: LandingDocument | PostedDocument, run_id: str | None, start: float
    ) -> IngestReport:
        # All that was found is written at the end, at once: a PDF whose reader crashes on page 40 must not leave
        # the rows of 39 pages behind. What is kept in memory until then is text; the bytes are in the store.
        with read_document(source, self.image_store, self.limits, self.access) as content:
            found = self._identify(key, self._with_retries(source, content.images))
        inserted = updated = 0
        with self.database.transaction() as connection:
            for start_at in range(0, len(found), CHUNK):
                chunk = found[start_at : start_at + CHUNK]
                saved = save_images(connection, key, [(f.image_id, f.occurrence, f.image) for f in chunk])
                record_failures(connection, self._failures(key, chunk, run_id))
                resolve_failures(connection, key, INGEST, [f.image_id for f in chunk if _is_sound(f.image)])
                inserted += saved.inserted
                updated += saved.updated
            collections = all_collections(connection)
            removed = remove_images_not_in(connection, key, [f.image_id for f in found], collections)
            for collection in collections:
                drop_unflagged(connection, key.workspace_id, key.document_id, collection)
                refresh_metadata(connection, key.workspace_id, key.document_id, collection)
            mark_ingested(connection, key, content.content_hash, content.title, content.page_count)
            resolve_failures(connection, key, INGEST, None)
            counts = count_by_status(connection, key)
        report = IngestReport(
            images=counts.total(),
            ready=counts["ready"],
            skipped=counts["skipped"],
            rejected=counts["rejected"],
            pending=counts["pending"],
            inserted=inserted,
            updated=updated,
            removed=removed,
            page_count=content.page_count,
            elapsed_s=self.clock.monotonic() - start,
        )
        logger.info("ingest: %s: %s", key, report)
        return report

    @staticmethod
    def _identify(key: DocumentKey, images: Iterator[FoundImage]) -> list[_Identified]:
        """Gives each image its id, in the order of the document, whatever order they were read in."""
        occurrences: Counter[str] = Counter()
        found = []
        for image in sorted(images, key=lambda image: image.index):
            occurrence = occurrences[image.content_hash]
            occurrences[image.content_hash] += 1
            found.append(_Identified(image_id(key, image.content_hash, occurrence), occurrence, image))
        return found

    def _with_retries(
        self, source: LandingDocument | PostedDocument, images: Iterator[FoundImage]
    ) -> Iterator[FoundImage]:
        """The images; those of a posted list that could not be fetched are tried again, in waves."""
        if not isinstance(source, PostedDocument):
            return images
        return fetch_in_waves(
            images,
            lambda index: self._read_posted(source, index),
            max_retries=self.max_retries,
            max_throttle_wait_s=self.max_throttle_wait_s,
            clock=self.clock,
        )

    def _failures(self, key: DocumentKey, found: Sequence[_Identified], run_id: str | None) -> list[Failure]:
        failures = []
        for item in found:
            image = item.image
            if image.status not in (ImageStatus.REJECTED, ImageStatus.PENDING):
                continue
            pending = image.status is ImageStatus.PENDING
            failures.append(
                Failure(
                    key=key,
                    image_id=item.image_id,
                    stage=INGEST,
                    error_class=image.error_class or ErrorClass.PERMANENT,
                    error_type=image.error_type or "ImageRejected",
                    message=image.reason or "rejected",
                    attempts=self.max_retries + 1 if image.error_class is ErrorClass.TRANSIENT else 1,
                    next_retry_at=next_retry(self.clock.now()) if pending else None,
                    run_id=run_id,
                )
            )
        return failures

    def _fingerprint(self, source: LandingDocument | PostedDocument) -> str:
        return document_fingerprint(source, self.limits, self.access)

    def _read_posted(self, source: PostedDocument, index: int) -> FoundImage:
        entry = source.material_images[index]
        return read_posted_image(entry, index, source.key, self.image_store, self.limits, self.access)

    def _row(self, key: DocumentKey) -> DocumentRow | None:
        with self.database.transaction() as connection:
            return get_document(connection, key)

    def _source(self, key: DocumentKey, row: DocumentRow | None) -> LandingDocument | PostedDocument:
        if row is not None and row.posted_images is not None:
            return PostedDocument(key, tuple(row.posted_images))
        return locate(self.landing_root, key)

    @contextmanager
    def _recorded_failure(self, key: DocumentKey, run_id: str | None) -> Iterator[None]:
        """Records the failure of a document as a whole. Its rows of an earlier reading stay as they are."""
        try:
            yield
        except InfrastructureError:
            raise
        except DocumentError as error:
            self._record(key, error, run_id, attempts=1)
            raise
        except TransientError as error:
            self._record(key, error, run_id, attempts=self.max_retries + 1)
            raise DocumentError(
                f"{error.message} after {self.max_retries} retries", hint=error.hint
            ) from error
        except (DataError, IntegrityError) as error:
            reason = str(error.orig).strip().splitlines()[0]
            refused = DocumentError(f"the database refuses what {key} holds: {reason}")
            self._record(key, refused, run_id, attempts=1)
            raise refused from error

    def _record(
        self, key: DocumentKey, error: DocumentError | TransientError, run_id: str | None, attempts: int
    ) -> None:
        passing = isinstance(error, TransientError)
        failure = Failure(
            key=key,
            image_id=None,
            stage=INGEST,
            error_class=error.error_class,
            error_type=type(error).__name__,
            message=f"{error.message} after {attempts - 1} retries" if passing else error.message,
            attempts=attempts,
            next_retry_at=next_retry(self.clock.now()) if passing else None,
            run_id=run_id,
        )
        with self.database.transaction() as connection:
            mark_failed(connection, key)
            record_failures(connection, [failure])


def _as_kept(entry: Any) -> Any:
    """An entry of a posted list as the database gives it back: plain JSON values, paths and numbers as text.

    An entry that is no dict stays what it is: reading it says what is wrong with it, at its place in the list.
    """
    plain = dict(entry) if isinstance(entry, Mapping) else entry
    return clean_json(json.loads(json.dumps(plain, default=str)))


def _is_sound(image: FoundImage) -> bool:
    return image.status in (ImageStatus.READY, ImageStatus.SKIPPED)
