"""What is new in the landing folder: found by one listing, read only where the listing changed.

    listing --(name, size, time as before)--> nothing to do
       |
       +-----(changed)--> remembered; left alone until it has stayed the same for a while
                               |
                               +--> content hash --(known already)--> nothing to do
                                          |
                                          +--(new)--> requested, at most so many at a time

What belongs here: what to request. What does not: partitions and runs (`defs.requests`), reading documents
(`pipeline.ingestion`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedding_assets.errors import DocumentError, TransientError
from embedding_assets.ingest.landing import LandingDocument
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.listing import ListedDocument, list_landing
from embedding_assets.ingest.sources import document_fingerprint
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.clock import Clock, SystemClock
from embedding_assets.store.database import Database
from embedding_assets.store.documents import register_document
from embedding_assets.store.landed import (
    Handled,
    LandedRow,
    Seen,
    landing_hashes,
    mark_handled,
    read_landed,
    save_seen,
)

logger = logging.getLogger(__name__)

READING_S = 20.0
"""Seconds that one look may read changed documents; Dagster ends a sensor's tick after 60 s."""


@dataclass(frozen=True)
class NewDocument:
    """A document whose content is to be processed.

    Attributes:
        seen_at: when it was first seen as it is, in seconds since 1970: tells the return of an earlier content from
            the same content looked at twice.
    """

    document: LandingDocument
    fingerprint: str
    content_hash: str
    seen_at: float

    @property
    def key(self) -> DocumentKey:
        return self.document.key


@dataclass(frozen=True)
class Discovery:
    """What one look at the landing folder found. All but `new` are counts of documents.

    Attributes:
        new: to be processed; none of them was requested with this content before.
        listed: in the landing folder.
        settling: changed too lately, so perhaps still being written.
        left: changed, and left for the next look because this one had its fill.
        known: changed on the outside, but not in their content.
    """

    new: tuple[NewDocument, ...] = ()
    listed: int = 0
    settling: int = 0
    left: int = 0
    known: int = 0

    def __str__(self) -> str:
        return (
            f"{self.listed} documents in the landing folder: {len(self.new)} to be processed, "
            f"{self.settling} perhaps still being written, {self.left} left for the next look, "
            f"{self.known} touched but unchanged"
        )


class LandingWatch:
    """Looks at the landing folder, and remembers in the database what it saw.

    Args:
        database: where the memory is.
        landing_root: folder or URL.
        limits: part of each document's content hash.
        settle_s: seconds that a document must have looked the same before it is read. Whatever its files' times
            say: a copy that keeps them looks old while it is still growing.
        limit: documents that one look takes, at most.
        clock: time.
    """

    def __init__(
        self,
        database: Database,
        landing_root: str,
        limits: IngestLimits,
        *,
        settle_s: float,
        limit: int,
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.landing_root = landing_root
        self.limits = limits
        self.settle_s = settle_s
        self.limit = limit
        self.clock: Clock = clock or SystemClock()

    def look(self) -> Discovery:
        """Lists the landing folder, and reads what has changed and settled.

        Nothing counts as requested before `requested` says so.

        Raises:
            TransientError: the landing folder can't be listed.
        """
        listed = list_landing(self.landing_root)
        with self.database.transaction() as connection:
            known = read_landed(connection)
            changed = [item for item in listed.values() if _is_changed(item, known)]
            save_seen(connection, [_seen(item) for item in changed])
        fresh = {item.document.key for item in changed} if self.settle_s > 0 else set()
        waiting = [
            item
            for key, item in listed.items()
            if (key not in known and not item.empty)
            or (key in known and (key in fresh or known[key].handled != item.fingerprint))
        ]
        settled = [
            item
            for item in waiting
            if item.document.key not in fresh
            and (self.settle_s <= 0 or known[item.document.key].age_s >= self.settle_s)
        ]
        new, touched, read = self._read(settled[: self.limit], known)
        return Discovery(
            new=tuple(new),
            listed=len(listed),
            settling=len(waiting) - len(settled),
            left=len(settled) - read,
            known=touched,
        )

    def requested(self, documents: Sequence[NewDocument], run_key_of: Callable[[DocumentKey], str]) -> None:
        """Says that runs were requested for documents found by `look`; makes their rows.

        Args:
            run_key_of: the key of the run that a document is part of.
        """
        with self.database.transaction() as connection:
            for item in documents:
                register_document(connection, item.key, item.document.kind.value, item.document.uri)
            mark_handled(
                connection,
                [
                    Handled(item.key, item.fingerprint, item.content_hash, run_key_of(item.key))
                    for item in documents
                ],
            )

    def _read(
        self, settled: Sequence[ListedDocument], known: dict[DocumentKey, LandedRow]
    ) -> tuple[list[NewDocument], int, int]:
        """New documents; how many turned out to be known; how many were dealt with."""
        with self.database.transaction() as connection:
            ingested = landing_hashes(connection, [item.document.key for item in settled])
        new: list[NewDocument] = []
        touched: list[Handled] = []
        dealt_with = 0
        deadline = self.clock.monotonic() + READING_S
        for item in settled:
            if self.clock.monotonic() > deadline:
                break
            key = item.document.key
            try:
                content = document_fingerprint(item.document, self.limits)
            except TransientError as error:
                logger.warning("%s can't be read at the moment: %s", key, error)
                continue
            except DocumentError:
                content = f"unreadable {item.fingerprint}"  # the run that is requested records why
            dealt_with += 1
            before = known[key].content_hash if key in known else None
            if content in (before, ingested.get(key)):
                touched.append(Handled(key, item.fingerprint, content, None))
            else:
                seen_at = known[key].seen_at if key in known else self.clock.now().timestamp()
                new.append(NewDocument(item.document, item.fingerprint, content, seen_at))
        with self.database.transaction() as connection:
            mark_handled(connection, touched)
        return new, len(touched), dealt_with


def _is_changed(item: ListedDocument, known: dict[DocumentKey, LandedRow]) -> bool:
    row = known.get(item.document.key)
    if row is None:
        return not item.empty
    return row.fingerprint != item.fingerprint


def _seen(item: ListedDocument) -> Seen:
    document = item.document
    return Seen(document.key, document.kind.value, document.uri, item.fingerprint)
