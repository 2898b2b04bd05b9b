"""Asset `document_images`: each document's images, found, checked, stored and described in rows."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from embedding_assets.defs.assets.table_schema import table_metadata
from embedding_assets.defs.outcomes import (
    INFRASTRUCTURE_RETRY,
    as_failure,
    count_failed,
    failure_table,
    translated_errors,
)
from embedding_assets.defs.partition_metadata import add_partition_metadata
from embedding_assets.defs.partitions import documents
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.errors import DocumentError, FatalError, PermanentError
from embedding_assets.keys import DocumentKey, InvalidDocumentKey
from embedding_assets.pipeline.ingestion import INGEST, IngestReport
from embedding_assets.store.failures import OpenFailure, open_failures
from embedding_assets.store.models import DocumentImage

KEY = dg.AssetKey("document_images")


class IngestConfig(dg.Config):
    """How the documents of a run are ingested."""

    force: bool = Field(
        default=False, description="Read documents again even where their content has not changed."
    )


def _metadata(report: IngestReport, failed: list[OpenFailure]) -> dict[str, dg.MetadataValue]:
    return {
        "images": dg.MetadataValue.int(report.images),
        "ready": dg.MetadataValue.int(report.ready),
        "skipped": dg.MetadataValue.int(report.skipped),
        "rejected": dg.MetadataValue.int(report.rejected),
        "pending": dg.MetadataValue.int(report.pending),
        "new": dg.MetadataValue.int(report.inserted),
        "changed": dg.MetadataValue.int(report.updated),
        "removed": dg.MetadataValue.int(report.removed),
        "unchanged": dg.MetadataValue.bool(report.unchanged),
        "pages": dg.MetadataValue.int(report.page_count or 0),
        "seconds": dg.MetadataValue.float(round(report.elapsed_s, 3)),
        "failed": dg.MetadataValue.int(count_failed(failed)),
        "failed_images": dg.MetadataValue.md(failure_table(failed)),
    }


def make_document_images(documents_per_run: int, owners: Sequence[str] = ()) -> dg.AssetsDefinition:
    """The asset, with as many documents in a run of a backfill as the setting says."""

    @dg.asset(
        key=KEY,
        description="The images of the document: found in its source, fully decoded once, stored by content, "
        "and described in the table `document_images`. Broken ones are listed, not lost.",
        partitions_def=documents,
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=documents_per_run),
        retry_policy=INFRASTRUCTURE_RETRY,
        group_name="ingest",
        kinds={"python", "postgres"},
        owners=list(owners),
        metadata=table_metadata(DocumentImage),
    )
    def document_images(
        context: dg.AssetExecutionContext, config: IngestConfig, pipeline: PipelineResource
    ) -> None:
        done: list[tuple[DocumentKey, dict[str, dg.MetadataValue]]] = []
        failed: list[tuple[str, PermanentError]] = []
        with translated_errors(context):
            ingestor = pipeline.ingestor()
            for text in context.partition_keys:
                try:
                    key = DocumentKey.parse(text)
                    report = ingestor.ingest(key, force=config.force, run_id=context.run.run_id)
                except (DocumentError, InvalidDocumentKey) as error:
                    failed.append((text, error))
                    context.log.error(f"{text}: {error}")
                    continue
                with ingestor.database.transaction() as connection:
                    failures = open_failures(connection, key.workspace_id, key.document_id)
                done.append((key, _metadata(report, [f for f in failures if f.stage == INGEST])))
                context.log.info(f"{key}: {report}")
        for key, metadata in done:
            if failed:
                # The step is about to fail, for the sake of the others; this one is done: materialize it.
                context.log_event(
                    dg.AssetMaterialization(asset_key=KEY, partition=str(key), metadata=metadata)
                )
            else:
                add_partition_metadata(context, str(key), metadata)
        if failed:
            raise _failure(failed, len(done) + len(failed))

    return document_images


def _failure(failed: list[tuple[str, PermanentError]], total: int) -> dg.Failure:
    if len(failed) == total == 1:
        return as_failure(failed[0][1])
    lines = [f"{len(failed)} of {total} documents could not be read; the others are done."]
    lines += [f"{text}: {error.message}" for text, error in failed[:20]]
    return as_failure(FatalError("\n".join(lines)))
