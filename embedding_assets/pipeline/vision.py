"""The vision stage: what an image shows becomes an analysis in its row."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from embedding_assets.analysis.protocol import ImageContext, VisionAnalyzer
from embedding_assets.analysis.schema import SCHEMA_VERSION, VisionAnalysis
from embedding_assets.ingest.image_store import ImageStore
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.clock import Clock
from embedding_assets.pipeline.stage_runner import StageRunner
from embedding_assets.store import stages
from embedding_assets.store.analyses import (
    AnalysisVersion,
    copy_known_analyses,
    expire_analyses,
    write_analyses,
)
from embedding_assets.store.database import Database
from embedding_assets.store.images import ImageRow
from embedding_assets.store.spaces import UNDERSTANDING, active_collection

STAGE = stages.VISION
FLAG = "has_vision_analysis"


class VisionAnalysisRunner(StageRunner[Any, VisionAnalysis]):
    """Analyses stored images, once per content, provider, model and schema version.

    Args:
        database: where rows live.
        image_store: where the images' bytes are.
        analyzer: who analyses.
        batch_size, max_retries, max_throttle_wait_s, threads, clock: see `StageRunner`.
    """

    stage = STAGE
    flag = FLAG

    def __init__(
        self,
        database: Database,
        image_store: ImageStore,
        analyzer: VisionAnalyzer,
        *,
        batch_size: int = 20,
        max_retries: int = 3,
        max_throttle_wait_s: float = 3600.0,
        threads: int = 0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            database,
            batch_size=batch_size,
            max_retries=max_retries,
            max_throttle_wait_s=max_throttle_wait_s,
            threads=threads,
            clock=clock,
        )
        self.image_store = image_store
        self.analyzer = analyzer
        self._version: AnalysisVersion | None = None

    @property
    def version(self) -> AnalysisVersion:
        """What analyses are of; may load the analyser's model."""
        if self._version is None:
            self._version = AnalysisVersion(self.analyzer.provider, self.analyzer.model, SCHEMA_VERSION)
        return self._version

    def preflight(self) -> None:
        _ = self.version

    def describe(self) -> str:
        return str(self.version)

    def prepare_document(self, connection: Connection, key: DocumentKey) -> None:
        expire_analyses(connection, key, self.version)

    def load(self, item: ImageRow) -> Any:
        context = ImageContext(item.caption, item.nearby_text, item.page_number)
        return self.analyzer.prepare(self.image_store.get(item.store_key), context)

    def call(self, inputs: Sequence[Any]) -> Sequence[VisionAnalysis | Exception]:
        return self.analyzer.analyze(inputs)

    def write(
        self, connection: Connection, workspace_id: str, done: Sequence[tuple[ImageRow, VisionAnalysis]]
    ) -> int:
        return write_analyses(
            connection,
            workspace_id,
            [(row.image_id, analysis.to_json()) for row, analysis in done],
            self.version,
            active_collection(connection, UNDERSTANDING),
        )

    def twin_key(self, row: ImageRow) -> str | None:
        return row.content_hash

    def copy_known(
        self, connection: Connection, workspace_id: str, ids: Sequence[uuid.UUID]
    ) -> list[uuid.UUID]:
        understanding = active_collection(connection, UNDERSTANDING)
        return copy_known_analyses(connection, workspace_id, ids, self.version, understanding)

    def tokens_used(self) -> int:
        return int(getattr(self.analyzer, "tokens_used", 0))
