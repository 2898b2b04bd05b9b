"""The code location of these tests: the real definitions over a project with a fake model; made to be killed.

Environment: `E2E_FOLDER` (the project's folder), `E2E_PAUSES` (a folder), DATABASE_URL and settings. Where the
folder of pauses holds a file `<stage>` with an image's content hash, the first process to work on that image at that
stage takes the file, writes its process id into `<stage>.paused`, and stands still until it is killed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from embedding_assets.definitions import build_defs
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.settings import load_settings
from embedding_assets.store.database import Database
from embedding_assets_tests.defs.dagster_project import resource_for
from embedding_assets_tests.e2e.pauses import FOLDER, pause
from embedding_assets_tests.pipeline.project import Project


class PausingStore(ImageStore):
    """Pauses where an image is stored."""

    def put(self, data: bytes, image_format: str) -> str:
        pause("ingest", hashlib.sha256(data).hexdigest())
        return super().put(data, image_format)


class PausingProject(Project):
    """Pauses where a stage loads an image."""

    def __post_init__(self) -> None:
        self.image_store = PausingStore(str(self.folder / "images"))

    def embedder(self, *arguments: Any, **options: Any) -> Any:
        return _pausing(super().embedder(*arguments, **options))

    def vision_runner(self, *arguments: Any, **options: Any) -> Any:
        return _pausing(super().vision_runner(*arguments, **options))

    def understanding_embedder(self, *arguments: Any, **options: Any) -> Any:
        return _pausing(super().understanding_embedder(*arguments, **options))

    def nearby_text_embedder(self, *arguments: Any, **options: Any) -> Any:
        return _pausing(super().nearby_text_embedder(*arguments, **options))


def _pausing(runner: Any) -> Any:
    load = runner.load

    def pause_then_load(item: Any) -> Any:
        pause(runner.stage, item.content_hash)
        return load(item)

    runner.load = pause_then_load
    return runner


_settings = load_settings()
assert _settings.database_url is not None
_project = PausingProject(Database(_settings.database_url.get_secret_value()), Path(os.environ[FOLDER]))
defs = build_defs(pipeline=resource_for(_project, _settings))
