"""Asset `document_images`: each document's images, found, checked, stored and described in rows.

read_documents --(done)--> the asset
       |
       +-------(undone)--> report_unread: fails where there are any (see `defs.partial`)
"""

from collections.abc import Sequence
from typing import Any

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
from embedding_assets.defs.partial import DONE, UNDONE, check_result, done_check, log_materialization
from embedding_assets.defs.partition_metadata import add_partition_metadata
from embedding_assets.defs.partitions import documents
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.errors import DocumentError, PermanentError
from embedding_assets.keys import DocumentKey, InvalidDocumentKey
from embedding_assets.pipeline.ingestion import INGEST, IngestReport
from embedding_assets.store.document_stages import record_done
from embedding_assets.store.documents import get_document
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


READ, REPORT = "read_documents", "report_unread"


def make_document_images(
    documents_per_run: int, code_version: str, owners: Sequence[str] = ()
) -> dg.AssetsDefinition:
    """The asset.

    Args:
        documents_per_run: documents in a run of a backfill.
        code_version: see `pipeline.versions`.
        owners: for the UI.
    """

    check = done_check(KEY)

    @dg.config_mapping
    def of_reading(val: IngestConfig) -> dict[str, Any]:
        return {READ: {"config": val.model_dump()}}

    @dg.op(name=READ, out={"done": DONE, "undone": UNDONE}, retry_policy=INFRASTRUCTURE_RETRY)
    def read(context: dg.AssetExecutionContext, config: IngestConfig, pipeline: PipelineResource):  # type: ignore[no-untyped-def]
        """Brings the image rows of each document up to its content; a document that can't be read stops no other."""
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
                    record_done(connection, [key], INGEST, code_version)
                done.append((key, _metadata(report, [f for f in failures if f.stage == INGEST])))
                context.log.info(f"{key}: {report}")
        if failed and not done:
            raise _failure(failed, len(failed))
        for key, metadata in done:
            if failed:
                log_materialization(context, KEY, str(key), metadata, code_version=code_version)
            else:
                add_partition_metadata(context, str(key), metadata)
        if not failed:
            yield dg.Output(None, output_name="done")
        yield dg.Output([text for text, _ in failed], output_name="undone")

    @dg.op(name=REPORT, out={"check": dg.Out(is_required=False)}, retry_policy=INFRASTRUCTURE_RETRY)
    def report(context: dg.AssetExecutionContext, pipeline: PipelineResource, undone: list[str]):  # type: ignore[no-untyped-def]
        """Fails where a document could not be read, and says which."""
        with translated_errors(context):
            unread = _still_unread(context, pipeline, undone, code_version)
        yield check_result(KEY, [text for text, _ in unread], len(context.partition_keys))
        if unread:
            raise _failure(unread, len(context.partition_keys))

    @dg.graph_asset(
        name="document_images",
        description="The images of the document: found in its source, fully decoded once, stored by content, "
        "and described in the table `document_images`. Broken ones are listed, not lost.",
        config=of_reading,
        partitions_def=documents,
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=documents_per_run),
        group_name="ingest",
        kinds={"python", "postgres"},
        owners=list(owners),
        metadata=table_metadata(DocumentImage),
        code_version=code_version,
        check_specs=[check],
    )
    def document_images():  # type: ignore[no-untyped-def]
        done, undone = read()
        return {"result": done, check.get_python_identifier(): report(undone)}

    return document_images


def _still_unread(
    context: dg.AssetExecutionContext, pipeline: PipelineResource, undone: list[str], code_version: str
) -> list[tuple[str, PermanentError]]:
    """The documents that are still not read: this step alone may be re-executed long after they failed."""
    unread: list[tuple[str, PermanentError]] = []
    database = pipeline.database()
    for text in undone:
        try:
            key = DocumentKey.parse(text)
        except InvalidDocumentKey as error:
            unread.append((text, error))
            continue
        with database.transaction() as connection:
            document = get_document(connection, key)
            failures = open_failures(connection, key.workspace_id, key.document_id)
        if document is not None and document.status == "ingested":
            log_materialization(context, KEY, text, {}, code_version=code_version)
            continue
        reasons = [f.message for f in failures if f.stage == INGEST and f.image_id is None]
        unread.append((text, DocumentError(reasons[0] if reasons else "it is not in the landing folder")))
    return unread


def _failure(failed: list[tuple[str, PermanentError]], total: int) -> dg.Failure:
    if len(failed) == total == 1:
        return as_failure(failed[0][1])
    lines = [f"{len(failed)} of {total} documents could not be read; the others are done."]
    lines += [f"{text}: {error.message}" for text, error in failed[:20]]
    return as_failure(DocumentError("\n".join(lines)))
