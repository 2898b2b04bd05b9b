"""The store behind a real PgBouncer in transaction mode, whose server connections change hands at each commit."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from embedding_assets.errors import ErrorClass, FatalError, IndexBuildRunning
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.indexing import IndexBuilder
from embedding_assets.settings import load_settings
from embedding_assets.store.database import Database, open_database
from embedding_assets.store.documents import coverage_of_document, mark_ingested
from embedding_assets.store.failures import Failure, open_failures, record_failures
from embedding_assets.store.images import images_lacking, load_images_to_do, remove_images_not_in
from embedding_assets.store.index_builds import only_builder
from embedding_assets.store.schema import upgrade_schema
from embedding_assets.store.spaces import SLIG, all_collections, ensure_collection
from embedding_assets.store.vectors import copy_known_vectors, write_embeddings
from embedding_assets_tests.conftest import Server
from embedding_assets_tests.factories import (
    fill_collection,
    make_document,
    nearest,
    random_vectors,
    scalar,
    space,
)

pytestmark = pytest.mark.slow

FLAG = "has_slig_embedding"
SERVER_CONNECTIONS = 2
THREADS = 6


def _binary() -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    binary = shutil.which("pgbouncer", path=path)
    if binary is None:
        reason = (
            "pgbouncer is not installed (Debian package pgbouncer): the store is not tested behind a pooler"
        )
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)
    return binary


@pytest.fixture(scope="module")
def pooler(postgres: Server) -> Iterator[int]:
    """Port of a PgBouncer in front of the session's server."""
    binary = _binary()
    folder = Path(tempfile.mkdtemp(prefix="ea-pool-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "pgbouncer.ini").write_text(
        f"""[databases]
* = host={postgres.socket_folder} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {SERVER_CONNECTIONS}
max_client_conn = 100
query_wait_timeout = 20
"""
    )
    as_user: dict[str, int] = {}
    if (
        os.geteuid() == 0
    ):  # PgBouncer refuses to run as root; the server's own user may enter its socket's folder
        folder.chmod(0o755)
        owner = Path(postgres.socket_folder).stat()
        as_user = {"user": owner.st_uid, "group": owner.st_gid}
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [binary, str(folder / "pgbouncer.ini")],
        stdout=log,
        stderr=log,
        **as_user,  # type: ignore[call-overload]
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            said = (folder / "log").read_text()
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
    yield port
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    log.close()
    shutil.rmtree(folder, ignore_errors=True)


def through(port: int, url: str) -> str:
    """The URL of the same database, through the pooler."""
    name = make_url(url).database
    return f"postgresql://postgres@127.0.0.1:{port}/{name}"


@pytest.fixture
def pooled(pooler: int, database_url: str) -> Iterator[Database]:
    database = Database(through(pooler, database_url))
    yield database
    database.dispose()


def test_connections_change_hands_at_each_commit(pooled: Database) -> None:
    """Guards the tests below: without this, they would prove nothing."""
    with pooled.engine.connect() as one, pooled.engine.connect() as other:
        pids = set()
        for _ in range(3):
            for connection in (one, other):
                pids.add(scalar(connection, "SELECT pg_backend_pid()"))
                connection.rollback()
        assert len(pids) == 1, "two clients share one server connection"


def test_an_empty_database_is_migrated_and_opened_through_the_pooler(
    pooler: int, empty_database_url: str
) -> None:
    url = through(pooler, empty_database_url)
    databases = [Database(url) for _ in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        changed = list(pool.map(upgrade_schema, databases))
    assert changed.count(True) == 1
    for database in databases:
        database.dispose()
    opened = open_database(load_settings(database_url=url))
    with opened.transaction() as connection:
        assert scalar(connection, "SELECT count(*) FROM documents") == 0
    opened.dispose()


def test_threads_write_read_and_search_through_few_server_connections(pooled: Database) -> None:
    def work(number: int) -> None:
        key = DocumentKey("shop", f"doc-{number}")
        ids = make_document(pooled, key, 30)
        vectors = random_vectors(30, seed=number)
        with pooled.transaction() as connection:
            mark_ingested(connection, key, "hash", None, None)
            collection = ensure_collection(connection, SLIG, space(8))
            record_failures(
                connection, [Failure(key, i, "slig", ErrorClass.TRANSIENT, "E", "m", 1) for i in ids[:3]]
            )
        for start in range(0, 30, 5):
            with pooled.transaction() as connection:
                to_do = images_lacking(connection, key, FLAG, "slig")
            assert to_do == ids[start:]
            with pooled.transaction() as connection:
                batch = [r.image_id for r in load_images_to_do(connection, "shop", to_do[:5], FLAG, "slig")]
            with pooled.transaction() as connection:
                counts = write_embeddings(
                    connection, "shop", batch, [(collection, vectors[start : start + 5])], stage="slig"
                )
            assert counts.images == 5
        with pooled.transaction() as connection:
            assert nearest(connection, "shop", collection, vectors[0], 1)[0][0] == ids[0]
            assert open_failures(connection, "shop", key.document_id) == []
            assert coverage_of_document(connection, key, FLAG, "slig").is_complete(1.0)
            assert remove_images_not_in(connection, key, ids[:10], all_collections(connection)) == 20

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    with pooled.transaction() as connection:
        assert scalar(connection, 'SELECT count(*) FROM vecs."image_slig_embeddings"') == THREADS * 10
        assert scalar(connection, "SELECT count(*) FROM embedding_spaces") == 1


def test_vectors_are_copied_through_the_pooler(pooled: Database) -> None:
    old, new = (make_document(pooled, f"shop/{name}", 1, content="same") for name in ("old", "new"))
    with pooled.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space(8))
        write_embeddings(connection, "shop", old, [(collection, random_vectors(1))], stage="slig")
    with pooled.transaction() as connection:
        assert copy_known_vectors(connection, "shop", new, [collection], stage="slig") == new


def test_nothing_is_left_in_a_server_connection(pooled: Database) -> None:
    """No prepared statements, temporary tables, session locks or changed settings wait for the next client."""
    ids = make_document(pooled, "shop/doc", 3)
    with pooled.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space(8))
        write_embeddings(connection, "shop", ids, [(collection, random_vectors(3))], stage="slig")
    with pooled.transaction() as connection:
        left = connection.execute(
            text(
                "SELECT (SELECT count(*) FROM pg_prepared_statements), "
                "(SELECT count(*) FROM pg_class WHERE relpersistence = 't'), "
                "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), "
                "(SELECT count(*) FROM pg_settings WHERE source = 'session' AND name NOT IN "
                "  ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings', "
                "   'IntervalStyle', 'search_path', 'default_transaction_read_only', 'scram_iterations'))"
            )
        ).one()
    assert tuple(left) == (0, 0, 0, 0)


