"""Taking finished documents out of Dagster's partitions, while rows, vectors and search stay as they are."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
)
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from embedding_assets.defs.partitions import documents
from embedding_assets.errors import FatalError
from embedding_assets.keys import DocumentKey

CHUNK = 1_000
"""Keys that are looked up in one statement."""


def archive_partitions(
    instance: dg.DagsterInstance, keys: Sequence[DocumentKey], *, dry_run: bool = False
) -> int:
    """Removes the documents' partitions; the history of their runs and materializations stays in the instance.

    A document that changes is registered again as if it were new, and finds its rows and vectors in place.

    Returns:
        How many partitions were removed (or would be).

    Raises:
        FatalError: runs or backfills are not finished: they may name partitions as ends of their range.
    """
    if not dry_run:
        _require_rest(instance)
    name = documents.name or ""
    removed = 0
    for start in range(0, len(keys), CHUNK):
        chunk = [str(key) for key in keys[start : start + CHUNK]]
        registered = instance.get_existing_dynamic_partitions(name, chunk)
        for key in chunk:
            if key in registered:
                if not dry_run:
                    instance.delete_dynamic_partition(name, key)
                removed += 1
    return removed


def _require_rest(instance: dg.DagsterInstance) -> None:
    runs = instance.get_runs_count(dg.RunsFilter(statuses=list(NOT_FINISHED_STATUSES)))
    unfinished = [status for status in BulkActionStatus if status not in BULK_ACTION_TERMINAL_STATUSES]
    backfills = instance.get_backfills(filters=BulkActionsFilter(statuses=unfinished), limit=1)
    if runs or backfills:
        raise FatalError(
            f"{runs} runs and {'a backfill' if backfills else 'no backfill'} are not finished",
            hint="archive when nothing runs: a run of several documents names the first and last of its range",
        )
