"""A server to ask: two workspaces with the same document each, keys of every role, fake models, a real database."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from embedding_assets.api.app import create_app
from embedding_assets.api.services import Services
from embedding_assets.encoders.aspects import SubspaceMethod
from embedding_assets.errors import PermanentError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.assembly import UNDERSTANDING_TEMPLATE
from embedding_assets.pipeline.jobs import QueuedRuns
from embedding_assets.pipeline.service import ImageEmbeddingService
from embedding_assets.pipeline.texts import NEARBY_TEMPLATE
from embedding_assets.search.engine import SearchEngine
from embedding_assets.search.queries import QueryEncoder
from embedding_assets.settings import Settings, load_settings
from embedding_assets.store.api_keys import ROLES, Role, create_key, revoke_key
from embedding_assets.store.database import Database
from embedding_assets_tests.pipeline.fake_encoder import content_of
from embedding_assets_tests.pipeline.project import Project, png
from embedding_assets_tests.search.corpus import TextsEmbedder

WORKSPACES = ("shop", "rival")
DOCUMENT = "tiles"
LOOPBACK = "http://127.0.0.1:8000"
PEER = ("127.0.0.1", 50_000)


@dataclass
class FakeQueue:
    """Stands for Dagster's queue: notes what is handed in, and says what it is told to.

    Attributes:
        submitted: (targets, title, config) of each.
        states: what `look` answers, by id; "queued" where nothing is said.
    """

    submitted: list[tuple[dict[str, list[DocumentKey]], str, dict[str, Any]]] = field(default_factory=list)
    states: dict[str, QueuedRuns] = field(default_factory=dict)
    served: bool = True
    fault: Exception | None = None

    def submit(
        self,
        targets: Mapping[str, Sequence[DocumentKey]],
        *,
        title: str,
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> str:
        if self.fault is not None:
            raise self.fault
        self.submitted.append(
            ({asset: list(keys) for asset, keys in targets.items()}, title, dict(config or {}))
        )
        return f"backfill-{len(self.submitted)}"

    def look(self, backfill_id: str) -> QueuedRuns:
        return self.states.get(backfill_id, QueuedRuns("queued", (), ""))

    def is_served(self) -> bool:
        return self.served

    def depth(self) -> dict[str, int]:
        return {"queued": 2, "started": 1}

    def close(self) -> None:
        """Holds nothing."""


class Site:
    """The app over a project with two workspaces, `shop` and `rival`: four images each, the third a failure."""

    def __init__(self, database: Database, folder: Path, **settings: Any) -> None:
        self.project = Project(database, folder, text_provider=TextsEmbedder)
        self.database = database
        self.queue = FakeQueue()
        defaults: dict[str, Any] = {
            "database_url": database.url,
            "var_dir": folder / "var",
            "landing_root": str(self.project.landing),
            "image_store_root": str(self.project.image_store.root),
            "api_requests_per_minute": 0,
        }
        self.settings: Settings = load_settings(**{**defaults, **settings})
        self.services = Services(
            self.settings,
            database=database,
            search_engine=self.engine(),
            image_store=self.project.image_store,
            run_queue=self.queue,
            embedding=self.embedding(),
        )
        self.app: FastAPI = create_app(self.settings, services=self.services)
        self.keys: dict[tuple[str, Role], str] = {}
        self.images: dict[str, list[uuid.UUID]] = {}

    def engine(self) -> SearchEngine:
        texts = {
            "text": TextsEmbedder(NEARBY_TEMPLATE),
            "understanding": TextsEmbedder(UNDERSTANDING_TEMPLATE),
        }
        return SearchEngine(self.database, QueryEncoder(self.project.encoder, texts, SubspaceMethod()))

    def embedding(self) -> ImageEmbeddingService:
        project = self.project
        return ImageEmbeddingService(
            project.ingestor(),
            lambda batch_size, retries: project.embedder(batch_size, retries),
            make_understanding=lambda batch_size, retries: (
                project.vision_runner(batch_size, retries),
                project.understanding_embedder(max_retries=retries),
            ),
        )

    def fill(self) -> Site:
        """Lands, ingests, embeds and analyses the documents of both workspaces."""
        for number, workspace in enumerate(WORKSPACES):
            seeds = range(100 * number, 100 * number + 4)
            poison = content_of(png(seeds[2]))
            self.project.encoder.poison[poison] = PermanentError("no such colour space")
            key = self.project.ingested(f"{workspace}/{DOCUMENT}", list(seeds))
            self.images[workspace] = self.project.ids(key)
            for runner in (
                self.project.embedder(),
                self.project.vision_runner(),
                self.project.understanding_embedder(),
            ):
                runner.preflight()
                runner.run(workspace, runner.pending(key), run_id="test")
            del self.project.encoder.poison[poison]
        return self

    def with_keys(self) -> Site:
        """A key of every role for each workspace, and for all."""
        with self.database.transaction() as connection:
            for workspace in (*WORKSPACES, "*"):
                for role in ROLES:
                    self.keys[workspace, role] = create_key(connection, "test", role, [workspace])[0]
            revoked, row = create_key(connection, "revoked", "admin", ["*"])
            revoke_key(connection, row.key_id)
        self.revoked = revoked
        return self

    def client(self, key: str | None = None, **headers: str) -> TestClient:
        """A program on this machine, with a key or without."""
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return TestClient(
            self.app, base_url=LOOPBACK, client=PEER, headers=headers, raise_server_exceptions=False
        )

    def as_role(self, workspace: str, role: Role) -> TestClient:
        """The holder of a key."""
        return self.client(self.keys[workspace, role])

    def count(self, statement: str, **values: Any) -> int:
        with self.database.transaction() as connection:
            return int(connection.execute(text(statement), values).scalar_one())