def index_builder(database: Database, **changes: object) -> IndexBuilder:
    settings = load_settings(database_url=database.url, index_min_rows=10, index_memory_mb=200, **changes)
    return IndexBuilder.from_settings(settings, database)


def test_indexes_are_built_through_the_pooler_with_the_servers_own_settings(pooled: Database) -> None:
    fill_collection(pooled, 100)
    (report,) = index_builder(pooled).build()
    assert report.vector.action == report.metadata.action == "built"
    assert report.recall is not None
    assert "64 MiB of maintenance_work_mem" in report.vector.notes[0]
    assert "set direct_database_url" in report.vector.notes[0]
    with pytest.raises(IndexBuildRunning), only_builder(pooled):
        index_builder(pooled).build()
    with pooled.transaction() as connection:
        assert scalar(connection, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


def test_a_direct_way_past_the_pooler_builds_with_the_settings_asked_for(
    pooled: Database, database_url: str
) -> None:
    fill_collection(pooled, 100)
    (report,) = index_builder(pooled, direct_database_url=database_url).build()
    assert report.vector.action == "built"
    assert report.remarks == ""
    with pooled.transaction() as connection:
        assert scalar(connection, "SELECT current_setting('maintenance_work_mem')") == "64MB"


def test_a_database_that_the_pooler_does_not_find_is_fatal(pooler: int) -> None:
    database = Database(f"postgresql://postgres@127.0.0.1:{pooler}/not_there")
    with pytest.raises(FatalError, match="not_there"), database.transaction():
        pass
    database.dispose()
