"""Starting processes that embed, and waiting for what they do."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, TypeVar

import pytest

import embedding_assets_tests
from embedding_assets.keys import DocumentKey
from embedding_assets_tests.faults.embed_worker import EmbedTask, embed
from embedding_assets_tests.pipeline.project import Project

PATIENCE_S = 120.0
"""How long any condition is waited for; only a hanging test gets there."""


def environment() -> dict[str, str]:
    """The environment of a child that has to import the tests' own modules."""
    root = str(Path(embedding_assets_tests.__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def wait_until(condition: Callable[[], bool], what: str, is_alive: Callable[[], bool]) -> None:
    """Waits for a condition, or fails when the process that should bring it about ends first."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        assert is_alive() or condition(), f"the process ended before {what}"
        time.sleep(0.001)


W = TypeVar("W", bound="Worker")

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["embedding_assets_tests.faults.embed_worker"])


def _start_fork_server() -> None:
    """Starts the clean process that every worker is forked from, so that twenty starts import nothing anew.

    It has to be told where the tests are: before Python 3.13 it does not get this process's `sys.path`, and
    leaves out silently what it can't import.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        forkserver.ensure_running()


class Worker:
    """A started worker process; leaving the `with` block kills what is left of it.

    Args:
        target: what it does with the task and its end of a channel: send "ready", wait for a word, work, send a
            report.
        task: what it works on.
    """

    def __init__(self, target: Callable[[Any, Any], None], task: Any) -> None:
        _start_fork_server()
        self._channel, far_end = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=target, args=(task, far_end))
        self.process.start()
        far_end.close()

    def __enter__(self: W) -> W:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._channel.close()

    def _receive(self) -> Any:
        assert self._channel.poll(PATIENCE_S)
        return self._channel.recv()

    def begin(self) -> None:
        """Lets it begin, once it is ready."""
        assert self._receive() == "ready"
        self._channel.send("begin")

    def kill(self) -> None:
        """SIGKILL: it can neither catch it nor clean up."""
        self.process.kill()
        self.process.join()

    def report(self) -> Any:
        """The report of a worker that runs to its end."""
        report = self._receive()
        self.process.join(PATIENCE_S)
        assert self.process.exitcode == 0
        return report


class EmbedWorker(Worker):
    """A worker that embeds a document with the fake encoder (see `embed_worker`)."""

    def __init__(self, project: Project, key: DocumentKey, log: Path, pause_after: int | None = None) -> None:
        super().__init__(embed, EmbedTask(project.database.url, project.folder, key, log, pause_after))


def lines_of(log: Path) -> list[str]:
    """The images that were encoded so far, by content hash."""
    return log.read_text().splitlines() if log.exists() else []
