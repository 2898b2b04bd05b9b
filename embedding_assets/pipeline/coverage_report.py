"""Coverage of the whole corpus: taken, kept, and set against what it was before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from embedding_assets.pipeline.asset_stages import AssetStage
from embedding_assets.store.coverage_history import (
    CoverageRecord,
    count_failures,
    coverage_history,
    forget_coverage,
    record_coverage,
)
from embedding_assets.store.coverage_totals import CoverageTotal, coverage_totals
from embedding_assets.store.database import Database
from embedding_assets.store.documents import list_workspaces

SPEED_WINDOWS = (timedelta(minutes=90), timedelta(hours=6), timedelta(hours=24))
"""How far back the speed is looked for: the shortest window in which something was embedded counts. The first holds
two hourly records."""

SHOWN_HISTORY = timedelta(days=14)
"""How far back the report goes."""


@dataclass(frozen=True)
class StageCoverage:
    """Where one stage of one workspace stands, or of all together (`workspace_id` is None).

    Attributes:
        total: sums over its documents.
        failures: error class -> open failure records.
        images_per_hour: how fast images were embedded of late; None where that is not known yet.
        time_left: how long what is missing takes at that speed; None where nothing moves, zero where nothing is
            missing.
    """

    workspace_id: str | None
    stage: AssetStage
    total: CoverageTotal
    failures: dict[str, int]
    images_per_hour: float | None
    time_left: timedelta | None


@dataclass(frozen=True)
class CoverageReport:
    """Coverage of all workspaces and stages, and how it came to be.

    Attributes:
        stages: all workspaces together, one a stage, in the order of the stages.
        workspaces: one a workspace and stage.
        failures: of all workspaces, stage (that of ingest and of unused ones too) -> error class -> open records.
        history: stage -> (when, sums over all workspaces), oldest first, the last taken now.
        forgotten: rows of the history that were too old and are gone.
    """

    stages: tuple[StageCoverage, ...]
    workspaces: tuple[StageCoverage, ...]
    failures: dict[str, dict[str, int]]
    history: dict[str, list[tuple[datetime, CoverageTotal]]]
    forgotten: int


def images_per_hour(history: Sequence[tuple[datetime, int]]) -> float | None:
    """How fast a count grew of late.

    Args:
        history: (when, images embedded), oldest first.

    Returns:
        Images embedded an hour in the shortest of `SPEED_WINDOWS` in which there were any; 0 where there were none
        in the longest; None with fewer than two records. Falls in between, by documents that were removed, do not
        count.
    """
    if len(history) < 2:
        return None
    speed = None
    for window in SPEED_WINDOWS:
        recent = [(when, count) for when, count in history if when >= history[-1][0] - window]
        hours = (recent[-1][0] - recent[0][0]).total_seconds() / 3600
        if hours <= 0:
            continue
        grown = sum(max(0, after[1] - before[1]) for before, after in pairwise(recent))
        speed = grown / hours
        if grown:
            break
    return speed


def time_left(missing: int, speed: float | None) -> timedelta | None:
    """How long `missing` images take at `speed` images an hour; None where that can't be said."""
    if missing == 0:
        return timedelta()
    return timedelta(hours=missing / speed) if speed else None


def take_coverage(
    database: Database, stages: Sequence[AssetStage], minimum: float, keep: timedelta
) -> CoverageReport:
    """Counts the coverage of every workspace, keeps it, and reports it with its history.

    A named maintenance function: it goes over all workspaces.

    Args:
        stages: the stages in use.
        minimum: coverage that a document needs to be complete, 0 to 1.
        keep: older history is removed.
    """
    records: list[CoverageRecord] = []
    failures: dict[str, dict[str, int]] = {}
    with database.transaction() as connection:
        # One transaction, so one time for all rows of this taking.
        for workspace_id in list_workspaces(connection):
            totals = coverage_totals(connection, workspace_id, stages, minimum)
            open_failures = count_failures(connection, workspace_id)
            record_coverage(connection, workspace_id, totals, open_failures)
            for stage, counts in open_failures.items():
                for error_class, count in counts.items():
                    of_stage = failures.setdefault(stage, {})
                    of_stage[error_class] = of_stage.get(error_class, 0) + count
            records += coverage_history(connection, workspace_id, min(keep, SHOWN_HISTORY))
        forgotten = forget_coverage(connection, keep)
    of_workspaces = tuple(
        _stage_coverage(workspace_id, stage, [r for r in records if r.workspace_id == workspace_id])
        for workspace_id in sorted({record.workspace_id for record in records})
        for stage in stages
    )
    together = _together(records)
    return CoverageReport(
        stages=tuple(_stage_coverage(None, stage, together) for stage in stages),
        workspaces=of_workspaces,
        failures=failures,
        history={
            stage.name: [(r.taken_at, r.total) for r in together if r.stage == stage.name] for stage in stages
        },
        forgotten=forgotten,
    )


def _together(records: Sequence[CoverageRecord]) -> list[CoverageRecord]:
    """The records of all workspaces added up, for each moment and stage."""
    sums: dict[tuple[datetime, str], CoverageRecord] = {}
    for record in sorted(records, key=lambda r: (r.taken_at, r.stage)):
        slot = (record.taken_at, record.stage)
        before = sums.get(slot)
        failures = dict(before.failures) if before else {}
        for error_class, count in record.failures.items():
            failures[error_class] = failures.get(error_class, 0) + count
        total = before.total + record.total if before else record.total
        sums[slot] = CoverageRecord("", record.stage, record.taken_at, total, failures)
    return list(sums.values())


def _stage_coverage(
    workspace_id: str | None, stage: AssetStage, records: Sequence[CoverageRecord]
) -> StageCoverage:
    own = [record for record in records if record.stage == stage.name]
    if not own:
        return StageCoverage(workspace_id, stage, CoverageTotal(), {}, None, timedelta())
    speed = images_per_hour([(record.taken_at, record.total.embedded) for record in own])
    last = own[-1]
    return StageCoverage(
        workspace_id, stage, last.total, last.failures, speed, time_left(last.total.missing, speed)
    )
