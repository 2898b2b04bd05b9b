"""Keeping the vector indexes as the settings want them: what is missing, changed or broken is built, nothing else.

For each registered collection, one after another, while searches and writes go on:

    leftovers of killed builds  -> dropped
    HNSW index, cosine          -> built where the rows are worth it; of other settings: built, then the old dropped
    GIN index on the metadata   -> likewise
    planner statistics          -> brought up to date
    recall@10                   -> measured against exact search
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import text

from embedding_assets.pipeline.index_report import Action, IndexOutcome, IndexReport
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database
from embedding_assets.store.index_builds import (
    Build,
    BuildLimits,
    check_same_database,
    create_metadata_index,
    create_vector_index,
    drop_index,
    drop_leftovers,
    only_builder,
    rebuild_index,
)
from embedding_assets.store.index_recall import Recall, measure_recall
from embedding_assets.store.indexes import (
    MAX_DIMENSION,
    FoundIndex,
    Kind,
    VectorIndex,
    building_pid,
    find_indexes,
    metadata_index_name,
    vector_index_name,
)
from embedding_assets.store.spaces import Collection, all_collections

logger = logging.getLogger(__name__)

RECALL_EF_SEARCH = 100
"""Candidates with which recall@10 is measured: what a search asks for at least."""


@dataclass(frozen=True)
class IndexOptions:
    """Which indexes are wanted.

    Attributes:
        min_rows: a collection with fewer rows gets none.
        halfvec: whether vectors are indexed as 16-bit numbers.
        m, ef_construction: HNSW's parameters (pgvector's README, "Index Options").
        limits: what the server may use for one build.
    """

    min_rows: int
    halfvec: bool
    m: int
    ef_construction: int
    limits: BuildLimits


@dataclass(frozen=True)
class _Wanted:
    """An index that a collection should have. `create` and `rebuild` build it, and say how that went."""

    name: str
    create: Callable[[], Build]
    rebuild: Callable[[], Build]


def _server_cores(database: Database) -> int | None:
    """Cores of the server, where it is this machine; None where nobody can know from here."""
    if not database.is_local:
        return None
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class IndexBuilder:
    """Builds the indexes of one database.

    Args:
        database: where the vectors are.
        options: which indexes are wanted.
        direct: the same database past a transaction pooler, for the builds; None: `database` has none before it.
    """

    def __init__(self, database: Database, options: IndexOptions, direct: Database | None = None) -> None:
        self.database = database
        self.options = options
        self._direct = direct or database

    @classmethod
    def from_settings(cls, settings: Settings, database: Database) -> IndexBuilder:
        """The builder of these settings."""
        url = settings.direct_database_url
        direct = Database(url.get_secret_value()) if url else None
        cores = _server_cores(direct or database)
        return cls(
            database,
            IndexOptions(
                settings.index_min_rows,
                settings.index_halfvec,
                settings.index_m,
                settings.index_ef_construction,
                BuildLimits(settings.index_memory_mb, settings.index_workers or (cores and cores - 1)),
            ),
            direct,
        )

    def build(
        self, *, rebuild: bool = False, progress: Callable[[IndexReport], None] | None = None
    ) -> list[IndexReport]:
        """Brings the indexes of all registered collections to what is wanted; can be called again at any time.

        Args:
            rebuild: build valid ones anew too (after many deletions, say); the old ones serve meanwhile.
            progress: called after each collection.

        Raises:
            IndexBuildRunning: another process is at it.
            StoreUnavailable: the database is gone, or broke a deadlock; what was built before stays.
            FatalError: the database refuses a build.
            SettingsError: `direct` leads to another database.
        """
        reports = []
        with only_builder(self.database) as lock:
            with self._direct.session({}) as session:
                check_same_database(session, lock)
            with self.database.transaction() as connection:
                collections = all_collections(connection)
            for collection in collections:
                report = self._bring_up_to_date(collection, rebuild)
                reports.append(report)
                if progress:
                    progress(report)
        return reports

    def _bring_up_to_date(self, collection: Collection, rebuild: bool) -> IndexReport:
        with self.database.transaction() as connection:
            rows = connection.execute(text(f"SELECT count(*) FROM {collection.qualified}")).scalar_one()
            found = find_indexes(connection, collection)
            builder = building_pid(connection, collection)
        if builder is not None:
            vector, metadata = _left_to(builder, found)
        else:
            if any(index.is_leftover for index in found):
                names = drop_leftovers(self._direct, collection)
                logger.warning("dropped what broken-off builds have left: %s", ", ".join(names))
            vector = self._vector_index(collection, rows, found, rebuild)
            metadata = self._metadata_index(collection, rows, found, rebuild)
            if rows:
                # Autovacuum would do it within minutes; until then, the planner of a just filled table is blind.
                with self.database.transaction() as connection:
                    connection.execute(text(f"ANALYZE {collection.qualified}"))
        with self.database.transaction() as connection:
            there = {index.name: index for index in find_indexes(connection, collection)}
        kind = there[vector.name].cosine_kind if vector.name in there else None
        recall = self._recall(collection, VectorIndex(kind, vector.name)) if kind and vector.name else None
        if kind and recall is None:
            note = "recall can't be measured: Postgres does not use it"
            vector = replace(vector, notes=(*vector.notes, note))
        return IndexReport(
            collection.logical_name,
            collection.table,
            collection.dimension,
            rows,
            kind,
            _sized(vector, there),
            _sized(metadata, there),
            recall,
        )

    def _vector_index(
        self, collection: Collection, rows: int, found: list[FoundIndex], rebuild: bool
    ) -> IndexOutcome:
        options = self.options
        most = MAX_DIMENSION["halfvec"]
        if collection.dimension > most:
            return IndexOutcome(
                Action.SKIPPED,
                reason=f"{collection.dimension:,} dimensions; pgvector's HNSW takes {most:,} at most",
            )
        forced = not options.halfvec and collection.dimension > MAX_DIMENSION["vector"]
        kind: Kind = "halfvec" if options.halfvec or forced else "vector"
        name = vector_index_name(collection.table, kind, options.m, options.ef_construction)
        others = [index for index in found if index.cosine_kind and index.valid and not index.is_ours]
        ours = [index for index in found if index.is_ours and index.is_vector]
        if others and not any(index.name == name and index.valid for index in ours):
            self._drop([index for index in ours if index.valid])
            return IndexOutcome(
                Action.KEPT, others[0].name, "made by another client, and as good: left alone"
            )
        wanted = _Wanted(
            name,
            lambda: create_vector_index(
                self._direct,
                collection,
                name,
                kind,
                m=options.m,
                ef_construction=options.ef_construction,
                rows=rows,
                limits=options.limits,
            ),
            lambda: rebuild_index(
                self._direct, collection, name, kind, m=options.m, rows=rows, limits=options.limits
            ),
        )
        outcome = self._bring_about(wanted, rows, ours, rebuild)
        if forced and outcome.name == name:
            note = f"halfvec, as a vector index takes {MAX_DIMENSION['vector']:,} dimensions at most"
            outcome = replace(outcome, notes=(*outcome.notes, note))
        return outcome

    def _metadata_index(
        self, collection: Collection, rows: int, found: list[FoundIndex], rebuild: bool
    ) -> IndexOutcome:
        name = metadata_index_name(collection.table)
        wanted = _Wanted(
            name,
            lambda: create_metadata_index(self._direct, collection, name, limits=self.options.limits),
            lambda: rebuild_index(
                self._direct, collection, name, None, m=0, rows=rows, limits=self.options.limits
            ),
        )
        ours = [index for index in found if index.is_ours and not index.is_vector]
        return self._bring_about(wanted, rows, ours, rebuild)

    def _bring_about(self, wanted: _Wanted, rows: int, ours: list[FoundIndex], rebuild: bool) -> IndexOutcome:
        """Makes the wanted index out of what is there of ours; nothing valid goes before it is valid."""
        valid = [index for index in ours if index.valid]
        superseded = [index for index in valid if index.name != wanted.name]
        leftover = any(index.is_leftover for index in ours)
        if len(superseded) < len(valid):
            self._drop(superseded)
            if not rebuild:
                return IndexOutcome(Action.KEPT, wanted.name)
            build = wanted.rebuild()
            return _built(Action.REBUILT, wanted.name, "as asked for", build)
        if rows < self.options.min_rows or rows == 0:
            reason = (
                f"{rows:,} rows: below index_min_rows ({self.options.min_rows:,}), scanning them is fast"
                if rows
                else "no vectors yet"
            )
            if superseded:
                return IndexOutcome(Action.KEPT, superseded[0].name, f"of other settings, but {reason}")
            return IndexOutcome(Action.SKIPPED, reason=reason)
        build = wanted.create()
        self._drop(superseded)
        if superseded:
            return _built(Action.REBUILT, wanted.name, f"settings changed: was {superseded[0].name}", build)
        if leftover:
            return _built(Action.REBUILT, wanted.name, "an earlier build was broken off", build)
        return _built(Action.BUILT, wanted.name, "", build)

    def _drop(self, indexes: list[FoundIndex]) -> None:
        for index in indexes:
            logger.info("dropping %s, which is no longer needed", index.name)
            drop_index(self._direct, index.name)

    def _recall(self, collection: Collection, index: VectorIndex) -> Recall | None:
        with self.database.transaction() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            return measure_recall(connection, collection, index, ef_search=RECALL_EF_SEARCH)


def _left_to(builder: int, found: list[FoundIndex]) -> tuple[IndexOutcome, IndexOutcome]:
    """Outcomes where another client is building an index of the collection: what is valid serves on."""
    reason = (
        f"server process {builder} is building an index here for another client; call again when it is done"
    )
    outcomes = []
    for of_vectors in (True, False):
        valid = [i.name for i in found if i.valid and i.is_ours and i.is_vector == of_vectors]
        action = Action.KEPT if valid else Action.SKIPPED
        outcomes.append(IndexOutcome(action, valid[0] if valid else None, reason))
    return outcomes[0], outcomes[1]


def _built(action: Action, name: str, reason: str, build: Build) -> IndexOutcome:
    return IndexOutcome(action, name, reason, seconds=build.seconds, notes=build.notes)


def _sized(outcome: IndexOutcome, there: dict[str, FoundIndex]) -> IndexOutcome:
    if outcome.name is None:
        return outcome
    return replace(outcome, size_bytes=there[outcome.name].size_bytes)
