"""The partitions: one for each document; its key is the document key, `workspace_id/document_id`."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from embedding_assets.keys import DocumentKey
from embedding_assets.settings import load_settings

logger = logging.getLogger(__name__)

documents = dg.DynamicPartitionsDefinition(name="documents")

NOT_ENDED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

CHUNK = 10_000
"""Partitions added in one call: Dagster's storage writes them in one statement."""

WARN_AT = 0.8
"""Share of the supported partitions from which on a warning is due."""


def register_partitions(instance: dg.DagsterInstance, keys: Iterable[DocumentKey]) -> int:
    """Adds the partitions that are not there yet, in order; returns how many were added.

    Warns in the log where the supported number of partitions comes near.
    """
    name = documents.name or ""
    wanted = list(dict.fromkeys(map(str, keys)))
    known = instance.get_existing_dynamic_partitions(name, wanted)
    new = [key for key in wanted if key not in known]
    for start in range(0, len(new), CHUNK):
        instance.add_dynamic_partitions(name, new[start : start + CHUNK])
    if new and (
        warning := capacity_warning(count_partitions(instance), load_settings().supported_partitions)
    ):
        logger.warning(warning)
    return len(new)


def count_partitions(instance: dg.DagsterInstance) -> int:
    """How many documents have a partition. Reads them all: 0.4 s at 100,000."""
    return len(instance.get_dynamic_partitions(documents.name or ""))


def capacity_warning(registered: int, supported: int) -> str | None:
    """What to say of so many partitions; None while there is room."""
    if registered < WARN_AT * supported:
        return None
    state = "more than" if registered > supported else f"{registered / supported:.0%} of"
    return (
        f"{registered:,} documents have a partition, {state} the {supported:,} that are supported: the UI, backfills "
        'and sensors slow down beyond. See "Beyond 100,000 documents" in docs/operating.md'
    )


def partitions_of_run(tags: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """The partitions that a run's tags tell.

    Args:
        tags: the run's.
        names: all partitions in order. Of a range whose ends are not among them any more, only the ends are told.
    """
    if PARTITION_NAME_TAG in tags:
        return [tags[PARTITION_NAME_TAG]]
    if ASSET_PARTITION_RANGE_START_TAG not in tags:
        return []
    first, last = tags[ASSET_PARTITION_RANGE_START_TAG], tags[ASSET_PARTITION_RANGE_END_TAG]
    if first not in names or last not in names:
        return [first, last]
    return list(names[names.index(first) : names.index(last) + 1])


def partitions_in_flight(instance: dg.DagsterInstance) -> set[str]:
    """The partitions of runs that wait or are under way."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=NOT_ENDED))
    if not runs:
        return set()
    names = instance.get_dynamic_partitions(documents.name or "")
    return {name for run in runs for name in partitions_of_run(run.tags, names)}
