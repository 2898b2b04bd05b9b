"""Sensor `retry_failed_images`: what failed for a passing reason is tried again when its time has come.

Three things can try again, and they never multiply: the batch core (2, 4, 8 s, within a run), the op (what fails
every image alike, within a run), and this sensor (minutes to hours later, in a run of its own). Permanent failures
are left alone until somebody asks or the file changes. After a fatal error at an asset nothing is requested there
until the asset has been materialized again, which takes a person.
"""

from collections import defaultdict
from collections.abc import Sequence

import dagster as dg

from embedding_assets.defs.jobs import process_document
from embedding_assets.defs.outcomes import fatal_tag
from embedding_assets.defs.requests import document_runs, run_request
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.pipeline.asset_stages import assets_in_use, stages_in_use
from embedding_assets.pipeline.ingestion import INGEST
from embedding_assets.pipeline.retry import REQUESTED
from embedding_assets.settings import Settings
from embedding_assets.store.due import DueDocument, take_due
from embedding_assets.store.stages import VISION

NAME = "retry_failed_images"
INTERVAL_S = 60


@dg.sensor(
    name=NAME,
    job=process_document,
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests images (and documents) again that failed for a passing reason: after 5, 15, 35 minutes "
    "and so on, at most `retry_max_attempts` attempts in all. Permanent and fatal failures are left to a person.",
)
def retry_failed_images(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SensorResult:
    """Requests runs for failures whose time has come."""
    settings = pipeline.settings()
    halted = {asset for asset in assets_in_use(settings) if _is_stopped(context.instance, asset)}
    chains = _assets_by_stage(settings)
    stopped = [stage for stage, chain in chains.items() if chain[0] in halted]
    assets = {stage: [asset for asset in chain if asset not in halted] for stage, chain in chains.items()}
    with pipeline.database().transaction() as connection:
        due = take_due(
            connection,
            [stage for stage in assets if stage not in stopped],
            most=settings.retry_max_attempts,
            limit=settings.documents_per_tick,
            leave_for=REQUESTED,
        )
    by_stage: dict[str, list[DueDocument]] = defaultdict(list)
    for item in due:
        by_stage[item.stage].append(item)
    requests: list[dg.RunRequest] = []
    for stage, items in by_stage.items():
        runs = document_runs(
            context.instance,
            {item.key: f"retry:{stage}:{item.attempts}:{item.taken_at.isoformat()}" for item in items},
            settings.documents_per_run,
        )
        requests += [
            run_request(run, process_document.name, assets[stage], requested_by=NAME) for run in runs
        ]
        failures = sum(item.failures for item in items)
        context.log.info(f"{stage}: {failures} failures of {len(items)} documents in {len(runs)} runs")
    for stage in stopped:
        context.log.info(
            f"{stage}: stopped by a fatal error; nothing is tried again before {chains[stage][0]} is materialized"
        )
    reason = "no failure is due"
    if stopped:
        reason += f"; left alone after a fatal error: {', '.join(stopped)}"
    return dg.SensorResult(run_requests=requests, skip_reason=None if requests else reason)


def _assets_by_stage(settings: Settings) -> dict[str, Sequence[str]]:
    """The assets to materialize for a failure of each stage: its own, and those that were waiting for it."""
    stages = {stage.name: [stage.asset] for stage in stages_in_use(settings)}
    if VISION in stages:
        stages[VISION].append("understanding_embeddings")
    return {INGEST: assets_in_use(settings), **stages}


def _is_stopped(instance: dg.DagsterInstance, asset: str) -> bool:
    """Whether the asset ended with a fatal error, and has not been materialized since."""
    records = instance.get_run_records(filters=dg.RunsFilter(tags={fatal_tag(asset): "true"}), limit=1)
    if not records:
        return False
    latest = instance.get_latest_materialization_event(dg.AssetKey(asset))
    started = records[0].start_time or records[0].create_timestamp.timestamp()
    return latest is None or latest.timestamp < started
