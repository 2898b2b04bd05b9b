"""The two stages that embed texts: understanding (of analyses) and text (of captions and the text nearby)."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from pydantic import ValidationError
from sqlalchemy import Connection

from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.analysis.to_text import analysis_to_text, is_worth_embedding
from embedding_assets.encoders.protocol import Vectors
from embedding_assets.encoders.text import TextEmbedder
from embedding_assets.errors import ImageSkipped, PermanentError, SpaceMismatch
from embedding_assets.pipeline.clock import Clock
from embedding_assets.pipeline.stage_runner import StageRunner
from embedding_assets.store import stages
from embedding_assets.store.database import Database
from embedding_assets.store.images import ImageRow
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import TEXT, UNDERSTANDING, Collection, ensure_collection
from embedding_assets.store.vectors import copy_known_vectors, write_embeddings

NEARBY_TEMPLATE = "nearby-1"
"""Version of the text that the text stage makes of caption and nearby text; part of its space."""


class TextStageRunner(StageRunner[str, Vectors]):
    """Embeds one text an image; see the two stages below.

    Args:
        database: where rows and vectors live.
        embedder: the text provider, made for this stage's template.
        batch_size: texts asked for at once; packed into requests under the provider's limits, and each request
            is committed by itself.
        max_retries, max_throttle_wait_s, clock: see `StageRunner`.
    """

    logical_name: str

    def __init__(
        self,
        database: Database,
        embedder: TextEmbedder,
        *,
        batch_size: int = 200,
        max_retries: int = 3,
        max_throttle_wait_s: float = 3600.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            database,
            batch_size=batch_size,
            max_retries=max_retries,
            max_throttle_wait_s=max_throttle_wait_s,
            threads=1,
            clock=clock,
        )
        self.embedder = embedder
        self._collection: Collection | None = None

    @abstractmethod
    def text_of(self, item: ImageRow) -> str:
        """The text of an image; empty where there is none."""

    @property
    def collection(self) -> Collection:
        """The collection to write to; made where it is missing. Raises SpaceMismatch."""
        if self._collection is None:
            with self.database.transaction() as connection:
                try:
                    self._collection = ensure_collection(connection, self.logical_name, self.embedder.space)
                except SpaceMismatch as error:
                    raise SpaceMismatch(
                        error.message,
                        hint="set EMBEDDING_ASSETS_TEXT_PROVIDER back to the provider that made the vectors, or "
                        "use another database: vectors of two providers are never mixed",
                    ) from error
        return self._collection

    def preflight(self) -> None:
        _ = self.collection

    def describe(self) -> str:
        return str(self.embedder.space)

    def load(self, item: ImageRow) -> str:
        text = self.text_of(item)
        if not is_worth_embedding(text):
            raise ImageSkipped("no text worth embedding" if text else "no text")
        return text

    def split(self, rows: list[ImageRow]) -> list[list[ImageRow]]:
        texts = [self._text_or_none(row) for row in rows]
        return [[rows[n] for n in request] for request in self.embedder.pack(texts, self.batch_size)]

    def _text_or_none(self, row: ImageRow) -> str:
        try:
            return self.text_of(row)
        except PermanentError:
            return ""  # `load` says so, and only this image fails

    def call(self, inputs: Sequence[str]) -> Sequence[Vectors | Exception]:
        return list(self.embedder.embed_documents(inputs))

    def write(
        self, connection: Connection, workspace_id: str, done: Sequence[tuple[ImageRow, Vectors]]
    ) -> int:
        vectors = np.stack([vector for _, vector in done])
        ids = [row.image_id for row, _ in done]
        return write_embeddings(
            connection, workspace_id, ids, [(self.collection, vectors)], stage=self.stage
        ).images

    def tokens_used(self) -> int:
        return int(getattr(self.embedder, "tokens_used", 0))


class UnderstandingEmbedder(TextStageRunner):
    """Embeds the text of each image's analysis. Images without an analysis are left to the vision stage."""

    stage = stages.UNDERSTANDING
    flag = FLAGS[UNDERSTANDING]
    logical_name = UNDERSTANDING

    def text_of(self, item: ImageRow) -> str:
        try:
            analysis = VisionAnalysis(**(item.vision_analysis or {}))
        except ValidationError as error:
            raise PermanentError(
                f"the stored analysis can't be read ({error.error_count()} fields, first "
                f"{'.'.join(map(str, error.errors()[0]['loc']))}): analyse the image again"
            ) from error
        return analysis_to_text(analysis)

    def twin_key(self, row: ImageRow) -> str | None:
        return row.content_hash

    def copy_known(
        self, connection: Connection, workspace_id: str, ids: Sequence[uuid.UUID]
    ) -> list[uuid.UUID]:
        return copy_known_vectors(
            connection, workspace_id, ids, [self.collection], stage=self.stage, same_analysis=True
        )


class NearbyTextEmbedder(TextStageRunner):
    """Embeds the caption of each image and the text nearest to it in its document."""

    stage = stages.TEXT
    flag = FLAGS[TEXT]
    logical_name = TEXT

    def text_of(self, item: ImageRow) -> str:
        return nearby_text(item.caption, item.nearby_text)


def nearby_text(caption: str | None, nearby: str | None) -> str:
    """Caption and nearby text in one line; the caption once, where the nearby text begins with it or holds it."""
    first = " ".join((caption or "").split())
    rest = " ".join((nearby or "").split())
    if first and first in rest:
        return rest
    return f"{first} {rest}".strip()
