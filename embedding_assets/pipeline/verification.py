"""Is a document done? Asked of the database, not of whoever says that it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedding_assets.keys import DocumentKey
from embedding_assets.store.database import Database
from embedding_assets.store.documents import Coverage, coverage_of_document
from embedding_assets.store.failures import OpenFailure, open_failures
from embedding_assets.store.stages import blamed_stages


@dataclass(frozen=True)
class DocumentOutcome:
    """Where a document stands at one stage.

    Attributes:
        coverage: counted from its rows.
        failures: its open failure records, those of ingest included.
        complete: whether it may be called materialized.
    """

    key: DocumentKey
    coverage: Coverage
    failures: tuple[OpenFailure, ...]
    complete: bool

    def reason(self, minimum: float) -> str:
        """Why it is not complete, with its numbers."""
        coverage = self.coverage
        counts = (
            f"{coverage.embedded} of {coverage.total} images embedded, {coverage.skipped} skipped, "
            f"{coverage.rejected} rejected, {coverage.missing} missing"
        )
        if not coverage.ingested:
            return f"{self.key}: its latest content is not ingested ({counts})"
        if coverage.missing:
            return f"{self.key}: {counts}"
        return f"{self.key}: coverage {coverage.ratio:.4f} is below the minimum {minimum} ({counts})"


def verify_documents(
    database: Database, keys: Sequence[DocumentKey], flag: str, stage: str, minimum: float
) -> list[DocumentOutcome]:
    """Reads the outcome of each document.

    Args:
        flag: flag column of the stage's collection.
        stage: name of the stage in failure records.
        minimum: coverage that a document needs, 0 to 1.
    """
    outcomes = []
    for key in keys:
        with database.transaction() as connection:
            coverage = coverage_of_document(connection, key, flag, stage)
            failures = tuple(
                failure
                for failure in open_failures(connection, key.workspace_id, key.document_id)
                if failure.stage in ("ingest", *blamed_stages(stage))
            )
        outcomes.append(DocumentOutcome(key, coverage, failures, coverage.is_complete(minimum)))
    return outcomes
