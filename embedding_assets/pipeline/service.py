"""`ImageEmbeddingService`: the Python interface for callers who post lists of images."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embedding_assets.ingest.records import ImageStatus
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.assembly import (
    open_image_store,
    open_ingestor,
    open_slig_embedder,
    open_understanding_embedder,
    open_vision_runner,
)
from embedding_assets.pipeline.checkpoint import read_checkpoint
from embedding_assets.pipeline.ingestion import DocumentIngestor
from embedding_assets.pipeline.report import DETAILED_FAILURES
from embedding_assets.pipeline.slig import FLAG, STAGE, SligEmbedder
from embedding_assets.pipeline.stage_runner import AnyRunner
from embedding_assets.pipeline.verification import verify_documents
from embedding_assets.settings import Settings, load_settings
from embedding_assets.store.database import open_database
from embedding_assets.store.failures import OpenFailure, open_failures
from embedding_assets.store.stages import UNDERSTANDING

logger = logging.getLogger(__name__)

EmbedderFactory = Callable[[int, int], SligEmbedder]
"""Makes an embedder for a batch size and a number of retries."""

UnderstandingFactory = Callable[[int, int], Sequence[AnyRunner]]
"""Makes the runners of analysis and understanding for a batch size of images and a number of retries."""


class ImageEmbeddingService:
    """Saves posted images and gives each its visual vector; safe to call again after any crash.

        service = ImageEmbeddingService.from_settings()
        result = service.save_images_and_generate_clips(
            [{"path": "/data/oak.jpg", "page_number": 3}], document_id="oak-2026", workspace_id="shop"
        )
        result["clip_embeddings_generated"], result["failed_images"]

    Args:
        ingestor: saves image rows.
        make_embedder: makes the embedder of a call.
        workspace_id: workspace that `_get_embedding_checkpoint` looks in.
        make_understanding: makes the runners of vision analysis and understanding vectors, in their order; None
            where images are not analysed.
    """

    def __init__(
        self,
        ingestor: DocumentIngestor,
        make_embedder: EmbedderFactory,
        workspace_id: str = "default",
        make_understanding: UnderstandingFactory | None = None,
    ) -> None:
        self.ingestor = ingestor
        self.make_embedder = make_embedder
        self.workspace_id = workspace_id
        self.make_understanding = make_understanding

    @classmethod
    def from_settings(
        cls, settings: Settings | None = None, workspace_id: str = "default"
    ) -> ImageEmbeddingService:
        """The service of these settings, by default those of the environment."""
        chosen = settings or load_settings()
        database = open_database(chosen)
        store = open_image_store(chosen)

        def make_embedder(batch_size: int, max_retries: int) -> SligEmbedder:
            return open_slig_embedder(chosen, database, store, batch_size=batch_size, max_retries=max_retries)

        def make_understanding(batch_size: int, max_retries: int) -> Sequence[AnyRunner]:
            return (
                open_vision_runner(chosen, database, store, batch_size=batch_size, max_retries=max_retries),
                open_understanding_embedder(chosen, database, max_retries=max_retries),
            )

        return cls(
            open_ingestor(chosen, database),
            make_embedder,
            workspace_id,
            None if chosen.vision_provider == "off" else make_understanding,
        )

    def save_images_and_generate_clips(
        self,
        material_images: Sequence[Mapping[str, Any]],
        document_id: str,
        workspace_id: str,
        batch_size: int = 20,
        max_retries: int = 3,
    ) -> dict[str, Any]:
        """Saves the images of a document and embeds those that have no vector yet.

        The list is the document: images that are no longer in it lose their rows and vectors. What is done
        already is left alone, so the same call after a crash does the rest.

        Args:
            material_images: dicts with `path` or `url`, and optionally page_number, caption, width, height,
                bbox, quality_score; further keys are kept.
            document_id, workspace_id: 1 to 128 characters of A-Z a-z 0-9 . _ -
            batch_size: images encoded and committed together.
            max_retries: tries of an image after its first, 2, 4, 8 s apart.

        Returns:
            images_saved: image rows that are new. clip_embeddings_generated: images that have their vector
            now and had none before. failed_images: every image of the document that stands without a vector
            or analysis for an error: index in the list, image_id, path, page_number, error, error_class, stage,
            attempts.
            skipped_images: how many were left out for a stated reason (too small). coverage: embedded /
            (all - skipped) after this call. understanding_embeddings_generated: images that have the vector of
            their analysis now and had none before; 0 where vision analysis is off.

        Raises:
            FatalError: the model can't be had, or makes vectors of another space than the active one.
            InfrastructureError: the database is gone; what was committed stays.
        """
        key = DocumentKey(workspace_id, document_id)
        run_id = f"service:{uuid.uuid4()}"
        embedder = self.make_embedder(batch_size, max_retries)
        embedder.open_collection()  # refuse a wrong model before anything is written
        self.ingestor.register_posted(key, material_images)
        saved = self.ingestor.ingest(key, run_id=run_id)
        pending = embedder.pending(key)
        logger.info("%s: %d images saved, %d to embed", key, saved.inserted, len(pending))
        report = embedder.run(key.workspace_id, pending, run_id=run_id)
        understood = self._understand(key, batch_size, max_retries, run_id)
        (outcome,) = verify_documents(self.ingestor.database, [key], FLAG, STAGE, minimum=0.0)
        with self.ingestor.database.transaction() as connection:
            failures = open_failures(connection, workspace_id, document_id)
        failed = [failed_image(failure) for failure in failures]
        logger.info(
            "%s: %d images saved, %d embeddings generated, %d failed, coverage %.1f %%",
            key,
            saved.inserted,
            report.embedded,
            len(failed),
            100 * outcome.coverage.ratio,
        )
        for item in failed[:DETAILED_FAILURES]:
            logger.error("%s: image %s (page %s): %s", key, item["path"], item["page_number"], item["error"])
        return {
            "images_saved": saved.inserted,
            "clip_embeddings_generated": report.embedded,
            "failed_images": failed,
            "skipped_images": outcome.coverage.skipped,
            "coverage": outcome.coverage.ratio,
            "understanding_embeddings_generated": understood,
        }

    def _understand(self, key: DocumentKey, batch_size: int, max_retries: int, run_id: str) -> int:
        """Analyses the document's images and embeds what they show; returns how many vectors are new."""
        embedded = 0
        for runner in self.make_understanding(batch_size, max_retries) if self.make_understanding else ():
            runner.preflight()
            report = runner.run(key.workspace_id, runner.pending(key), run_id=run_id)
            if runner.stage == UNDERSTANDING:
                embedded = report.embedded
        return embedded

    def _get_embedding_checkpoint(self, document_id: str) -> int | None:
        """How many images of the document are embedded; None where none is.

        For display only: what is left to do is a set, see `pipeline.checkpoint`.
        """
        key = DocumentKey(self.workspace_id, document_id)
        return read_checkpoint(self.ingestor.database, key, FLAG, STAGE).done or None

    def _process_single_image_with_retry(
        self,
        material_image: Mapping[str, Any],
        document_id: str,
        workspace_id: str,
        max_retries: int = 3,
    ) -> tuple[bool, bool, str | None]:
        """Saves and embeds one image of a posted document, beside those it has.

        Returns:
            (the image has a row that can be embedded, it has a vector, why not).
        """
        key = DocumentKey(workspace_id, document_id)
        run_id = f"service:{uuid.uuid4()}"
        embedder = self.make_embedder(1, max_retries)
        embedder.open_collection()
        image_id, found = self.ingestor.add_posted_image(key, material_image, run_id)
        if found.status is not ImageStatus.READY:
            return False, False, found.reason
        embedder.pending(key)  # gives images of earlier versions the vectors that these lack
        report = embedder.run(workspace_id, [image_id], run_id=run_id)
        if report.failed:
            return True, False, report.failed[0].error
        with self.ingestor.database.transaction() as connection:
            failures = open_failures(connection, workspace_id, document_id)
        for failure in failures:
            if failure.image_id == image_id and failure.stage == STAGE:
                return True, False, f"not tried: it failed for good in an earlier run ({failure.message})"
        return True, image_id not in read_checkpoint(self.ingestor.database, key, FLAG, STAGE).missing, None


def failed_image(failure: OpenFailure) -> dict[str, Any]:
    """A failure as the callers of this service know it: an entry of `failed_images`."""
    return {
        "index": failure.index,
        "image_id": str(failure.image_id) if failure.image_id else None,
        "path": failure.path,
        "page_number": failure.page_number,
        "error": failure.message,
        "error_class": failure.error_class,
        "stage": failure.stage,
        "attempts": failure.attempts,
    }
