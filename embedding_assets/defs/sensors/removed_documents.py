"""Sensor `removed_documents`: what has vanished from the landing root loses rows, vectors and partition.

Off until it is switched on: a system that deletes by itself is something to decide on. It refuses where too much is
gone at once (see `pipeline.removal`), and says so.
"""

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

from embedding_assets.defs.partitions import documents, partitions_in_flight
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.pipeline.notify import RemovalRefused, notify_all, open_notifiers
from embedding_assets.pipeline.removal import find_vanished, remove

NAME = "removed_documents"
INTERVAL_S = 300


@dg.sensor(
    name=NAME,
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Removes documents that have vanished from the landing root: rows, vectors, failures and partition. "
    "Removes nothing where the listing is empty or has shrunk too much. Switch it on if the landing root is what "
    "decides which documents there are.",
)
def removed_documents(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SkipReason:
    """Removes documents that have vanished."""
    settings = pipeline.settings()
    database = pipeline.database()
    vanished = find_vanished(
        database,
        settings.landing,
        share=settings.removal_limit_share,
        count=settings.removal_limit_count,
        settle_s=settings.landing_settle_s,
    )
    told = "\n".join(vanished.refusals)
    if told and told != context.cursor:
        context.log.warning(told)
        notify_all(open_notifiers(settings), RemovalRefused(told))
    context.update_cursor(told)
    if vanished.removable and _backfills_under_way(context.instance):
        return dg.SkipReason("a backfill is under way: nothing is removed before it has ended")
    busy = partitions_in_flight(context.instance)
    free = [key for key in vanished.removable if str(key) not in busy]
    # The partition first: should this process die in between, the rows are still there for the next tick.
    for key in free:
        context.instance.delete_dynamic_partition(documents.name or "", str(key))
    removed = remove(database, free)
    parts = [
        f"{removed} documents removed",
        f"{len(vanished.removable) - len(free)} in use by runs",
        f"{vanished.waiting} gone since a moment ago",
        *vanished.refusals,
    ]
    if free:
        context.log.info(f"removed: {', '.join(map(str, free[:100]))}")
    return dg.SkipReason("; ".join(parts))


def _backfills_under_way(instance: dg.DagsterInstance) -> bool:
    filters = BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING])
    return bool(instance.get_backfills(filters=filters, limit=1))
