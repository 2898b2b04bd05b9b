"""What a search has to know of the database before it asks anything: collections, calibrations, indexes, sizes.

It changes when an operator does something, not from one search to the next, so it is looked up every few seconds and
not every time.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from sqlalchemy import Connection

from embedding_assets.errors import EmbeddingAssetsError, InfrastructureError
from embedding_assets.search.arms import COLLECTION_OF_ARM
from embedding_assets.search.calibration import SAMPLE, Scale, measure, queries_for
from embedding_assets.search.queries import QueryEncoder
from embedding_assets.store.calibrations import (
    Calibration,
    count_vectors,
    estimate_shares,
    estimate_vectors,
    read_calibrations,
    write_calibration,
)
from embedding_assets.store.database import Database
from embedding_assets.store.indexes import VectorIndex, usable_hnsw
from embedding_assets.store.search import sample_vectors
from embedding_assets.store.spaces import Collection, existing_collections

logger = logging.getLogger(__name__)

KEPT_S = 5.0
"""Seconds for which a snapshot is used: a new index or calibration is noticed no later."""

IMAGE_QUERIES = 64
"""Stored images that ask when image queries are calibrated."""


@dataclass(frozen=True)
class Snapshot:
    """What the database holds for searches.

    Attributes:
        collections: by arm; arms without one are not in it.
        calibrations: by (`Collection.table`, kind of query).
        indexes: usable HNSW index by `Collection.table`.
        sizes: vectors by `Collection.table`, estimated.
        shares: part of all images that is a workspace's, by its id, estimated.
        counted: tables whose calibrations were found to be still good, while this snapshot is kept.
    """

    collections: dict[str, Collection]
    calibrations: dict[tuple[str, str], Calibration]
    indexes: dict[str, VectorIndex]
    sizes: dict[str, int]
    shares: dict[str, float]
    counted: set[str] = field(default_factory=set)

    @property
    def largest(self) -> int:
        """Vectors in the largest collection, estimated."""
        return max(self.sizes.values(), default=0)


def read_snapshot(connection: Connection) -> Snapshot:
    """Reads it anew."""
    existing = existing_collections(connection)
    collections = {arm: existing[name] for arm, name in COLLECTION_OF_ARM.items() if name in existing}
    listed = list(collections.values())
    return Snapshot(
        collections,
        read_calibrations(connection, listed),
        usable_hnsw(connection, listed),
        estimate_vectors(connection, listed),
        estimate_shares(connection),
    )


class SnapshotKeeper:
    """Keeps a snapshot for `KEPT_S` seconds, and measures calibrations that are missing. Safe to share."""

    def __init__(self, database: Database, queries: QueryEncoder) -> None:
        self.database = database
        self.queries = queries
        self._kept: tuple[float, Snapshot] | None = None
        self._lock = threading.Lock()

    def get(self, connection: Connection) -> Snapshot:
        """The snapshot, read with this connection where the kept one is too old."""
        kept = self._kept
        now = time.monotonic()
        if kept is None or now - kept[0] > KEPT_S:
            kept = (now, read_snapshot(connection))
            self._kept = kept
        return kept[1]

    def forget(self) -> None:
        """Reads the snapshot anew at the next search."""
        self._kept = None

    def scale(self, snapshot: Snapshot, arm: str, kind: str) -> tuple[Scale, str]:
        """By what an arm's cosines are scaled for "text" or "image" queries; measures it where nothing is stored.

        Returns:
            The scale, and what an operator should know of it; "" for nothing.
        """
        collection = snapshot.collections[arm]
        stored = snapshot.calibrations.get((collection.table, kind))
        if stored is None or self._outgrown(snapshot, collection, stored):
            with self._lock:  # one thread measures, the others find it
                stored = snapshot.calibrations.get((collection.table, kind))
                if stored is None or self._outgrown(snapshot, collection, stored):
                    stored = self.measure(arm, collection, kind)
                    if stored is None:
                        return Scale(0.0, 1.0), ""
                    snapshot.calibrations[collection.table, kind] = stored
                    return Scale(stored.low, stored.high), (
                        f"{arm}: scores of {kind} queries were calibrated just now, on {stored.vectors} vectors"
                    )
        now = snapshot.sizes.get(collection.table, 0)
        note = ""
        if stored.rows and now > 2 * stored.rows + SAMPLE:
            note = (
                f"{arm}: calibrated on a collection of {stored.rows} vectors, which now has about {now}; "
                "materialize vector_indexes, or run `embedding-assets indexes`"
            )
        return Scale(stored.low, stored.high), note

    def _outgrown(self, snapshot: Snapshot, collection: Collection, stored: Calibration) -> bool:
        """Whether a calibration was measured on few vectors, and there are twice as many by now."""
        if stored.vectors >= SAMPLE or collection.table in snapshot.counted:
            return False
        with self.database.transaction() as connection:
            found = count_vectors(connection, collection, most=2 * stored.rows)
        if found < 2 * stored.rows:
            snapshot.counted.add(collection.table)
            return False
        return True

    def measure(self, arm: str, collection: Collection, kind: str) -> Calibration | None:
        """Measures and stores an arm's calibration for "text" or "image" queries; None where it has no vectors."""
        with self.database.transaction() as connection:
            ids, sample = sample_vectors(connection, collection, SAMPLE)
            rows = count_vectors(connection, collection) if len(ids) == SAMPLE else len(ids)
        if not ids:
            return None
        same: list[int | None] = []
        if kind == "image":
            asking = range(0, len(ids), max(1, len(ids) // IMAGE_QUERIES))
            same, asked = list(asking), sample[list(asking)]
        else:
            asked = self.queries.of_texts(arm, collection, queries_for(arm))
        calibration = measure(sample, asked, rows, kind=kind, same=same)
        with self.database.transaction() as connection:
            write_calibration(connection, collection, calibration)
        return calibration

    def calibrate(self) -> list[tuple[str, Calibration]]:
        """Measures every arm anew; arms whose model or provider can't be had keep what is stored.

        Returns:
            (arm, calibration) of those that were measured.

        Raises:
            InfrastructureError: the database is gone.
        """
        with self.database.transaction() as connection:
            existing = existing_collections(connection)
        measured = []
        for arm, name in COLLECTION_OF_ARM.items():
            if name not in existing:
                continue
            try:
                self.queries.check(arm, existing[name])
                found = [self.measure(arm, existing[name], kind) for kind in ("text", "image")]
            except InfrastructureError:
                raise
            except EmbeddingAssetsError as error:
                logger.warning("calibration of %s is left as it is: %s", arm, error)
                continue
            measured += [(arm, calibration) for calibration in found if calibration is not None]
        self._kept = None
        return measured
