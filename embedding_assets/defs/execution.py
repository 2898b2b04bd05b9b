"""Running jobs over documents in this process, recorded in the instance like any other run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from embedding_assets.defs.partial import done_check_keys
from embedding_assets.defs.partitions import documents, register_partitions
from embedding_assets.keys import DocumentKey

LOG_LEVEL_OF_RUNS = "ERROR"


@dataclass(frozen=True)
class RunOutcome:
    """How one run came out. `reason` is empty where it succeeded."""

    run_id: str
    keys: tuple[DocumentKey, ...]
    success: bool
    reason: str


def partition_runs(
    instance: dg.DagsterInstance, keys: Sequence[DocumentKey], documents_per_run: int
) -> list[list[DocumentKey]]:
    """Groups documents into runs.

    A run covers a range of partitions, and ranges follow the order in which partitions were added; so only
    documents that stand side by side in that order share a run.
    """
    if len(keys) == 1:
        return [list(keys)]
    order = {name: n for n, name in enumerate(instance.get_dynamic_partitions(documents.name or ""))}
    runs: list[list[DocumentKey]] = []
    last = -2
    for key in sorted(set(keys), key=lambda k: order[str(k)]):
        position = order[str(key)]
        if position != last + 1 or len(runs[-1]) >= documents_per_run:
            runs.append([])
        runs[-1].append(key)
        last = position
    return runs


def partition_tags(chunk: Sequence[DocumentKey]) -> dict[str, str]:
    """The tags that tell a run its partitions: one, or a range that begins with the first and ends with the last."""
    if len(chunk) == 1:
        return {PARTITION_NAME_TAG: str(chunk[0])}
    return {ASSET_PARTITION_RANGE_START_TAG: str(chunk[0]), ASSET_PARTITION_RANGE_END_TAG: str(chunk[-1])}


def run_job(
    defs: dg.Definitions,
    job_name: str,
    keys: Sequence[DocumentKey],
    instance: dg.DagsterInstance,
    *,
    documents_per_run: int,
    run_config: dict[str, Any] | None = None,
    asset: str | None = None,
) -> Iterator[RunOutcome]:
    """Runs a job over documents, chunk by chunk, in this process; yields each run's outcome.

    Args:
        asset: only this one of the job's assets.
    """
    register_partitions(instance, keys)
    job = defs.resolve_job_def(job_name)
    if asset:
        job = job.get_subset(
            asset_selection={dg.AssetKey(asset)}, asset_check_selection=set(done_check_keys([asset]))
        )
    config = {"loggers": {"console": {"config": {"log_level": LOG_LEVEL_OF_RUNS}}}, **(run_config or {})}
    for chunk in partition_runs(instance, keys, documents_per_run):
        result = job.execute_in_process(
            instance=instance,
            tags=partition_tags(chunk),
            run_config=config,
            raise_on_error=False,
            partition_key=str(chunk[0]) if len(chunk) == 1 else None,
        )
        reasons = []
        for event in result.get_step_failure_events():
            failure = event.step_failure_data
            description = failure.user_failure_data.description if failure.user_failure_data else None
            error = failure.error.cause or failure.error if failure.error else None
            reasons.append(description or (error.message.strip() if error else "unknown error"))
        yield RunOutcome(result.run_id, tuple(chunk), result.success, "\n".join(reasons))
