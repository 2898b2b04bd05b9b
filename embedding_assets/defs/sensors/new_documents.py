"""Sensor `new_documents`: what has landed goes the whole way, in chunked runs, once for each content."""

import dagster as dg

from embedding_assets.defs.jobs import process_document
from embedding_assets.defs.requests import (
    DocumentRun,
    document_runs,
    existing_run_keys,
    run_request,
)
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import assets_in_use
from embedding_assets.store.database import Database
from embedding_assets.store.landed import confirm_requests, unconfirmed_requests

NAME = "new_documents"
INTERVAL_S = 30


@dg.sensor(
    name=NAME,
    job=process_document,
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches the landing root. New and changed documents become partitions and runs of the whole chain, "
    "once they have looked the same for a while; unchanged ones are not read.",
)
def new_documents(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SensorResult:
    """Requests runs for what has changed in the landing root."""
    settings = pipeline.settings()
    watch = pipeline.landing_watch()
    lost = _lost_requests(context.instance, watch.database)
    found = watch.look()
    contents = {item.key: f"{item.content_hash}:{item.seen_at:.3f}" for item in found.new}
    runs = document_runs(context.instance, contents, settings.documents_per_run)
    run_of = {key: run.run_key for run in runs for key in run.keys}
    watch.requested(found.new, run_of.__getitem__)
    context.log.info(f"{found}; {len(runs)} runs")
    requests = [
        run_request(run, process_document.name, assets_in_use(settings), requested_by=NAME)
        for run in (*lost, *runs)
    ]
    return dg.SensorResult(
        run_requests=requests, skip_reason=None if requests else str(found), cursor=str(found.listed)
    )


def _lost_requests(instance: dg.DagsterInstance, database: Database) -> list[DocumentRun]:
    """Requests of earlier ticks whose run does not exist: the daemon died between the two. Made again, same key."""
    with database.transaction() as connection:
        unconfirmed = unconfirmed_requests(connection)
        if not unconfirmed:
            return []
        existing = existing_run_keys(instance, list(unconfirmed))
        confirm_requests(connection, existing)
    lost: list[DocumentRun] = []
    order = {name: n for n, name in enumerate(instance.get_dynamic_partitions("documents"))}
    for run_key in sorted(unconfirmed.keys() - existing):
        keys: list[DocumentKey] = sorted(
            (key for key, _ in unconfirmed[run_key] if str(key) in order), key=lambda key: order[str(key)]
        )
        if keys:
            lost.append(DocumentRun(tuple(keys), run_key))
    return lost
