"""Asset `vector_indexes`: HNSW and metadata indexes of every collection, as the settings want them.

It depends on all partitions of the embedding assets, but no automation waits for them: materialize it after a large
backfill. Until then, searches scan; new vectors go into an index that is there by themselves.
"""

from collections.abc import Sequence

import dagster as dg
import pandas as pd
from pydantic import Field

from embedding_assets.defs.outcomes import translated_errors
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.pipeline.index_report import IndexReport, index_table

MIB = 2**20


class IndexConfig(dg.Config):
    """How the indexes are brought up to date."""

    rebuild: bool = Field(
        default=False,
        description="Build valid indexes anew too, after many deletions, say. The old ones serve meanwhile.",
    )


def _number(value: float) -> dg.FloatMetadataValue:
    return dg.MetadataValue.float(round(float(value), 4))


def _metadata(reports: Sequence[IndexReport]) -> dict[str, dg.MetadataValue]:
    """Totals, and the figures of each collection, as numbers that the UI plots."""
    recalls = [report.recall.value for report in reports if report.recall]
    metadata: dict[str, dg.MetadataValue] = {
        "rows": dg.MetadataValue.int(sum(report.rows for report in reports)),
        "size_mib": _number(sum(r.vector.size_bytes + r.metadata.size_bytes for r in reports) / MIB),
        "build_seconds": _number(sum(r.vector.seconds + r.metadata.seconds for r in reports)),
        "indexes": dg.MetadataValue.md(
            pd.DataFrame(index_table(reports)).to_markdown(index=False) if reports else "no collections yet"
        ),
    }
    if recalls:
        metadata["lowest_recall_at_10"] = _number(min(recalls))
    for report in reports:
        name = report.table
        metadata[f"{name}/rows"] = dg.MetadataValue.int(report.rows)
        metadata[f"{name}/action"] = dg.MetadataValue.text(report.vector.action.value)
        if report.vector.name:
            metadata[f"{name}/size_mib"] = _number(report.vector.size_bytes / MIB)
            metadata[f"{name}/build_seconds"] = _number(report.vector.seconds)
        if report.recall:
            metadata[f"{name}/recall_at_10"] = _number(report.recall.value)
    return metadata


def make_vector_indexes(code_version: str, owners: Sequence[str] = ()) -> dg.AssetsDefinition:
    """The asset.

    Args:
        code_version: see `pipeline.versions`.
        owners: for the UI.
    """

    @dg.asset(
        deps=["slig_embeddings", "understanding_embeddings", "text_embeddings"],
        description="An HNSW index with cosine distance, and a GIN index on the metadata, for each collection that "
        "has enough rows. Built while searches and writes go on; what is there and as wanted is kept.",
        group_name="search",
        kinds={"postgres"},
        owners=list(owners),
        code_version=code_version,
    )
    def vector_indexes(
        context: dg.AssetExecutionContext, config: IndexConfig, pipeline: PipelineResource
    ) -> dg.MaterializeResult[None]:
        """Thin over `pipeline.indexing`.

        Without a retry policy: with one, Dagster 1.13 takes the termination of a run for a reason to try the step again
        (`op_execution_error_boundary`), and a build could not be stopped. What is worth trying again is asked for by
        `translated_errors`.
        """
        with translated_errors(context):
            reports = pipeline.index_builder().build(
                rebuild=config.rebuild,
                progress=lambda report: context.log.info(
                    f"{report.table}: {report.rows:,} rows, {report.vector.action.value} "
                    f"{report.vector.name or 'no index'} in {report.vector.seconds:.1f} s. {report.remarks}"
                ),
            )
            return dg.MaterializeResult(metadata=_metadata(reports))

    return vector_indexes
