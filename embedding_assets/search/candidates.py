"""The nearest images of each arm, asked over one connection, or several at once.

Walking seven indexes is what a search in a large workspace spends most of its time on, and Postgres walks them one
after another on one connection; a server with free cores can walk some at the same time. No connection is held while
another is waited for, so that searches can't block each other when the pool runs short. Each part sees a state of the
database of its own; what is found is asked for once more, with exact scores, in one transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from embedding_assets.store.database import Database
from embedding_assets.store.search import ArmQuery, Scope, begin_search, nearest_by_arm

Found = dict[str, list[tuple[uuid.UUID, float]]]

WORKERS = 16
"""Threads of a process that wait for the database on behalf of searches."""


class CandidateFinder:
    """Asks each arm's index for its nearest images. Safe to share between threads.

    Args:
        database: where the vectors are.
        connections: connections that one search uses at once.
        timeout_s: seconds that one statement may take.
    """

    def __init__(self, database: Database, connections: int, timeout_s: float) -> None:
        self.database = database
        self.connections = connections
        self.timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="search")

    def find(self, scope: Scope, queries: Sequence[ArmQuery], limit: int) -> Found:
        """By arm the nearest images in scope with their cosines, most similar first, at most `limit`.

        Raises:
            StoreUnavailable: the database is gone, or a statement took too long.
            SchemaError: a collection is gone.
        """
        parts = split(queries, self.connections)
        if not parts:
            return {}
        others = [self._pool.submit(self._ask, scope, part, limit) for part in parts[1:]]
        found: Found = {}
        try:
            found.update(self._ask(scope, parts[0], limit))
        finally:
            answers = [other.exception() or other.result() for other in others]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            found.update(answer)
        return found

    def _ask(self, scope: Scope, queries: Sequence[ArmQuery], limit: int) -> Found:
        with self.database.transaction() as connection:
            begin_search(connection, self.timeout_s, limit)
            return nearest_by_arm(connection, scope, queries, limit)


def split(queries: Sequence[ArmQuery], most: int) -> list[list[ArmQuery]]:
    """Cuts arms into at most `most` parts of about the same work (numbers in their vectors)."""
    parts: list[list[ArmQuery]] = [[] for _ in range(min(most, len(queries)))]
    for query in sorted(queries, key=lambda one: -one.collection.dimension):
        min(parts, key=lambda part: sum(one.collection.dimension for one in part)).append(query)
    return parts
