"""Building and dropping indexes while searches and writes go on: CONCURRENTLY, with memory and processes of their own.

CREATE INDEX CONCURRENTLY can't run in a transaction, so SET LOCAL is of no use to it, and a plain SET would stay on
a pooled connection. Each statement here therefore has a connection of its own, whose settings are sent when it is
made. Through a transaction pooler they don't arrive (PgBouncer refuses them, others ignore them): the statement
then works with the server's own settings, and the outcome says so.

If the process that asked for a build is killed, the server goes on and completes it. If the server's process or the
server itself is stopped, an invalid index stays, which queries ignore and writes still maintain; so it has to go
(`drop_index`), and is never dropped before its replacement is valid where it is of use.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError

from embedding_assets.errors import EmbeddingAssetsError, FatalError, IndexBuildRunning, SettingsError
from embedding_assets.store.database import Database
from embedding_assets.store.indexes import Kind, find_indexes
from embedding_assets.store.spaces import Collection

logger = logging.getLogger(__name__)

INDEX_LOCK = 0x656D6269  # "embi"
"""Key of the advisory lock that the one builder of a database holds."""

WORKER_MEMORY_MB = 32
"""pgvector takes only as many processes as have this much of maintenance_work_mem each (MiB; measured on 0.8.5, and
plan_create_index_workers of Postgres)."""
METADATA_MEMORY_MB = 128
"""For the metadata index, whose entries are small (MiB)."""
SERVERS_OWN_WORKERS = 2
"""Postgres' default of max_parallel_maintenance_workers, for sizing the memory where the setting is left to it."""

_TOO_SMALL = re.compile(r"no longer fits into maintenance_work_mem after (\d+) tuples")
_NO_SHARED_MEMORY = "could not resize shared memory segment"


@dataclass(frozen=True)
class BuildLimits:
    """What the server may use to build one index.

    Attributes:
        memory_mb: at most this much maintenance_work_mem (MiB).
        workers: processes beside the first; None leaves it to the server's own setting.
    """

    memory_mb: int
    workers: int | None


@dataclass(frozen=True)
class Build:
    """How a build went: seconds, and what an operator should know of it."""

    seconds: float
    notes: tuple[str, ...] = ()


