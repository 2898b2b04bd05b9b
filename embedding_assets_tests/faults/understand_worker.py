"""What a process does that analyses a document's images and embeds the analyses, and is made to be killed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from embedding_assets.analysis.qwen import QwenAnalyzer
from embedding_assets.encoders.voyage import VoyageEmbedder
from embedding_assets.ingest.decode import decode_rgb
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.clock import SystemClock
from embedding_assets.store.database import Database
from embedding_assets_tests.pipeline.project import Project

IMAGE_BATCH, TEXT_BATCH = 20, 25


@dataclass(frozen=True)
class UnderstandTask:
    """What a worker works on, and where the two providers' stubs listen."""

    database_url: str
    folder: Path
    key: DocumentKey
    chat_url: str
    voyage_url: str


def understand(task: UnderstandTask, channel: Connection) -> None:
    """Says that it is ready, begins when told, and at the end sends how much it did."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]  # the stubs are on loopback
    project = Project(Database(task.database_url), task.folder, clock=SystemClock())  # type: ignore[arg-type]
    project.analyzer = QwenAnalyzer(task.chat_url, decode, api_key="stub-key")
    project.text_provider = lambda template: VoyageEmbedder(
        "stub-key", template=template, base_url=task.voyage_url, dimension=256
    )
    channel.send("ready")
    channel.recv()
    reports = []
    for runner in (project.vision_runner(IMAGE_BATCH), project.understanding_embedder(TEXT_BATCH)):
        report = runner.run(task.key.workspace_id, runner.pending(task.key), run_id=f"pid {os.getpid()}")
        reports.append(report.summary())
    channel.send(reports)


def decode(data: bytes) -> Any:
    """The image, as the ingest limits of the settings allow it."""
    return decode_rgb(data, max_pixels=1_000_000)
