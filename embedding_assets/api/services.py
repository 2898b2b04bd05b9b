"""What routes work with: one object an app, its parts made when they are first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request

from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.thumbnail import ThumbnailCache
from embedding_assets.pipeline.assembly import open_image_store
from embedding_assets.pipeline.jobs import JobService, RunQueue
from embedding_assets.pipeline.service import ImageEmbeddingService
from embedding_assets.search.assembly import open_search_engine
from embedding_assets.search.engine import SearchEngine
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database, open_database

T = TypeVar("T")


class Services:
    """Settings, database, search engine, image store, jobs.

    Args:
        settings: of the app.
        database, search_engine, image_store, run_queue, embedding: made elsewhere, in place of those of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database | None = None,
        search_engine: SearchEngine | None = None,
        image_store: ImageStore | None = None,
        run_queue: RunQueue | None = None,
        embedding: ImageEmbeddingService | None = None,
    ) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._made: dict[str, Any] = {}
        given = {
            "database": database,
            "search_engine": search_engine,
            "image_store": image_store,
            "run_queue": run_queue,
            "embedding": embedding,
        }
        self._made.update({name: part for name, part in given.items() if part is not None})

    def _once(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            part: T = self._made[name]
            return part

    @property
    def database(self) -> Database:
        """The database, its schema ready; raises SchemaError, FatalError, StoreUnavailable."""
        return self._once("database", lambda: open_database(self.settings))

    @property
    def image_store(self) -> ImageStore:
        """The store of image bytes."""
        return self._once("image_store", lambda: open_image_store(self.settings))

    @property
    def search_engine(self) -> SearchEngine:
        """The search engine; loads no model before the first search."""
        return self._once("search_engine", lambda: open_search_engine(self.settings, self.database))

    @property
    def thumbnails(self) -> ThumbnailCache:
        """Small pictures of the last asked-for images."""
        return self._once("thumbnails", ThumbnailCache)

    @property
    def run_queue(self) -> RunQueue:
        """Dagster's queue of runs. Dagster is imported when it is first asked for."""
        return self._once("run_queue", self._open_run_queue)

    def _open_run_queue(self) -> RunQueue:
        from embedding_assets.defs.run_queue import DagsterRunQueue

        return DagsterRunQueue(self.settings)

    @property
    def embedding(self) -> ImageEmbeddingService:
        """What saves and embeds posted lists; loads no model before the first."""
        return self._once("embedding", lambda: ImageEmbeddingService.from_settings(self.settings))

    @property
    def jobs(self) -> JobService:
        """What starts and follows jobs."""
        return self._once(
            "jobs",
            lambda: JobService(self.database, self.settings, self.run_queue, lambda: self.embedding),
        )

    def close(self) -> None:
        """Waits for the job that runs in this process, and closes what was opened."""
        with self._lock:
            jobs = self._made.pop("jobs", None)
        if jobs is not None:
            jobs.close()

    @property
    def default_workspace(self) -> str:
        """The workspace of a request that names none, where no key is asked for."""
        return "demo" if self.settings.demo else "default"


def services(request: Request) -> Services:
    """The app's services, as a dependency."""
    found: Services = request.app.state.services
    return found
