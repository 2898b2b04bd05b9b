"""Index builds that are killed, broken off or watched: searches and writes go on, and nothing invalid is used."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from embedding_assets.errors import IndexBuildRunning
from embedding_assets.pipeline.indexing import IndexBuilder, IndexOptions
from embedding_assets.store.database import Database
from embedding_assets.store.index_builds import BuildLimits, only_builder
from embedding_assets.store.indexes import FoundIndex, find_indexes, usable_hnsw
from embedding_assets.store.spaces import Collection
from embedding_assets.store.vectors import nearest
from embedding_assets_tests.factories import fill_collection, random_vectors, scalar
from embedding_assets_tests.faults.processes import environment, wait_until

pytestmark = pytest.mark.slow

ROWS = 5_000
DIMENSION = 64
SLOW = {"INDEX_M": "64", "INDEX_EF_CONSTRUCTION": "1000"}
"""Parameters with which these rows keep a server busy for many seconds."""
NAME = "ix_halfvec_cosine_ops_hnsw_m64_efc1000_ea4fb8230"
LOADING = "building index: loading tuples"


@pytest.fixture
def collection(database: Database) -> Collection:
    return fill_collection(database, ROWS, DIMENSION)


COMMAND = ("embedding_assets.cli", "indexes", "--json")
DAGSTER_RUN = ("dagster", "job", "execute", "-m", "embedding_assets.definitions", "-j", "rebuild_indexes")


@contextmanager
def building(database: Database, module: Sequence[str] = COMMAND) -> Iterator[subprocess.Popen[str]]:
    """A process that builds indexes, with the server in the middle of it; killed at the end.

    Args:
        module: what it runs, with arguments.
    """
    variables = {**environment(), "DATABASE_URL": database.url.replace("+psycopg2", "")}
    variables["DAGSTER_HOME"] = str(Path.cwd())
    variables |= {f"EMBEDDING_ASSETS_{name}": value for name, value in SLOW.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(
            lambda: progress(database)[1] > ROWS // 50, "the build had begun", lambda: process.poll() is None
        )
        yield process
    finally:
        process.kill()
        process.communicate()


def progress(database: Database) -> tuple[int | None, int]:
    """The server process that builds a vector index, and how many rows it has loaded."""
    with database.transaction() as connection:
        row = connection.execute(
            text(
                "SELECT pid, tuples_done FROM pg_stat_progress_create_index "
                "WHERE datname = current_database() AND phase = :phase"
            ),
            {"phase": LOADING},
        ).first()
    return (row.pid, row.tuples_done) if row else (None, 0)


def terminate(database: Database, pid: int) -> None:
    """Ends a server process, as the out-of-memory killer or an administrator would."""
    with database.transaction() as connection:
        assert scalar(connection, "SELECT pg_terminate_backend(:pid, 20000)", pid=pid) is True


def vector_indexes(database: Database, collection: Collection) -> list[FoundIndex]:
    with database.transaction() as connection:
        return [index for index in find_indexes(connection, collection) if index.is_vector]


def quick_builder(database: Database) -> IndexBuilder:
    """A builder whose parameters take little time."""
    return IndexBuilder(database, IndexOptions(10, True, 8, 16, BuildLimits(64, 0)))


def same_builder(database: Database) -> IndexBuilder:
    """A builder of the very index that the killed process was building."""
    return IndexBuilder(database, IndexOptions(10, True, 64, 1000, BuildLimits(64, 0)))


def test_a_killed_build_leaves_an_invalid_index_that_is_not_used_and_the_next_call_rebuilds_it(
    database: Database, collection: Collection
) -> None:
    with building(database) as process:
        pid, _ = progress(database)
        assert pid is not None
        process.kill()
        process.wait()
        (left,) = vector_indexes(database, collection)
        assert (left.name, left.valid, left.builder_pid) == (NAME, False, pid), "the server goes on by itself"
        assert not left.is_leftover
        told = same_builder(database).build()[0]
        assert told.vector.action == told.metadata.action == "skipped"
        assert f"server process {pid} is building" in told.remarks
        assert progress(database)[0] == pid, "nobody waited for it"
        terminate(database, pid)
    (left,) = vector_indexes(database, collection)
    assert left.is_leftover
    with database.transaction() as connection:
        assert usable_hnsw(connection, [collection]) == {}
    report = quick_builder(database).build()[0]
    assert report.vector.action == "rebuilt"
    assert "broken off" in report.vector.reason
    assert report.recall is not None
    (built,) = vector_indexes(database, collection)
    assert (built.name, built.valid) == (report.vector.name, True)


def test_a_build_whose_client_was_killed_is_completed_by_the_server_and_kept(
    database: Database, collection: Collection
) -> None:
    with building(database) as process:
        process.kill()
        process.wait()
        wait_until(lambda: progress(database)[0] is None, "the server had completed it", lambda: True)
    wait_until(lambda: vector_indexes(database, collection)[0].valid, "the index was valid", lambda: True)
    report = same_builder(database).build()[0]
    assert (report.vector.action, report.vector.name) == ("kept", NAME)


def test_a_build_that_loses_its_server_process_fails_in_one_line_and_can_be_called_again(
    database: Database, collection: Collection
) -> None:
    with building(database) as process:
        pid, _ = progress(database)
        assert pid is not None
        terminate(database, pid)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
    assert "is not available" in err
    assert "Traceback" not in err
    # It drops what is left, where the server process that was ended is no longer seen at work by then.
    assert all(index.is_leftover for index in vector_indexes(database, collection))
    assert quick_builder(database).build()[0].vector.action in ("built", "rebuilt")
    assert [index.valid for index in vector_indexes(database, collection)] == [True]


@pytest.mark.parametrize(("module", "code"), [(COMMAND, 130), (DAGSTER_RUN, 1)])
def test_ctrl_c_and_a_runs_termination_stop_the_build_in_the_server_too_and_leave_nothing(
    database: Database, collection: Collection, module: Sequence[str], code: int
) -> None:
    with building(database, module) as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert progress(database) == (None, 0)
    assert vector_indexes(database, collection) == []
    with only_builder(database):
        pass


def test_searches_and_writes_are_served_while_an_index_is_built(
    database: Database, collection: Collection
) -> None:
    query = random_vectors(1, DIMENSION, seed=3)[0]
    slowest = 0.0
    rounds = 0
    with building(database) as process:
        with pytest.raises(IndexBuildRunning):
            quick_builder(database).build()
        while progress(database)[0] is not None and rounds < 20:
            started = time.perf_counter()
            with database.transaction() as connection:
                connection.execute(text("SET LOCAL statement_timeout = '10s'"))
                connection.execute(
                    text(f"INSERT INTO {collection.qualified} VALUES (:id, CAST(:vec AS vector))"),
                    {"id": f"new {rounds}", "vec": str(query.tolist())},
                )
                assert usable_hnsw(connection, [collection]) == {}
                found = connection.execute(
                    text(
                        f"SELECT id FROM {collection.qualified} ORDER BY vec <=> CAST(:vec AS vector) LIMIT 30"
                    ),
                    {"vec": str(query.tolist())},
                ).scalars()
                assert {f"new {n}" for n in range(rounds + 1)} <= set(found)
                assert nearest(connection, "shop", collection, query, 5) == [], "these belong to no image"
            slowest = max(slowest, time.perf_counter() - started)
            rounds += 1
        assert rounds > 5
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert slowest < 5
    with database.transaction() as connection:
        index = usable_hnsw(connection, [collection])[collection.table]
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        found = connection.execute(
            text(
                f"SELECT id FROM {collection.qualified} ORDER BY {index.operand(DIMENSION)} <=> "
                f"CAST(:vec AS {index.type_name(DIMENSION)}) LIMIT :n"
            ),
            {"vec": str(query.tolist()), "n": rounds},
        ).scalars()
        assert set(found) == {f"new {n}" for n in range(rounds)}, "what was written meanwhile is in the index"
    assert '"action": "built"' in out
