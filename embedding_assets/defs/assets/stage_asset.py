"""An asset that does one stage's work on each document's images; made by `make_stage_asset`.

    upstream, begin --> plan --(one step for several batches)--> embed --> finish --(done)--> the asset
                         |  what is to do, from the database               ^   |
                         +--- the plan ------------------------------------+   +--(undone)--> report

Each op's name ends with the stage's (`plan_slig`). `begin` and `report` let the documents that are done go on
where others of the run are not: see `defs.partial`. `finish` trusts neither the plan nor what the mapped steps
handed over: it counts in the database. Re-executing a killed run from failure drops the mapped steps that had not
started, and the collecting op then simply gets fewer items (dagster #20925, #30077, #30248, #30972): `finish` then
does the rest itself, so that a run retry, which Dagster makes from failure where nobody says otherwise, recovers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import dagster as dg
from pydantic import Field

from embedding_assets.defs.outcomes import INFRASTRUCTURE_RETRY, coverage_metadata, translated_errors
from embedding_assets.defs.partial import (
    DONE,
    UNDONE,
    begin_op,
    check_result,
    done_check,
    log_materialization,
)
from embedding_assets.defs.partition_metadata import add_partition_metadata
from embedding_assets.defs.partitions import documents
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.errors import DocumentError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.planning import Step, batches_per_step, plan_steps
from embedding_assets.pipeline.reembedding import forget_stage
from embedding_assets.pipeline.report import StageReport
from embedding_assets.pipeline.stage_runner import AnyRunner
from embedding_assets.pipeline.verification import DocumentOutcome, verify_documents
from embedding_assets.store.document_stages import record_done
from embedding_assets.store.documents import get_document


class StageConfig(dg.Config):
    """How a stage works on the images of a run. What is left out is taken from the settings."""

    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Images worked on and committed together (default: the setting).",
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
    force: bool = Field(
        default=False,
        description="Do again what is done: the documents' vectors of this stage are dropped first. A re-execution "
        "of the run goes on where it stopped.",
    )


OpenRunner = Callable[[PipelineResource, int | None, int | None], AnyRunner]
"""Makes a stage's runner for a batch size and a number of retries; None takes the setting."""


@dataclass(frozen=True)
class StageAsset:
    """What tells one stage's asset from another's.

    Attributes:
        name: the asset's.
        stage: the stage's name, which its ops carry.
        verb: what the mapped op does, for its name.
        upstream: the asset that it needs.
        open_runner: makes the runner.
        description: for the UI.
        kinds: for the UI.
        metadata: for the UI: the table that it fills.
    """

    name: str
    stage: str
    verb: str
    upstream: str
    open_runner: OpenRunner
    description: str
    kinds: Sequence[str]
    metadata: Mapping[str, Any]


