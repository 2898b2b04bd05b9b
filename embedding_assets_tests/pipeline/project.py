"""A small project on disk and in the database: a landing folder with documents, and what works on it."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import text

from embedding_assets.analysis.protocol import VisionAnalyzer
from embedding_assets.encoders.text import TextEmbedder
from embedding_assets.encoders.wordllama_text import WordLlamaEmbedder
from embedding_assets.ingest.fetch import FetchPolicy
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.ingest.limits import IngestLimits
from embedding_assets.ingest.posted import PostedAccess
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.assembly import UNDERSTANDING_TEMPLATE
from embedding_assets.pipeline.ingestion import DocumentIngestor
from embedding_assets.pipeline.slig import SligEmbedder
from embedding_assets.pipeline.texts import NEARBY_TEMPLATE, NearbyTextEmbedder, UnderstandingEmbedder
from embedding_assets.pipeline.vision import VisionAnalysisRunner
from embedding_assets.store.database import Database
from embedding_assets.store.failures import OpenFailure, open_failures
from embedding_assets_tests.ingest.pdf_writer import PdfWriter, draw
from embedding_assets_tests.pipeline.fake_analyzer import FakeAnalyzer
from embedding_assets_tests.pipeline.fake_clock import FakeClock
from embedding_assets_tests.pipeline.fake_encoder import FakeEncoder, vector_of


def png(seed: int, side: int = 64) -> bytes:
    """A small PNG file; each seed gives other bytes."""
    colours = np.random.default_rng(seed).integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def pdf(seeds: Sequence[int]) -> bytes:
    """A PDF with one page for each seed, and on it one image of 80 x 80 pixels."""
    writer = PdfWriter()
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 256, size=(80, 80, 3), dtype=np.uint8)
        number = writer.image(80, 80, pixels.tobytes())
        writer.page(draw("Im0", 50, 50, 200, 200), {"Im0": number})
    return writer.bytes()


@dataclass
class Project:
    """Database, landing folder, image store and text provider, all real; fake encoder, analyser and clock.

    `text_provider` makes the text embedder for a version of a text template.
    """

    database: Database
    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    encoder: FakeEncoder = field(default_factory=FakeEncoder)
    analyzer: VisionAnalyzer = field(default_factory=FakeAnalyzer)
    text_provider: Callable[[str], TextEmbedder] = WordLlamaEmbedder
    fetch: FetchPolicy = field(default_factory=FetchPolicy)
    limits: IngestLimits = field(default_factory=IngestLimits)
    image_store: ImageStore = field(init=False)

    def __post_init__(self) -> None:
        self.image_store = ImageStore(str(self.folder / "images"))

    @property
    def landing(self) -> Path:
        return self.folder / "landing"

    def land(self, key: str, content: bytes | dict[str, bytes]) -> DocumentKey:
        """Puts a file, or a folder of files (which then holds just these), into the landing folder."""
        path = self.landing / key
        if isinstance(content, bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            return DocumentKey.parse(key)
        path.mkdir(parents=True, exist_ok=True)
        for old in path.iterdir():
            if old.name not in content:
                old.unlink()
        for name, data in content.items():
            (path / name).write_bytes(data)
        return DocumentKey.parse(key)

    def land_images(self, key: str, seeds: Sequence[int]) -> DocumentKey:
        """Lands a folder with an image for each seed, named by its place."""
        return self.land(key, {f"{n:04d}.png": png(seed) for n, seed in enumerate(seeds)})

    def ingestor(self, max_retries: int = 3) -> DocumentIngestor:
        return DocumentIngestor(
            self.database,
            self.image_store,
            landing_root=str(self.landing),
            limits=self.limits,
            access=PostedAccess(str(self.landing), self.image_store.root, (), self.fetch),
            max_retries=max_retries,
            clock=self.clock,
        )

    def embedder(
        self, batch_size: int = 20, max_retries: int = 3, encoder: FakeEncoder | None = None
    ) -> SligEmbedder:
        return SligEmbedder(
            self.database,
            self.image_store,
            encoder or self.encoder,
            batch_size=batch_size,
            max_retries=max_retries,
            decode_threads=2,
            clock=self.clock,
        )

    def vision_runner(self, batch_size: int = 20, max_retries: int = 3) -> VisionAnalysisRunner:
        return VisionAnalysisRunner(
            self.database,
            self.image_store,
            self.analyzer,
            batch_size=batch_size,
            max_retries=max_retries,
            threads=2,
            clock=self.clock,
        )

    def understanding_embedder(self, batch_size: int = 200, max_retries: int = 3) -> UnderstandingEmbedder:
        return UnderstandingEmbedder(
            self.database,
            self.text_provider(UNDERSTANDING_TEMPLATE),
            batch_size=batch_size,
            max_retries=max_retries,
            clock=self.clock,
        )

    def nearby_text_embedder(self, batch_size: int = 200, max_retries: int = 3) -> NearbyTextEmbedder:
        return NearbyTextEmbedder(
            self.database,
            self.text_provider(NEARBY_TEMPLATE),
            batch_size=batch_size,
            max_retries=max_retries,
            clock=self.clock,
        )

    def ingested(self, key: str, seeds: Sequence[int]) -> DocumentKey:
        """A landed and ingested folder of images."""
        landed = self.land_images(key, seeds)
        self.ingestor().ingest(landed)
        return landed

    def rows(self, key: DocumentKey) -> list[Any]:
        """The document's image rows in reading order, with what Postgres knows of their versions."""
        with self.database.transaction() as connection:
            return list(
                connection.execute(
                    text(
                        "SELECT i.*, i.xmin::text AS version FROM document_images i "
                        "WHERE workspace_id = :w AND document_id = :d ORDER BY image_index"
                    ),
                    {"w": key.workspace_id, "d": key.document_id},
                ).all()
            )

    def ids(self, key: DocumentKey) -> list[uuid.UUID]:
        return [row.id for row in self.rows(key)]

    def failures(self, key: DocumentKey) -> list[OpenFailure]:
        with self.database.transaction() as connection:
            return open_failures(connection, key.workspace_id, key.document_id)

    def vectors(
        self, key: DocumentKey | None = None, collection: str = "image_slig_embeddings"
    ) -> dict[uuid.UUID, Any]:
        """Vectors by image id: of a document by their metadata, or all that there are."""
        with self.database.transaction() as connection:
            if connection.execute(text(f"SELECT to_regclass('vecs.{collection}')")).scalar() is None:
                return {}
            found = connection.execute(
                text(f"SELECT id, vec::text AS vec, metadata FROM vecs.{collection}")
            ).all()
        return {
            uuid.UUID(row.id): np.array(row.vec.strip("[]").split(","), dtype=np.float32)
            for row in found
            if key is None
            or (row.metadata["workspace_id"], row.metadata["document_id"])
            == (key.workspace_id, key.document_id)
        }

    def check_flags_equal_vectors(self) -> None:
        """Every flag has its vector, every vector its flag, and each vector is that of its image's bytes."""
        with self.database.transaction() as connection:
            flagged = {
                row.id: row.content_hash
                for row in connection.execute(
                    text("SELECT id, content_hash FROM document_images WHERE has_slig_embedding")
                )
            }
        vectors = self.vectors()
        assert flagged.keys() == vectors.keys()
        for image_id, content in flagged.items():
            np.testing.assert_allclose(vectors[image_id], vector_of(content), atol=1e-6)
