"""Dagster's queue of runs, as the API sees it: hand in, look, count. Implements `pipeline.jobs.RunQueue`."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage.tags import BACKFILL_ID_TAG
from sqlalchemy.exc import SQLAlchemyError

from embedding_assets.defs.backfills import daemon_is_running, submit_backfill
from embedding_assets.defs.partitions import NOT_ENDED
from embedding_assets.deploy.instance import apply_dagster_environment
from embedding_assets.errors import StoreUnavailable
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.jobs import QueuedRuns
from embedding_assets.settings import PREFIX, Settings

MAX_RUNS = 50
"""Runs of a job that are named."""

_ENDED_WELL = {BulkActionStatus.COMPLETED, BulkActionStatus.COMPLETED_SUCCESS}
_WAITING = {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED}
_UNDER_WAY = {BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING}


class DagsterRunQueue:
    """The instance of these settings, opened when it is first needed. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._instance: dg.DagsterInstance | None = None
        self._lock = threading.Lock()

    def submit(
        self,
        targets: Mapping[str, Sequence[DocumentKey]],
        *,
        title: str,
        config: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> str:
        """Asks the daemon for a backfill; returns its id.

        Args:
            targets: asset -> documents.
            config: asset -> run config of its op; only of assets in `targets`.
        """
        ops = {asset: {"config": dict(values)} for asset, values in (config or {}).items()}
        with self._open() as instance:
            return submit_backfill(instance, targets, title=title, run_config={"ops": ops} if ops else None)

    def look(self, backfill_id: str) -> QueuedRuns:
        """How a backfill is going. One that the instance does not know has failed: somebody removed it."""
        with self._open() as instance:
            backfill = instance.get_backfill(backfill_id)
            if backfill is None:
                return QueuedRuns("failed", (), "Dagster does not know its backfill any more")
            runs = instance.get_runs(
                filters=dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill_id}), limit=MAX_RUNS
            )
        ids = tuple(run.run_id for run in runs)
        if backfill.status in _UNDER_WAY:
            begun = any(run.status not in _WAITING for run in runs)
            return QueuedRuns("running" if begun else "queued", ids, "")
        if backfill.status in _ENDED_WELL:
            return QueuedRuns("done", ids, "")
        failed = sum(1 for run in runs if run.status == dg.DagsterRunStatus.FAILURE)
        reason = f"{failed} of {len(runs)} runs failed" if failed else backfill.status.value.lower()
        if backfill.error is not None:
            reason += f": {backfill.error.message.strip()[:500]}"
        return QueuedRuns("failed", ids, reason)

    def is_served(self) -> bool:
        """Whether a daemon is there to start the runs."""
        with self._open() as instance:
            return daemon_is_running(instance)

    def depth(self) -> dict[str, int]:
        """Runs that have not ended, by Dagster's status."""
        with self._open() as instance:
            return {
                status.value.lower(): instance.get_runs_count(dg.RunsFilter(statuses=[status]))
                for status in NOT_ENDED
            }

    def close(self) -> None:
        """Closes the instance."""
        with self._lock:
            if self._instance is not None:
                self._instance.dispose()
                self._instance = None

    @contextmanager
    def _open(self) -> Iterator[dg.DagsterInstance]:
        try:
            with self._lock:
                if self._instance is None:
                    apply_dagster_environment(self.settings)
                    self._instance = dg.DagsterInstance.get()
                instance = self._instance
            yield instance
        except SQLAlchemyError as error:
            raise StoreUnavailable(
                f"Dagster's storage can't be used: {str(error).splitlines()[0][:200]}",
                hint=f"check {PREFIX}DAGSTER_DATABASE_URL; `embedding-assets doctor` looks at it too",
            ) from error