class _Notices:
    """What the server says meanwhile; not iterable, as SQLAlchemy empties psycopg2's own list after each statement."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def append(self, notice: str) -> None:
        self.said.append(notice)


@contextmanager
def only_builder(database: Database) -> Iterator[int]:
    """Makes the caller the one builder of indexes in this database for the block; yields the lock's backend pid.

    The lock belongs to an open transaction, so it works through a pooler, and goes with the process that dies.
    At READ COMMITTED an idle transaction has no snapshot, so that builds do not wait for it, nor does VACUUM.

    Raises:
        IndexBuildRunning: another process is the builder.
    """
    with database.transaction() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        # It idles for as long as the builds take. transaction_timeout: Postgres 17 and newer.
        connection.execute(
            text(
                "SELECT set_config(name, '0', true) FROM pg_settings "
                "WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')"
            )
        )
        taken = connection.execute(
            text("SELECT pg_try_advisory_xact_lock(:key) AS got, pg_backend_pid() AS pid"),
            {"key": INDEX_LOCK},
        ).one()
        if not taken.got:
            raise IndexBuildRunning(
                "the vector indexes are being built by another process",
                hint="wait until it is done: one builder at a time works on a database",
            )
        yield int(taken.pid)


def check_same_database(builder: Connection, lock_pid: int) -> None:
    """Raises SettingsError where the lock of `only_builder` is not seen on this connection: it leads elsewhere."""
    seen = builder.execute(
        text(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = :pid AND objid = :key "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
        ),
        {"pid": lock_pid, "key": INDEX_LOCK},
    ).scalar_one()
    if not seen:
        raise SettingsError(
            "direct_database_url leads to another database than database_url",
            hint="it has to be the very same database, reached past the pooler",
        )


def graph_memory_mb(rows: int, dimension: int, kind: Kind, m: int) -> int:
    """Memory in which pgvector holds the whole graph while it builds (MiB).

    Measured on pgvector 0.8.5 by the number of rows at which it says that the graph no longer fits: 205 + 32 m bytes
    a row (m from 4 to 64) beside its vector. A tenth is added for rows that come meanwhile, and 4 MiB for what the
    processes share.
    """
    bytes_per_row = 205 + 32 * m + 8 + dimension * (4 if kind == "vector" else 2)
    return int(rows * bytes_per_row * 1.1 / 2**20) + 5


def create_vector_index(
    database: Database,
    collection: Collection,
    name: str,
    kind: Kind,
    *,
    m: int,
    ef_construction: int,
    rows: int,
    limits: BuildLimits,
) -> Build:
    """Builds an HNSW index with cosine distance. Searches and writes go on meanwhile.

    Args:
        name: the new index's; there must be none of that name.
        rows: of the collection, to size the memory.

    Raises:
        StoreUnavailable, FatalError: the build failed; what it left is dropped where the database still answers.
    """
    indexed = "vec" if kind == "vector" else f"(vec::halfvec({int(collection.dimension)}))"
    statement = (
        f'CREATE INDEX CONCURRENTLY "{name}" ON {collection.qualified} '
        f"USING hnsw ({indexed} {kind}_cosine_ops) WITH (m = {int(m)}, ef_construction = {int(ef_construction)})"
    )
    need = graph_memory_mb(rows, collection.dimension, kind, m)
    return _build(database, collection, statement, need, limits)


def create_metadata_index(
    database: Database, collection: Collection, name: str, *, limits: BuildLimits
) -> Build:
    """Builds a GIN index for filters `metadata @> ...`; arguments and errors as `create_vector_index`."""
    statement = (
        f'CREATE INDEX CONCURRENTLY "{name}" ON {collection.qualified} USING gin (metadata jsonb_path_ops)'
    )
    return _build(database, collection, statement, METADATA_MEMORY_MB, limits)


def rebuild_index(
    database: Database,
    collection: Collection,
    name: str,
    kind: Kind | None,
    *,
    m: int,
    rows: int,
    limits: BuildLimits,
) -> Build:
    """Builds a valid index anew under its name; the old one serves until the new one is valid.

    Args:
        kind: of a vector index; None for the metadata index.
    """
    need = METADATA_MEMORY_MB if kind is None else graph_memory_mb(rows, collection.dimension, kind, m)
    statement = f'REINDEX INDEX CONCURRENTLY vecs."{name}"'
    return _build(database, collection, statement, need, limits)


def drop_index(database: Database, name: str) -> None:
    """Drops an index without keeping searches or writes waiting; one that is gone already is fine."""
    with database.session(_UNLIMITED) as connection:
        _run(connection, f'DROP INDEX CONCURRENTLY IF EXISTS vecs."{name}"')


def drop_leftovers(database: Database, collection: Collection) -> list[str]:
    """Drops what builds of ours that did not come to their end have left; returns the names.

    What another backend is building at this moment is no leftover, though it is not valid either.
    """
    with database.session(_UNLIMITED) as connection:
        names = [index.name for index in find_indexes(connection, collection) if index.is_leftover]
        for name in names:
            _run(connection, f'DROP INDEX CONCURRENTLY IF EXISTS vecs."{name}"')
    return names


_UNLIMITED = {"statement_timeout": "0", "lock_timeout": "0"}


def _build(
    database: Database, collection: Collection, statement: str, need_mb: int, limits: BuildLimits
) -> Build:
    try:
        return _attempt(database, statement, need_mb, limits)
    except BaseException as error:
        _drop_after(database, collection, error)
        if limits.workers == 0 or _NO_SHARED_MEMORY not in str(error):
            raise
        logger.warning("%s; trying again with one process", error)
    try:
        done = _attempt(database, statement, need_mb, replace(limits, workers=0))
    except BaseException as error:
        _drop_after(database, collection, error)
        raise
    note = (
        "built by one process: the server's shared memory (/dev/shm) is too small for several; in a container, "
        "give it more (docker run --shm-size)"
    )
    return Build(done.seconds, (note, *done.notes))


def _drop_after(database: Database, collection: Collection, error: BaseException) -> None:
    """Drops what a failed build left; where that fails too, the next call of the builder finds it."""
    try:
        drop_leftovers(database, collection)
    except EmbeddingAssetsError as second:
        logger.warning("what the failed build (%s) left can't be dropped now: %s", error, second)


def _attempt(database: Database, statement: str, need_mb: int, limits: BuildLimits) -> Build:
    processes = 1 + (SERVERS_OWN_WORKERS if limits.workers is None else limits.workers)
    memory = min(max(need_mb, processes * WORKER_MEMORY_MB), limits.memory_mb)
    settings = {**_UNLIMITED, "maintenance_work_mem": f"{memory}MB"}
    if limits.workers is not None:
        settings["max_parallel_maintenance_workers"] = str(limits.workers)
        # Long vectors lie outside of the table's main part, which then looks too small for several processes.
        settings["min_parallel_table_scan_size"] = "0"
    notes: list[str] = []
    with database.session(settings) as connection:
        in_force = connection.execute(
            text(
                "SELECT pg_size_bytes(current_setting('maintenance_work_mem')) / 1048576 AS memory, "
                "CAST(current_setting('max_parallel_maintenance_workers') AS int) AS workers"
            )
        ).one()
        if in_force.memory != memory or limits.workers not in (None, in_force.workers):
            notes.append(
                f"built with the server's own settings ({in_force.memory} MiB of maintenance_work_mem where {memory} "
                f"were asked for, {in_force.workers} processes beside the first): a pooler keeps ours from it; "
                "set direct_database_url"
            )
        notices = _Notices()
        connection.connection.dbapi_connection.notices = notices  # type: ignore[union-attr]
        start = time.perf_counter()
        _run(connection, statement)
        seconds = time.perf_counter() - start
        for notice in notices.said:
            if found := _TOO_SMALL.search(notice):
                notes.append(
                    f"slow: after {int(found[1]):,} rows the graph no longer fitted into {in_force.memory} MiB of "
                    f"maintenance_work_mem; {need_mb} MiB would do: raise index_memory_mb"
                )
    for note in notes:
        logger.warning("%s: %s", statement, note)
    return Build(seconds, tuple(notes))


def _run(connection: Connection, statement: str) -> None:
    """Runs a statement that may take hours; whatever interrupts the caller (Ctrl-C, a cancelled run) cancels it.

    In another thread, as psycopg2 lets no signal through while it waits for the server.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="index-build") as pool:
        work = pool.submit(connection.exec_driver_sql, statement)
        try:
            work.result()
        except (
            DataError
        ) as error:  # the statement's own, or of a row that a vecs client wrote: no image's fault
            raise FatalError(f"the index can't be built: {str(error.orig).splitlines()[0]}") from error
        except BaseException:
            if not work.done():
                connection.connection.dbapi_connection.cancel()  # type: ignore[union-attr]
            raise
