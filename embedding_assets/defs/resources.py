"""The one resource: it turns settings into the domain objects that assets work with.

Settings come from the environment of the process that runs the step, never from run config, so that no
secret can show up on a run's page.
"""

import dagster as dg

from embedding_assets.pipeline.assembly import (
    open_image_store,
    open_ingestor,
    open_landing_watch,
    open_nearby_text_embedder,
    open_slig_embedder,
    open_understanding_embedder,
    open_vision_runner,
)
from embedding_assets.pipeline.discovery import LandingWatch
from embedding_assets.pipeline.indexing import IndexBuilder
from embedding_assets.pipeline.ingestion import DocumentIngestor
from embedding_assets.pipeline.slig import SligEmbedder
from embedding_assets.pipeline.texts import NearbyTextEmbedder, UnderstandingEmbedder
from embedding_assets.pipeline.vision import VisionAnalysisRunner
from embedding_assets.settings import Settings, load_settings
from embedding_assets.store.database import Database, open_database


class PipelineResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Database, image store, ingest and encoder, as settings say. Subclass it to swap one in a test."""

    def settings(self) -> Settings:
        """The settings of this process."""
        return load_settings()

    def database(self) -> Database:
        """The database, with its schema ready."""
        return open_database(self.settings())

    def ingestor(self) -> DocumentIngestor:
        """What turns a document into image rows."""
        return open_ingestor(self.settings(), self.database())

    def landing_watch(self) -> LandingWatch:
        """What finds new and changed documents."""
        return open_landing_watch(self.settings(), self.database())

    def slig_embedder(self, batch_size: int | None = None, max_retries: int | None = None) -> SligEmbedder:
        """What turns image rows into visual vectors; None takes the setting."""
        settings = self.settings()
        return open_slig_embedder(
            settings,
            self.database(),
            open_image_store(settings),
            batch_size=batch_size,
            max_retries=max_retries,
        )

    def vision_runner(
        self, batch_size: int | None = None, max_retries: int | None = None
    ) -> VisionAnalysisRunner:
        """What analyses images; None takes the setting."""
        settings = self.settings()
        return open_vision_runner(
            settings,
            self.database(),
            open_image_store(settings),
            batch_size=batch_size,
            max_retries=max_retries,
        )

    def understanding_embedder(
        self, batch_size: int | None = None, max_retries: int | None = None
    ) -> UnderstandingEmbedder:
        """What turns analyses into vectors; None takes the setting."""
        return open_understanding_embedder(
            self.settings(), self.database(), batch_size=batch_size, max_retries=max_retries
        )

    def nearby_text_embedder(
        self, batch_size: int | None = None, max_retries: int | None = None
    ) -> NearbyTextEmbedder:
        """What turns captions and nearby texts into vectors; None takes the setting."""
        return open_nearby_text_embedder(
            self.settings(), self.database(), batch_size=batch_size, max_retries=max_retries
        )

    def index_builder(self) -> IndexBuilder:
        """What builds the vector indexes."""
        return IndexBuilder.from_settings(self.settings(), self.database())
