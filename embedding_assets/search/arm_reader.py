"""What arms answer, asked over several connections at once: their nearest images, and exact scores.

Postgres walks an index, and looks rows up by id, on one core for one connection. A search in a large workspace spends
nearly all of its time on the walks of seven indexes, cut by arms here, and on cosines of candidates, cut by images. No
connection is held while another is waited for, so that searches can't block each other when the pool runs short. Each
part sees a state of the database of its own: what has vanished by the time that hits are described is no hit.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from sqlalchemy import Connection

from embedding_assets.errors import EmbeddingAssetsError, SchemaError
from embedding_assets.store.database import Database
from embedding_assets.store.search import (
    ArmQuery,
    Near,
    ScoreTable,
    Share,
    begin_search,
    exact_scores,
    exact_scores_above,
    nearest_by_arm,
)
from embedding_assets.store.search_scope import Scope

P = TypeVar("P")
T = TypeVar("T")

WORKERS = 16
"""Threads of a process that wait for the database on behalf of searches."""


class ArmReader:
    """Asks arms for what is near and how near exactly. Safe to share between threads.

    Args:
        database: where the vectors are.
        connections: connections that one search uses at once while it is alone; searches at the same time share
            them, at least one each: with all cores busy, cutting a search up only costs.
        timeout_s: seconds that one statement may take.
    """

    def __init__(self, database: Database, connections: int, timeout_s: float) -> None:
        self.database = database
        self.connections = connections
        self.timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="search")
        self._asking = 0
        self._lock = threading.Lock()

    def nearest(
        self, scope: Scope, queries: Sequence[ArmQuery], limit: int, ef_search: int | None = None
    ) -> dict[str, Near]:
        """By arm the nearest images in scope, at most `limit`.

        Args:
            ef_search: vectors that a walk keeps in sight; default: `limit`.

        Raises:
            StoreUnavailable: the database is gone, or a statement took too long.
            SchemaError: a collection is gone.
        """

        def ask(part: Sequence[ArmQuery]) -> dict[str, Near]:
            with self._begun(ef_search or limit) as connection:
                return nearest_by_arm(connection, scope, part, limit)

        found: dict[str, Near] = {}
        with self._parts() as parts:
            for answer in self._side_by_side(ask, split(queries, parts)):
                found.update(answer)
        return found

    def scores(
        self,
        scope: Scope,
        queries: Sequence[ArmQuery],
        codes: Sequence[str] = (),
        ids: Sequence[uuid.UUID] | None = None,
    ) -> ScoreTable:
        """Exact scores of every image in scope, or of those among `ids` that are; see `store.search.exact_scores`.

        Raises: as `nearest`.
        """

        def ask(part: tuple[int, int]) -> ScoreTable:
            with self._begun() as connection:
                return exact_scores(connection, scope, queries, codes, ids, part=part)

        with self._parts() as parts:
            return joined(self._side_by_side(ask, [(number, parts) for number in range(parts)]))

    def scores_above(
        self,
        scope: Scope,
        queries: Sequence[ArmQuery],
        shares: Sequence[Share],
        ids: Sequence[uuid.UUID],
        bounds: Sequence[float],
        least: float,
    ) -> ScoreTable:
        """Exact scores of those among `ids` whose fused score may be `least` or more; see
        `store.search.exact_scores_above`.

        Raises: as `nearest`.
        """

        def ask(part: slice) -> ScoreTable:
            with self._begun() as connection:
                return exact_scores_above(connection, scope, queries, shares, ids[part], bounds[part], least)

        with self._parts() as parts:
            return joined(self._side_by_side(ask, [slice(first, None, parts) for first in range(parts)]))

    @contextmanager
    def _parts(self) -> Iterator[int]:
        """How many parts a question is cut into, by how many others are being answered."""
        with self._lock:
            self._asking += 1
            parts = max(1, self.connections // self._asking)
        try:
            yield parts
        finally:
            with self._lock:
                self._asking -= 1

    @contextmanager
    def _begun(self, ef_search: int = 1) -> Iterator[Connection]:
        with self.database.transaction() as connection:
            begin_search(connection, self.timeout_s, ef_search)
            yield connection

    def _side_by_side(self, ask: Callable[[P], T], parts: Sequence[P]) -> list[T]:
        """Answers of all parts; waits for all of them, also where one fails."""
        if not parts:
            return []
        others = [self._pool.submit(ask, part) for part in parts[1:]]
        own: Future[T] = Future()
        try:
            own.set_result(ask(parts[0]))
        except EmbeddingAssetsError as error:
            own.set_exception(error)
        finally:
            wait(others)
        failures = [failure for one in (own, *others) if (failure := one.exception()) is not None]
        if failures:  # after a SchemaError the search is tried again: it comes first
            raise next((one for one in failures if isinstance(one, SchemaError)), failures[0])
        return [one.result() for one in (own, *others)]


def split(queries: Sequence[ArmQuery], most: int) -> list[list[ArmQuery]]:
    """Cuts arms into at most `most` parts of about the same work (numbers in their vectors)."""
    parts: list[list[ArmQuery]] = [[] for _ in range(min(most, len(queries)))]
    for query in sorted(queries, key=lambda one: -one.collection.dimension):
        min(parts, key=lambda part: sum(one.collection.dimension for one in part)).append(query)
    return parts


def joined(tables: Sequence[ScoreTable]) -> ScoreTable:
    """One table of several that are of different images."""
    if len(tables) == 1:
        return tables[0]
    return ScoreTable(
        [i for table in tables for i in table.ids],
        np.concatenate([table.cosines for table in tables]),
        np.concatenate([table.codes for table in tables]),
    )
