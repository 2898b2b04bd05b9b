"""Understanding vectors for images that have an analysis and no vector, or a stale one; page by page."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from embedding_assets.pipeline.texts import UnderstandingEmbedder
from embedding_assets.store.analyses import analysed_without_vector, count_analysed_without_vector

PAGE = 1_000
"""Images asked for at once: read by key, so that page n costs no more than page 1."""


@dataclass
class BackfillReport:
    """What a backfill did, in counts of images."""

    scanned: int = 0
    embedded: int = 0
    skipped: int = 0
    failed: int = 0


def count_to_backfill(
    embedder: UnderstandingEmbedder, workspace_id: str, document_id: str | None = None
) -> int:
    """How many images of a workspace, or of one document, have an analysis and no vector of it."""
    with embedder.database.transaction() as connection:
        return count_analysed_without_vector(connection, workspace_id, document_id)


def backfill_understanding(
    embedder: UnderstandingEmbedder,
    workspace_id: str,
    *,
    document_id: str | None = None,
    limit: int | None = None,
    progress: Callable[[BackfillReport], None] | None = None,
) -> BackfillReport:
    """Embeds the analyses of images that have no vector of them. Stop it anywhere; the next call goes on.

    Args:
        workspace_id: the workspace.
        document_id: only this document.
        limit: images to look at, at most.
        progress: called after each page with the report so far.

    Raises:
        FatalError: a person has to act (a bad key, another provider's vectors).
        InfrastructureError: the database is gone.
    """
    embedder.preflight()
    report = BackfillReport()
    run_id = f"backfill:{uuid.uuid4()}"
    after: uuid.UUID | None = None
    while limit is None or report.scanned < limit:
        size = PAGE if limit is None else min(PAGE, limit - report.scanned)
        with embedder.database.transaction() as connection:
            ids = analysed_without_vector(connection, workspace_id, document_id, after, size)
        if not ids:
            break
        after = ids[-1]
        done = embedder.run(workspace_id, ids, run_id=run_id)
        report.scanned += len(ids)
        report.embedded += done.embedded
        report.skipped += done.skipped
        report.failed += len(done.failed)
        if progress:
            progress(report)
    return report
