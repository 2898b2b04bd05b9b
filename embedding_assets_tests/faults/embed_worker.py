"""What a process does that embeds one document and is made to be killed. Imports no model."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.clock import SystemClock
from embedding_assets.store.database import Database
from embedding_assets_tests.pipeline.fake_encoder import FakeEncoder
from embedding_assets_tests.pipeline.project import Project

SECONDS_AN_IMAGE = 0.001


@dataclass(frozen=True)
class EmbedTask:
    """What a worker embeds.

    `log` is the file that it writes each image that it encodes to: one line (SHA-256) each. After `pause_after`
    lines of its own it stands still until it is killed, so that no kill can come too late.
    """

    database_url: str
    folder: Path
    key: DocumentKey
    log: Path
    pause_after: int | None = None


def embed(task: EmbedTask, channel: Connection) -> None:
    """Says that it is ready, begins when told, and at the end sends its report."""
    project = Project(Database(task.database_url), task.folder, encoder=FakeEncoder())
    project.encoder.before_encode = EncodingLog(task.log, task.pause_after).write
    embedder = project.embedder(batch_size=20)
    embedder.clock = SystemClock()
    channel.send("ready")
    channel.recv()
    report = embedder.run(task.key.workspace_id, embedder.pending(task.key), run_id=f"pid {os.getpid()}")
    channel.send(report.summary())


class EncodingLog:
    """One line for each image encoded, in one write each, so that none is lost or torn by a kill."""

    def __init__(self, path: Path, pause_after: int | None) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._left = pause_after
        self._never = threading.Event()

    def write(self, contents: list[str]) -> None:
        for content in contents:
            if self._left == 0:
                self._never.wait()
            os.write(self._descriptor, f"{content}\n".encode())
            if self._left is not None:
                self._left -= 1
            self._never.wait(SECONDS_AN_IMAGE)
