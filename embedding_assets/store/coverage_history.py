"""Coverage over time: sums of each workspace and stage, taken every now and then and kept for trends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from embedding_assets.store.coverage_totals import CoverageTotal
from embedding_assets.store.json_text import to_json


@dataclass(frozen=True)
class CoverageRecord:
    """What coverage a workspace had at a stage at some moment.

    Attributes:
        failures: error class -> open failure records of the stage.
    """

    workspace_id: str
    stage: str
    taken_at: datetime
    total: CoverageTotal
    failures: dict[str, int]


def count_failures(connection: Connection, workspace_id: str) -> dict[str, dict[str, int]]:
    """Open failure records of a workspace: stage -> error class -> how many."""
    rows = connection.execute(
        text(
            "SELECT stage, error_class, count(*) AS failures FROM embedding_failures "
            "WHERE workspace_id = :workspace AND resolved_at IS NULL GROUP BY stage, error_class "
            "ORDER BY stage, error_class"
        ),
        {"workspace": workspace_id},
    ).all()
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        counts.setdefault(row.stage, {})[row.error_class] = row.failures
    return counts


def record_coverage(
    connection: Connection,
    workspace_id: str,
    totals: Mapping[str, CoverageTotal],
    failures: Mapping[str, Mapping[str, int]],
) -> int:
    """Keeps what coverage a workspace has now; returns how many rows were written.

    Args:
        totals: stage -> sums.
        failures: stage -> error class -> open failure records.
    """
    rows = [
        {"stage": stage, "failures": dict(failures.get(stage, {})), **asdict(total)}
        for stage, total in totals.items()
    ]
    return connection.execute(
        text(
            "INSERT INTO coverage_history (workspace_id, stage, documents, complete, images, embedded, skipped, "
            "rejected, missing, failures) "
            "SELECT :workspace, stage, documents, complete, images, embedded, skipped, rejected, missing, failures "
            "FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS n(stage text, documents int, complete int, "
            "images bigint, embedded bigint, skipped bigint, rejected bigint, missing bigint, failures jsonb)"
        ),
        {"workspace": workspace_id, "rows": to_json(rows)},
    ).rowcount


def forget_coverage(connection: Connection, older_than: timedelta) -> int:
    """Removes what was kept before that long ago, of all workspaces (maintenance); returns how many rows."""
    return connection.execute(
        text("DELETE FROM coverage_history WHERE taken_at < now() - CAST(:age AS interval)"),
        {"age": older_than},
    ).rowcount


def coverage_history(connection: Connection, workspace_id: str, since: timedelta) -> list[CoverageRecord]:
    """What was kept of a workspace in the last `since`, oldest first."""
    rows = connection.execute(
        text(
            "SELECT * FROM coverage_history WHERE workspace_id = :workspace "
            "AND taken_at >= now() - CAST(:age AS interval) ORDER BY taken_at, stage"
        ),
        {"workspace": workspace_id, "age": since},
    ).all()
    return [
        CoverageRecord(
            row.workspace_id,
            row.stage,
            row.taken_at,
            CoverageTotal(
                row.documents,
                row.complete,
                row.images,
                row.embedded,
                row.skipped,
                row.rejected,
                row.missing,
            ),
            row.failures,
        )
        for row in rows
    ]
