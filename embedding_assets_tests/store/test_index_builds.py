"""Building indexes: what the server is allowed, one builder at a time, and nothing invalid left behind."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from embedding_assets.errors import FatalError, IndexBuildRunning, SettingsError, StoreUnavailable
from embedding_assets.store import index_builds
from embedding_assets.store.database import Database
from embedding_assets.store.index_builds import (
    Build,
    BuildLimits,
    check_same_database,
    create_metadata_index,
    create_vector_index,
    drop_index,
    drop_leftovers,
    graph_memory_mb,
    only_builder,
    rebuild_index,
)
from embedding_assets.store.indexes import FoundIndex, Kind, find_indexes, vector_index_name
from embedding_assets.store.spaces import SLIG, Collection
from embedding_assets_tests.conftest import Server
from embedding_assets_tests.factories import fill_collection, random_vectors, scalar

NAME = vector_index_name(SLIG, "vector", 16, 64)
LIMITS = BuildLimits(memory_mb=64, workers=0)


def create(
    database: Database,
    collection: Collection,
    limits: BuildLimits = LIMITS,
    rows: int = 100,
    name: str = NAME,
) -> Build:
    return create_vector_index(
        database, collection, name, "vector", m=16, ef_construction=64, rows=rows, limits=limits
    )


def indexes(database: Database, collection: Collection) -> dict[str, FoundIndex]:
    with database.transaction() as connection:
        found = find_indexes(connection, collection)
    return {index.name: index for index in found if not index.name.endswith("_pkey")}


@pytest.fixture
def collection(database: Database) -> Collection:
    return fill_collection(database, 100)


@pytest.fixture
def altered(database: Database) -> str:
    """The database's name, for settings of its own that end with it."""
    return str(make_url(database.url).database)


# -- building and dropping -------------------------------------------------------------------------------------


def test_an_index_is_built_with_its_parameters_rebuilt_and_dropped(
    database: Database, collection: Collection
) -> None:
    build = create(database, collection)
    assert build.seconds > 0
    assert build.notes == ()
    with database.transaction() as connection:
        options = scalar(connection, f"SELECT reloptions FROM pg_class WHERE relname = '{NAME}'")
        before = scalar(connection, f"SELECT relfilenode FROM pg_class WHERE relname = '{NAME}'")
    assert options == ["m=16", "ef_construction=64"]
    rebuild_index(database, collection, NAME, "vector", m=16, rows=100, limits=LIMITS)
    with database.transaction() as connection:
        assert scalar(connection, f"SELECT relfilenode FROM pg_class WHERE relname = '{NAME}'") != before
    (found,) = indexes(database, collection).values()
    assert (found.name, found.cosine_kind, found.valid) == (NAME, "vector", True)
    assert found.size_bytes > 0
    drop_index(database, NAME)
    drop_index(database, NAME)
    assert indexes(database, collection) == {}


def test_the_metadata_index_serves_filters_by_containment(database: Database, collection: Collection) -> None:
    create_metadata_index(database, collection, "i", limits=LIMITS)
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.execute(
            text(
                f'EXPLAIN SELECT id FROM {collection.qualified} WHERE metadata @> \'{{"workspace_id": "x"}}\''
            )
        ).scalars()
        assert any("Bitmap Index Scan on i" in line for line in plan)


def test_a_failed_build_leaves_nothing(database: Database, collection: Collection) -> None:
    with pytest.raises(FatalError, match="ef_construction"):
        create_vector_index(
            database, collection, NAME, "vector", m=16, ef_construction=8, rows=100, limits=LIMITS
        )
    with database.transaction() as connection:
        connection.execute(text(f"INSERT INTO {collection.qualified} VALUES ('x', '{[0] * 16}')"))
        connection.execute(
            text(
                f"ALTER TABLE {collection.qualified} ALTER vec TYPE vector"
            )  # of any dimension, so no index can be
        )
    with pytest.raises(FatalError, match="dimensions"):
        create(database, collection)
    assert indexes(database, collection) == {}


def test_an_index_of_the_same_name_is_not_mistaken_for_a_failed_builds_leftover(
    database: Database, collection: Collection
) -> None:
    create(database, collection)
    with pytest.raises(FatalError, match="already exists"):
        create(database, collection)
    assert indexes(database, collection)[NAME].valid