def make_stage_asset(
    what: StageAsset, documents_per_run: int, code_version: str, owners: Sequence[str] = ()
) -> dg.AssetsDefinition:
    """The asset.

    Args:
        what: the stage.
        documents_per_run: documents in a run of a backfill.
        code_version: see `pipeline.versions`.
        owners: for the UI.
    """
    key, upstream_key = dg.AssetKey(what.name), dg.AssetKey(what.upstream)
    plan_name, work_name, finish_name, report_name = (
        f"{verb}_{what.stage}" for verb in ("plan", what.verb, "finish", "report")
    )
    begin = begin_op(what.stage)
    check = done_check(key)

    @dg.config_mapping
    def same_for_all_ops(val: StageConfig) -> dict[str, Any]:
        config = {"config": val.model_dump(exclude_none=True)}
        return dict.fromkeys((plan_name, work_name, finish_name, report_name), config)

    @dg.op(
        name=plan_name,
        ins={"upstream": dg.In(dg.Nothing)},
        out={"steps": dg.DynamicOut(dict), "plan": dg.Out(dict)},
        retry_policy=INFRASTRUCTURE_RETRY,
    )
    def plan(context: dg.AssetExecutionContext, config: StageConfig, pipeline: PipelineResource):  # type: ignore[no-untyped-def]
        """Reads from the database which images are to do, and cuts them into steps of full batches."""
        with translated_errors(context):
            settings = pipeline.settings()
            runner = what.open_runner(pipeline, config.batch_size, config.max_retries)
            runner.preflight()
            pending: list[tuple[DocumentKey, list[UUID]]] = []
            unknown: list[DocumentKey] = []
            for text in context.partition_keys:
                document_key = DocumentKey.parse(text)
                with runner.database.transaction() as connection:
                    document = get_document(connection, document_key)
                if document is None or document.status == "registered":
                    unknown.append(document_key)
                    context.log.error(
                        f"document {document_key} is not ingested yet: materialize its document_images first"
                    )
                    continue
                # A re-execution must not throw away what the run that it repeats has done.
                if config.force and context.run.parent_run_id is None:
                    forgotten = forget_stage(runner.database, document_key, runner.stage)
                    context.log.info(f"{document_key}: {forgotten} images are to be done again")
                pending.append((document_key, runner.pending(document_key)))
            if unknown and not pending:
                raise DocumentError(
                    f"{', '.join(map(str, unknown[:20]))}: not ingested yet",
                    hint="materialize document_images first",
                )
            batches = batches_per_step(settings.batches_per_step, runner.batch_size, runner.speed())
            steps = plan_steps(pending, runner.batch_size, batches)
        context.log.info(
            f"{sum(len(ids) for _, ids in pending)} images of {len(pending)} documents to do "
            f"in {len(steps)} steps of up to {batches} batches of {runner.batch_size}; {runner.describe()}"
        )
        for number, step in enumerate(steps):
            value = {"workspace_id": step.workspace_id, "image_ids": [str(i) for i in step.image_ids]}
            yield dg.DynamicOutput(value, mapping_key=f"step_{number:05d}", output_name="steps")
        yield dg.Output(
            {"steps": len(steps), "planned": {str(k): len(ids) for k, ids in pending}}, output_name="plan"
        )

    @dg.op(name=work_name, retry_policy=INFRASTRUCTURE_RETRY)
    def work(
        context: dg.AssetExecutionContext,
        config: StageConfig,
        pipeline: PipelineResource,
        step: dict[str, Any],
    ) -> dict[str, Any]:
        """Works on the images of one step; each batch is committed by itself."""
        with translated_errors(context):
            runner = what.open_runner(pipeline, config.batch_size, config.max_retries)
            planned = Step(step["workspace_id"], tuple(UUID(i) for i in step["image_ids"]))
            report = runner.run(planned.workspace_id, planned.image_ids, run_id=context.run.run_id)
        context.log.info(
            f"{report.embedded} images done ({report.copied} copied), {report.skipped} skipped, "
            f"{len(report.failed)} failed, {report.images_per_second:.1f} images/s; decode {report.decode_s:.2f} s, "
            f"encode {report.encode_s:.2f} s, write {report.write_s:.2f} s, wait {report.wait_s:.2f} s"
        )
        return report.summary()

    @dg.op(name=finish_name, out={"done": DONE, "undone": UNDONE}, retry_policy=INFRASTRUCTURE_RETRY)
    def finish(
        context: dg.AssetExecutionContext,
        config: StageConfig,
        pipeline: PipelineResource,
        plan: dict[str, Any],
        summaries: list[dict[str, Any]],
    ) -> Iterator[Any]:
        """Counts in the database, and materializes the documents that are complete."""
        with translated_errors(context):
            minimum = _minimum(config, pipeline)
            runner = what.open_runner(pipeline, config.batch_size, config.max_retries)
            keys = [DocumentKey.parse(text) for text in context.partition_keys]
            if len(summaries) < plan["steps"]:
                context.log.warning(
                    f"{plan['steps'] - len(summaries)} of {plan['steps']} planned steps did not run in this "
                    "execution, as when a killed run is re-executed from failure: their images are done here"
                )
                summaries = [*summaries, *_rest(runner, keys, context.run.run_id)]
            outcomes = verify_documents(runner.database, keys, runner.flag, runner.stage, minimum)
            total = StageReport.total(summaries)
            busy = total["elapsed_s"] - total["wait_s"]
            speed = total["embedded"] / busy if busy > 0 else 0.0
            if total["encoded"] >= runner.batch_size and speed > 0:
                runner.remember_speed(speed)
            complete = [outcome.key for outcome in outcomes if outcome.complete]
            with runner.database.transaction() as connection:
                record_done(connection, complete, runner.stage, code_version)
        shared: dict[str, dg.MetadataValue] = {
            "images_per_second": dg.MetadataValue.float(round(speed, 3)),
            "decode_seconds": dg.MetadataValue.float(round(total["decode_s"], 3)),
            "encode_seconds": dg.MetadataValue.float(round(total["encode_s"], 3)),
            "write_seconds": dg.MetadataValue.float(round(total["write_s"], 3)),
            "wait_seconds": dg.MetadataValue.float(round(total["wait_s"], 3)),
            "retries": dg.MetadataValue.int(int(total["retries"])),
            "tokens": dg.MetadataValue.int(int(total["tokens"])),
            "model": dg.MetadataValue.text(runner.describe()),
        }
        incomplete = [outcome for outcome in outcomes if not outcome.complete]
        if incomplete and not complete:
            raise _not_complete(context, incomplete, minimum)
        for outcome in outcomes:
            metadata = {**coverage_metadata(outcome.coverage, outcome.failures), **shared}
            if not incomplete:
                add_partition_metadata(context, str(outcome.key), metadata)
            elif outcome.complete:
                log_materialization(
                    context,
                    key,
                    str(outcome.key),
                    metadata,
                    code_version=code_version,
                    upstream=upstream_key,
                )
        if not incomplete:
            yield dg.Output(None, output_name="done")
        yield dg.Output([str(outcome.key) for outcome in incomplete], output_name="undone")

    @dg.op(name=report_name, out={"check": dg.Out(is_required=False)}, retry_policy=INFRASTRUCTURE_RETRY)
    def report(
        context: dg.AssetExecutionContext, config: StageConfig, pipeline: PipelineResource, undone: list[str]
    ) -> Iterator[Any]:
        """Fails where a document is not complete, and says which. Counts again: it may be re-executed much later."""
        incomplete: list[DocumentOutcome] = []
        if undone:
            incomplete = still_incomplete(context, config, pipeline, undone)
        yield check_result(key, [str(o.key) for o in incomplete], len(context.partition_keys))
        if incomplete:
            raise _not_complete(context, incomplete, _minimum(config, pipeline))

    def still_incomplete(
        context: dg.AssetExecutionContext, config: StageConfig, pipeline: PipelineResource, undone: list[str]
    ) -> list[DocumentOutcome]:
        """The documents that are still not complete; those that are by now are materialized."""
        with translated_errors(context):
            minimum = _minimum(config, pipeline)
            runner = what.open_runner(pipeline, config.batch_size, config.max_retries)
            keys = [DocumentKey.parse(text) for text in undone]
            outcomes = verify_documents(runner.database, keys, runner.flag, runner.stage, minimum)
            complete = [outcome for outcome in outcomes if outcome.complete]
            with runner.database.transaction() as connection:
                record_done(connection, [o.key for o in complete], runner.stage, code_version)
        for outcome in complete:
            metadata = coverage_metadata(outcome.coverage, outcome.failures)
            log_materialization(
                context, key, str(outcome.key), metadata, code_version=code_version, upstream=upstream_key
            )
        return [outcome for outcome in outcomes if not outcome.complete]

    @dg.graph_asset(
        name=what.name,
        description=what.description,
        ins={"upstream": dg.AssetIn(key=upstream_key, dagster_type=dg.Nothing)},
        config=same_for_all_ops,
        partitions_def=documents,
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=documents_per_run),
        group_name="embeddings",
        kinds=set(what.kinds),
        owners=list(owners),
        metadata=dict(what.metadata),
        code_version=code_version,
        check_specs=[check],
    )
    def stage_asset(upstream):  # type: ignore[no-untyped-def]
        steps, planned = plan([upstream, begin()])
        done, undone = finish(planned, steps.map(work).collect())
        return {"result": done, check.get_python_identifier(): report(undone)}

    return stage_asset


def _minimum(config: StageConfig, pipeline: PipelineResource) -> float:
    return pipeline.settings().min_coverage if config.min_coverage is None else config.min_coverage


def _rest(runner: AnyRunner, keys: Sequence[DocumentKey], run_id: str) -> list[dict[str, Any]]:
    """Does what is left of the documents; returns the summaries."""
    return [
        runner.run(key.workspace_id, ids, run_id=run_id).summary()
        for key in keys
        if (ids := runner.pending(key, run_id))
    ]


def _not_complete(
    context: dg.AssetExecutionContext,
    incomplete: Sequence[DocumentOutcome],
    minimum: float,
) -> dg.Failure:
    total = len(context.partition_keys)
    lines = [
        f"{len(incomplete)} of {total} documents are not complete. What was done is saved; "
        "materialize them again to do what is missing."
    ]
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
