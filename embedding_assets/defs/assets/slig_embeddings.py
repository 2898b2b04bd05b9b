"""Asset `slig_embeddings`: the visual vectors of each document's images.

    document_images --> plan_slig --(one step for several batches)--> embed_slig --> finish_slig
                          |  what lacks a vector, from the database       ^               |
                          +--- the plan ----------------------------------|---------------+

`finish_slig` trusts neither the plan nor what the mapped steps handed over: it counts in the database.
Re-executing a killed run from failure drops the mapped steps that had not started, and the collecting op
then simply gets fewer items and succeeds (dagster #20925, #30077, #30248, #30972).
"""

from typing import Any
from uuid import UUID

import dagster as dg
from pydantic import Field

from embedding_assets.defs.outcomes import INFRASTRUCTURE_RETRY, coverage_metadata, translated_errors
from embedding_assets.defs.partitions import documents
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.errors import DocumentError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.planning import Step, batches_per_step, plan_steps
from embedding_assets.pipeline.report import StageReport
from embedding_assets.pipeline.slig import FLAG, STAGE
from embedding_assets.pipeline.verification import DocumentOutcome, verify_documents
from embedding_assets.store.documents import get_document

KEY = dg.AssetKey("slig_embeddings")


class SligConfig(dg.Config):
    """How the images of a run are embedded. What is left out is taken from the settings."""

    batch_size: int | None = Field(
        default=None, ge=1, le=10_000, description="Images encoded and committed together (setting: 20)."
    )
    max_retries: int | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Tries of an image after its first, 2, 4, 8 s apart (setting: 3).",
    )
    min_coverage: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Embedded / (images - skipped) that a document needs to be materialized (setting: 0.95).",
    )


@dg.config_mapping
def _same_for_all_ops(val: SligConfig) -> dict[str, Any]:
    config = {"config": val.model_dump(exclude_none=True)}
    return {"plan_slig": config, "embed_slig": config, "finish_slig": config}


@dg.op(
    ins={"document_images": dg.In(dg.Nothing)},
    out={"steps": dg.DynamicOut(dict), "plan": dg.Out(dict)},
    retry_policy=INFRASTRUCTURE_RETRY,
)
def plan_slig(context: dg.AssetExecutionContext, config: SligConfig, pipeline: PipelineResource):  # type: ignore[no-untyped-def]
    """Reads from the database which images lack a vector, and cuts them into steps of full batches."""
    with translated_errors(context):
        settings = pipeline.settings()
        embedder = pipeline.slig_embedder(config.batch_size, config.max_retries)
        collection = embedder.open_collection()
        pending: list[tuple[DocumentKey, list[UUID]]] = []
        unknown: list[DocumentKey] = []
        for text in context.partition_keys:
            key = DocumentKey.parse(text)
            with embedder.database.transaction() as connection:
                document = get_document(connection, key)
            if document is None or document.status == "registered":
                unknown.append(key)
                context.log.error(
                    f"document {key} is not ingested yet: materialize its document_images first"
                )
            else:
                pending.append((key, embedder.pending(key)))
        if unknown and not pending:
            raise DocumentError(
                f"{', '.join(map(str, unknown[:20]))}: not ingested yet",
                hint="materialize document_images first",
            )
        batches = batches_per_step(
            settings.batches_per_step, embedder.batch_size, collection.images_per_second
        )
        steps = plan_steps(pending, embedder.batch_size, batches)
    context.log.info(
        f"{sum(len(ids) for _, ids in pending)} images of {len(pending)} documents to embed "
        f"in {len(steps)} steps of up to {batches} batches of {embedder.batch_size}; {embedder.encoder.space}"
    )
    for number, step in enumerate(steps):
        value = {"workspace_id": step.workspace_id, "image_ids": [str(i) for i in step.image_ids]}
        yield dg.DynamicOutput(value, mapping_key=f"step_{number:05d}", output_name="steps")
    yield dg.Output(
        {"steps": len(steps), "planned": {str(key): len(ids) for key, ids in pending}}, output_name="plan"
    )


@dg.op(retry_policy=INFRASTRUCTURE_RETRY)
def embed_slig(
    context: dg.AssetExecutionContext, config: SligConfig, pipeline: PipelineResource, step: dict[str, Any]
) -> dict[str, Any]:
    """Embeds the images of one step; each batch is committed by itself."""
    with translated_errors(context):
        embedder = pipeline.slig_embedder(config.batch_size, config.max_retries)
        planned = Step(step["workspace_id"], tuple(UUID(i) for i in step["image_ids"]))
        report = embedder.embed(planned.workspace_id, planned.image_ids, run_id=context.run.run_id)
    context.log.info(
        f"{report.embedded} images embedded ({report.copied} copied), {len(report.failed)} failed, "
        f"{report.images_per_second:.1f} images/s; decode {report.decode_s:.2f} s, "
        f"encode {report.encode_s:.2f} s, write {report.write_s:.2f} s, wait {report.wait_s:.2f} s"
    )
    return report.summary()