def test_leftovers_are_dropped_and_nothing_else(database: Database, collection: Collection) -> None:
    other = vector_index_name(SLIG, "vector", 8, 64)
    for name in (NAME, other, "theirs"):
        create(database, collection, name=name)
    with database.transaction() as connection:
        for name in (NAME, "theirs"):
            connection.execute(
                text(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vecs.{name}'::regclass")
            )
    assert drop_leftovers(database, collection) == [NAME]
    assert set(indexes(database, collection)) == {other, "theirs"}


# -- memory and processes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "m"), [("vector", 16), ("halfvec", 16), ("vector", 24)])
def test_the_memory_asked_for_holds_the_graph_and_is_not_much_more(
    database: Database, kind: Kind, m: int
) -> None:
    rows, dimension = 3_000, 128
    collection = fill_collection(database, rows, dimension)

    def notes(memory_mb: int) -> tuple[str, ...]:
        build = create_vector_index(
            database,
            collection,
            "i",
            kind,
            m=m,
            ef_construction=2 * m,
            rows=rows,
            limits=BuildLimits(memory_mb, workers=0),
        )
        drop_index(database, "i")
        return build.notes

    assert notes(graph_memory_mb(rows, dimension, kind, m)) == ()
    little = graph_memory_mb(rows * 7 // 10, dimension, kind, m) - graph_memory_mb(0, dimension, kind, m)
    (note,) = notes(little)
    assert f"no longer fitted into {little} MiB" in note
    assert "index_memory_mb" in note


def test_the_servers_settings_reach_the_build_and_nothing_else(
    database: Database, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    run = index_builds._run

    def look(connection, statement):  # type: ignore[no-untyped-def]
        names = ("maintenance_work_mem", "max_parallel_maintenance_workers", "statement_timeout")
        seen.append(tuple(scalar(connection, f"SELECT current_setting('{name}')") for name in names))
        run(connection, statement)

    monkeypatch.setattr(index_builds, "_run", look)
    create(database, collection, BuildLimits(memory_mb=4096, workers=3))
    create(database, collection, BuildLimits(memory_mb=100, workers=None), rows=10**7, name="other")
    assert seen == [("128MB", "3", "0"), ("100MB", "2", "0")]
    with database.transaction() as connection:
        assert scalar(connection, "SELECT current_setting('maintenance_work_mem')") == "64MB"


def test_too_little_shared_memory_for_several_processes_is_answered_by_one(
    database: Database, collection: Collection
) -> None:
    """As in a container, whose /dev/shm has 64 MB: a parallel build takes all its memory from there."""
    with database.transaction() as connection:
        kind = scalar(connection, "SELECT current_setting('dynamic_shared_memory_type')")
    if kind != "posix" or not Path("/dev/shm").is_dir():
        pytest.skip("this server does not take shared memory from /dev/shm")
    more = shutil.disk_usage("/dev/shm").total // 2**20 + 1024
    rows = int(more * 2**20 / 700)
    build = create(database, collection, BuildLimits(memory_mb=10**9, workers=1), rows=rows)
    assert "--shm-size" in build.notes[0]
    assert indexes(database, collection)[NAME].valid


# -- one builder at a time -------------------------------------------------------------------------------------


def test_a_second_builder_is_told_so_and_the_lock_ends_with_the_block(database: Database) -> None:
    with only_builder(database):
        with pytest.raises(IndexBuildRunning, match="another process"), only_builder(database):
            pass
        other = Database(database.url)
        with pytest.raises(IndexBuildRunning), only_builder(other):
            pass
        other.dispose()
    with only_builder(database):
        pass


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_builds_do_not_wait_for_the_builders_own_lock(
    database: Database, collection: Collection, altered: str, isolation: str
) -> None:
    """CREATE INDEX CONCURRENTLY waits for every older snapshot: the lock's transaction must hold none."""
    with database.transaction() as connection:
        connection.execute(
            text(f"ALTER DATABASE {altered} SET default_transaction_isolation = '{isolation}'")
        )
    own = Database(database.url)
    with only_builder(own) as pid:
        create(own, collection)
        with database.transaction() as connection:
            state, xmin = connection.execute(
                text("SELECT state, backend_xmin FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}
            ).one()
        assert (state, xmin) == ("idle in transaction", None)
        drop_index(own, NAME)
    own.dispose()


def test_the_lock_outlives_the_servers_limit_for_idle_transactions(database: Database, altered: str) -> None:
    with database.transaction() as connection:
        connection.execute(text(f"ALTER DATABASE {altered} SET idle_in_transaction_session_timeout = '50ms'"))
    own = Database(database.url)
    with only_builder(own):
        with database.transaction() as connection:
            connection.execute(text("SELECT pg_sleep(0.2)"))  # four times as long as others may idle
        with pytest.raises(IndexBuildRunning), only_builder(database):
            pass
    own.dispose()


def test_a_lock_that_is_lost_is_noticed(database: Database) -> None:
    with (
        pytest.raises(StoreUnavailable),
        only_builder(database) as pid,
        database.transaction() as connection,
    ):
        assert scalar(connection, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid) is True


def test_another_database_is_told_by_the_lock_that_is_not_there(postgres: Server, database: Database) -> None:
    url = postgres.make_database(postgres.template)
    elsewhere = Database(url)
    with only_builder(database) as pid:
        with database.session({}) as session:
            check_same_database(session, pid)
        with elsewhere.session({}) as session, pytest.raises(SettingsError, match="direct_database_url"):
            check_same_database(session, pid)
    elsewhere.dispose()
    postgres.drop_database(url)


# -- searches and writes meanwhile -----------------------------------------------------------------------------


def test_a_write_that_is_open_keeps_a_build_waiting_and_is_in_the_index_then(
    database: Database, collection: Collection
) -> None:
    """Read next to `test_index_kills.py`: the build waits for the write, never the write for the build."""
    with ThreadPoolExecutor(1) as pool, database.transaction() as connection:
        vector = random_vectors(1, 16, seed=7)[0]
        connection.execute(
            text(f"INSERT INTO {collection.qualified} VALUES ('new', CAST(:vec AS vector))"),
            {"vec": str(vector.tolist())},
        )
        building = pool.submit(create, database, collection)
        with database.transaction() as other:
            while not scalar(
                other,
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' "
                "AND wait_event_type = 'Lock' AND datname = current_database()",
            ):
                other.execute(text("SELECT pg_stat_clear_snapshot()"))
                assert not building.done(), building.exception()
        connection.commit()
        building.result(60)
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        nearest = scalar(
            connection,
            f"SELECT id FROM {collection.qualified} ORDER BY vec <=> CAST(:vec AS vector) LIMIT 1",
            vec=str(vector.tolist()),
        )
    assert nearest == "new"
