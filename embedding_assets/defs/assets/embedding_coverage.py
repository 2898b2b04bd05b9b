"""Asset `embedding_coverage`: where the whole corpus stands, taken every hour and kept for trends."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import dagster as dg
import pandas as pd

from embedding_assets.defs.assets.table_schema import table_metadata
from embedding_assets.defs.outcomes import INFRASTRUCTURE_RETRY, translated_errors
from embedding_assets.defs.partitions import capacity_warning, documents
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.pipeline.asset_stages import stages_in_use
from embedding_assets.pipeline.coverage_plot import plot_coverage
from embedding_assets.pipeline.coverage_report import CoverageReport, StageCoverage, take_coverage
from embedding_assets.store.models import CoverageHistory

KEY = dg.AssetKey("embedding_coverage")

SHOWN_WORKSPACES = 50
"""Workspaces in the table: those with the most missing images. The table coverage_history has them all."""


def make_embedding_coverage(owners: Sequence[str]) -> dg.AssetsDefinition:
    """The asset."""

    @dg.asset(
        key=KEY,
        description="Coverage of all documents by workspace and stage, counted from the rows, with failures by class, "
        "speed, and how long what is missing will take. Every materialization adds rows to `coverage_history`.",
        deps=["slig_embeddings", "vision_analysis", "understanding_embeddings", "text_embeddings"],
        group_name="coverage",
        kinds={"python", "postgres"},
        owners=list(owners),
        metadata=table_metadata(CoverageHistory),
        retry_policy=INFRASTRUCTURE_RETRY,
        # No code_version: it says how things stood at one moment, which no later code makes stale.
    )
    def embedding_coverage(
        context: dg.AssetExecutionContext, pipeline: PipelineResource
    ) -> dg.MaterializeResult[None]:
        with translated_errors(context):
            settings = pipeline.settings()
            report = take_coverage(
                pipeline.database(),
                stages_in_use(settings),
                settings.min_coverage,
                timedelta(days=settings.coverage_history_days),
            )
        registered = len(context.instance.get_dynamic_partitions(documents.name or ""))
        warning = capacity_warning(registered, settings.supported_partitions)
        if warning:
            context.log.warning(warning)
        return dg.MaterializeResult(
            metadata={
                **report_metadata(report),
                "partitions": dg.MetadataValue.int(registered),
                "partitions_used": dg.MetadataValue.float(
                    round(registered / settings.supported_partitions, 4)
                ),
            }
        )

    return embedding_coverage


def report_metadata(report: CoverageReport) -> dict[str, dg.MetadataValue]:
    """The report as tables, a picture, and numbers that the UI plots."""
    numbers: dict[str, dg.MetadataValue] = {}
    for row in report.stages:
        name = row.stage.name
        numbers[f"{name}_images"] = dg.MetadataValue.int(row.total.images)
        numbers[f"{name}_embedded"] = dg.MetadataValue.int(row.total.embedded)
        numbers[f"{name}_missing"] = dg.MetadataValue.int(row.total.missing)
        numbers[f"{name}_rejected"] = dg.MetadataValue.int(row.total.rejected)
        numbers[f"{name}_coverage"] = dg.MetadataValue.float(round(row.total.ratio, 6))
        if row.images_per_hour is not None:
            numbers[f"{name}_images_per_hour"] = dg.MetadataValue.float(round(row.images_per_hour, 1))
        if row.time_left is not None:
            numbers[f"{name}_hours_left"] = dg.MetadataValue.float(
                round(row.time_left.total_seconds() / 3600, 2)
            )
    documents_ = report.stages[0].total if report.stages else None
    picture = base64.b64encode(plot_coverage(report.history)).decode()
    return {
        "coverage": dg.MetadataValue.md(_coverage_table(report.stages)),
        "workspaces": dg.MetadataValue.md(_workspace_table(report.workspaces)),
        "failures": dg.MetadataValue.md(_failure_counts(report.failures)),
        "trend": dg.MetadataValue.md(f"![coverage over time](data:image/png;base64,{picture})"),
        "documents": dg.MetadataValue.int(documents_.documents if documents_ else 0),
        "failed": dg.MetadataValue.int(sum(sum(counts.values()) for counts in report.failures.values())),
        **numbers,
    }


def _coverage_table(rows: Iterable[StageCoverage]) -> str:
    table = [
        {
            **({} if row.workspace_id is None else {"workspace": row.workspace_id}),
            "asset": row.stage.asset,
            "documents": row.total.documents,
            "complete": row.total.complete,
            "images": row.total.images,
            "embedded": row.total.embedded,
            "skipped": row.total.skipped,
            "rejected": row.total.rejected,
            "missing": row.total.missing,
            "coverage": f"{row.total.ratio:.2%}",
            "images/hour": "" if row.images_per_hour is None else f"{row.images_per_hour:,.0f}",
            "time left": _duration(row.time_left),
        }
        for row in rows
    ]
    return str(pd.DataFrame(table).to_markdown(index=False)) if table else "no documents yet"


def _workspace_table(rows: Sequence[StageCoverage]) -> str:
    missing: dict[str, int] = {}
    for row in rows:
        missing[row.workspace_id or ""] = missing.get(row.workspace_id or "", 0) + row.total.missing
    shown = sorted(missing, key=lambda name: (-missing[name], name))[:SHOWN_WORKSPACES]
    place = {name: n for n, name in enumerate(shown)}
    table = _coverage_table(
        sorted((r for r in rows if r.workspace_id in place), key=lambda r: place[r.workspace_id or ""])
    )
    more = len(missing) - len(shown)
    return f"{table}\n\n... and {more} more workspaces" if more > 0 else table


def _failure_counts(failures: Mapping[str, Mapping[str, int]]) -> str:
    if not failures:
        return "none"
    table = pd.DataFrame(
        [
            {"stage": stage, "class": error_class, "open failures": count}
            for stage, counts in sorted(failures.items())
            for error_class, count in sorted(counts.items())
        ]
    )
    return str(table.to_markdown(index=False))


def _duration(time_left: timedelta | None) -> str:
    if time_left is None:
        return "unknown"
    minutes = round(time_left.total_seconds() / 60)
    if minutes < 1:
        return "-" if not time_left else "under 1 min"
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"