@dg.op(out=dg.Out(dg.Nothing), retry_policy=INFRASTRUCTURE_RETRY)
def finish_slig(
    context: dg.AssetExecutionContext,
    config: SligConfig,
    pipeline: PipelineResource,
    plan: dict[str, Any],
    summaries: list[dict[str, Any]],
) -> None:
    """Counts in the database, and materializes the documents that are complete."""
    with translated_errors(context):
        settings = pipeline.settings()
        minimum = settings.min_coverage if config.min_coverage is None else config.min_coverage
        embedder = pipeline.slig_embedder(config.batch_size, config.max_retries)
        keys = [DocumentKey.parse(text) for text in context.partition_keys]
        outcomes = verify_documents(embedder.database, keys, FLAG, STAGE, minimum)
        total = StageReport.total(summaries)
        busy = total["elapsed_s"] - total["wait_s"]
        speed = total["embedded"] / busy if busy > 0 else 0.0
        if total["encoded"] >= embedder.batch_size and speed > 0:
            embedder.remember_speed(speed)
    shared: dict[str, dg.MetadataValue] = {
        "images_per_second": dg.MetadataValue.float(round(speed, 3)),
        "decode_seconds": dg.MetadataValue.float(round(total["decode_s"], 3)),
        "encode_seconds": dg.MetadataValue.float(round(total["encode_s"], 3)),
        "write_seconds": dg.MetadataValue.float(round(total["write_s"], 3)),
        "wait_seconds": dg.MetadataValue.float(round(total["wait_s"], 3)),
        "retries": dg.MetadataValue.int(int(total["retries"])),
        "model": dg.MetadataValue.text(str(embedder.encoder.space)),
    }
    incomplete = [outcome for outcome in outcomes if not outcome.complete]
    for outcome in outcomes:
        metadata = {**coverage_metadata(outcome.coverage, outcome.failures), **shared}
        if not incomplete:
            context.add_asset_metadata(metadata, partition_key=str(outcome.key))
        elif outcome.complete:
            # The step is about to fail, for the sake of the others; this one is done, so it is materialized.
            context.log_event(
                dg.AssetMaterialization(asset_key=KEY, partition=str(outcome.key), metadata=metadata)
            )
    if incomplete:
        raise _not_complete(context, plan, len(summaries), incomplete, minimum, len(outcomes))


def _not_complete(
    context: dg.AssetExecutionContext,
    plan: dict[str, Any],
    reported: int,
    incomplete: list[DocumentOutcome],
    minimum: float,
    total: int,
) -> dg.Failure:
    lines = [
        f"{len(incomplete)} of {total} documents are not complete. What was embedded is saved; "
        "materialize them again to embed what is missing."
    ]
    if reported < plan["steps"]:
        lines.append(
            f"{plan['steps'] - reported} of {plan['steps']} planned steps did not run in this execution."
        )
    lines += [outcome.reason(minimum) for outcome in incomplete[:20]]
    metadata: dict[str, dg.MetadataValue] = {}
    if len(incomplete) == 1:
        metadata = coverage_metadata(incomplete[0].coverage, incomplete[0].failures)
    for outcome in incomplete:
        for failure in outcome.failures[:5]:
            context.log.error(
                f"{outcome.key}: {failure.path or 'document'} (page {failure.page_number}) at {failure.stage}, "
                f"{failure.error_class}, {failure.attempts} attempts: {failure.message}"
            )
    return dg.Failure(description="\n".join(lines), metadata=metadata, allow_retries=False)


def make_slig_embeddings(documents_per_run: int) -> dg.AssetsDefinition:
    """The asset, with as many documents in a run of a backfill as the setting says."""

    @dg.graph_asset(
        name=KEY.path[-1],
        description="Visual (SLIG) vectors of the document's images in the collection "
        "`image_slig_embeddings`. Materialized when every image is embedded, skipped for a stated reason or "
        "permanently rejected, and coverage is at least the minimum.",
        ins={"document_images": dg.AssetIn(dagster_type=dg.Nothing)},
        config=_same_for_all_ops,
        partitions_def=documents,
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=documents_per_run),
        group_name="embeddings",
        kinds={"python", "pytorch", "postgres"},
    )
    def slig_embeddings(document_images):  # type: ignore[no-untyped-def]
        steps, plan = plan_slig(document_images)
        return finish_slig(plan, steps.map(embed_slig).collect())

    return slig_embeddings
