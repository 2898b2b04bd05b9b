"""Backfills asked for by code: written into the instance, carried out by the daemon.

Dagster 1.13 has no public function for this besides the GraphQL mutation of the UI, which needs a running
webserver; `instance.add_backfill` is what that mutation calls. The daemon cuts the backfill into runs as one from
the UI: ranges of partitions, at most `documents_per_run` of them each, gaps left out.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.utils import make_new_backfill_id

from embedding_assets.defs.partitions import documents, register_partitions
from embedding_assets.defs.run_tags import RETRY_TAGS
from embedding_assets.keys import DocumentKey

HEARTBEAT_S = 120.0
"""A daemon that gave no sign of life for so long is taken for gone; it gives one every 30 s."""


def submit_backfill(
    instance: dg.DagsterInstance,
    targets: Mapping[str, Sequence[DocumentKey]],
    *,
    title: str,
    tags: Mapping[str, str] | None = None,
    run_config: Mapping[str, Any] | None = None,
) -> str:
    """Asks the daemon for a backfill; registers partitions that are missing.

    Args:
        targets: for each asset, the documents to materialize.
        title: shown in the UI.
        run_config: of every run; may configure only ops of assets that each run holds.

    Returns:
        The backfill's id.
    """
    register_partitions(instance, sorted({key for keys in targets.values() for key in keys}))
    partitions = {
        dg.AssetKey(asset): documents.empty_subset().with_partition_keys(map(str, keys))
        for asset, keys in targets.items()
    }
    subset = AssetGraphSubset(partitions, set())  # type: ignore[call-arg] # hidden by a decorator of Dagster's
    backfill_id = make_new_backfill_id()
    instance.add_backfill(
        PartitionBackfill.from_asset_graph_subset(
            backfill_id=backfill_id,
            backfill_timestamp=time.time(),
            tags={**RETRY_TAGS, **(tags or {})},
            dynamic_partitions_store=instance,
            asset_graph_subset=subset,
            title=title,
            description=None,
            run_config=run_config,
        )
    )
    return backfill_id


def daemon_is_running(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon that carries out backfills has given a sign of life lately."""
    heartbeat = instance.get_daemon_heartbeats().get("BACKFILL")
    return heartbeat is not None and time.time() - heartbeat.timestamp < HEARTBEAT_S
