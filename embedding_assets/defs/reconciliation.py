"""Job `reconcile`: repairs what somebody changed from outside, and reports it on the run's page."""

import dagster as dg
import pandas as pd
from pydantic import Field

from embedding_assets.defs.outcomes import translated_errors
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.defs.run_tags import RETRY_TAGS
from embedding_assets.pipeline.reconciliation import ReconcileReport, reconcile_vectors

SHOWN_DUE = 100
"""Documents listed in the report."""


class ReconcileConfig(dg.Config):
    """How drift is repaired."""

    dry_run: bool = Field(default=False, description="Report what would be done, and change nothing.")


@dg.op(name="reconcile_vectors", out=dg.Out(dg.Nothing))
def reconcile_op(context: dg.OpExecutionContext, config: ReconcileConfig, pipeline: PipelineResource) -> None:
    """Makes flags, vectors and metadata agree, in short transactions."""
    with translated_errors(context):
        report = reconcile_vectors(pipeline.database(), dry_run=config.dry_run, progress=context.log.info)
    due = sorted(map(str, report.due))
    context.add_output_metadata(
        {
            "changes": report.total,
            "dry_run": config.dry_run,
            "collections": dg.MetadataValue.md(repairs_table(report)),
            "documents_due": len(due),
            "due": dg.MetadataValue.md("\n".join(f"- {key}" for key in due[:SHOWN_DUE]) or "none"),
            "left_alone": dg.MetadataValue.json(report.unusable),
        }
    )
    if due and not config.dry_run:
        context.log.warning(
            f"{len(due)} documents have images that are due again; materialize them: {due[:20]}"
        )


def repairs_table(report: ReconcileReport) -> str:
    """What was repaired, one row a collection, in Markdown."""
    if not report.collections:
        return "nothing to repair"
    rows = [{"collection": name, **vars(repair)} for name, repair in report.collections.items()]
    return str(pd.DataFrame(rows).to_markdown(index=False))


@dg.job(
    tags=RETRY_TAGS,
    description="Repairs drift that somebody made from outside: vectors deleted by hand, flags edited, metadata out of "
    "date. Reports what it did on the run's page. Safe to run beside other runs, and to run again.",
)
def reconcile() -> None:
    reconcile_op()
