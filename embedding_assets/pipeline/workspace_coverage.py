"""Coverage of one workspace as it is now, with what was recorded of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from sqlalchemy import Connection

from embedding_assets.pipeline.asset_stages import AssetStage, stages_in_use
from embedding_assets.pipeline.coverage_report import (
    SPEED_WINDOWS,
    StageCoverage,
    images_per_hour,
    time_left,
)
from embedding_assets.settings import Settings
from embedding_assets.store.coverage_history import (
    CoverageRecord,
    count_failures,
    coverage_history,
)
from embedding_assets.store.coverage_totals import coverage_totals
from embedding_assets.store.database import Database
from embedding_assets.store.documents import coverage_by_stage
from embedding_assets.store.listing import count_vectors_by_kind, page_of_documents
from embedding_assets.store.models import FLAGS

_LOOKED_AT = 500
"""Documents whose coverage is counted at once when incomplete ones are looked for."""


@dataclass(frozen=True)
class WorkspaceCoverage:
    """Where a workspace stands.

    Attributes:
        stages: by name, in the order in which they are run.
        failures: open failures, stage (ingest and unused ones too) -> error class -> how many.
        vectors: images with a vector, by logical name of the collection.
        history: what was recorded, oldest first.
    """

    stages: dict[str, StageCoverage]
    failures: dict[str, dict[str, int]]
    vectors: dict[str, int]
    history: list[CoverageRecord]


def read_workspace_coverage(
    database: Database, workspace_id: str, settings: Settings, days: int = 14
) -> WorkspaceCoverage:
    """Counts the coverage of a workspace, and says how fast it grew of late.

    Args:
        days: how far back the history goes.
    """
    stages = stages_in_use(settings)
    since = max(timedelta(days=days), SPEED_WINDOWS[-1])
    with database.transaction() as connection:
        totals = coverage_totals(connection, workspace_id, stages, settings.min_coverage)
        failures = count_failures(connection, workspace_id)
        counts = count_vectors_by_kind(connection, workspace_id, list(FLAGS.values()))
        history = coverage_history(connection, workspace_id, since)
    now = datetime.now(timezone.utc)
    found = {}
    for stage in stages:
        total = totals[stage.name]
        recorded = [(r.taken_at, r.total.embedded) for r in history if r.stage == stage.name]
        speed = images_per_hour([*recorded, (now, total.embedded)])
        found[stage.name] = StageCoverage(
            workspace_id,
            stage,
            total,
            failures.get(stage.name, {}),
            speed,
            time_left(total.missing, speed),
        )
    shown = [record for record in history if record.taken_at >= now - timedelta(days=days)]
    return WorkspaceCoverage(found, failures, {name: counts[flag] for name, flag in FLAGS.items()}, shown)


def incomplete_documents(
    connection: Connection,
    workspace_id: str,
    stages: Sequence[AssetStage],
    minimum: float,
    after: str | None,
    limit: int,
) -> list[str]:
    """Ids of documents behind `after` that are not complete at some stage, sorted, at most `limit`.

    Args:
        minimum: coverage that a document needs to be complete, 0 to 1.
    """
    found: list[str] = []
    while len(found) < limit:
        ids = page_of_documents(connection, workspace_id, after, _LOOKED_AT)
        if not ids:
            break
        complete = set(ids)
        for coverages in coverage_by_stage(connection, workspace_id, stages, ids).values():
            complete -= {row.key.document_id for row in coverages if not row.is_complete(minimum)}
        found += [i for i in ids if i not in complete]
        after = ids[-1]
    return found[:limit]
