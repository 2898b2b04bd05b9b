"""`backfill-understanding`: vectors for analyses that have none."""

from __future__ import annotations

from typing import Annotated

import typer

from embedding_assets.cli.documents import DEFAULT_WORKSPACE, Json
from embedding_assets.cli.output import out, print_json, progress_bar
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.assembly import open_understanding_embedder
from embedding_assets.pipeline.backfill import BackfillReport, backfill_understanding, count_to_backfill
from embedding_assets.settings import load_settings
from embedding_assets.store.database import open_database


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("backfill-understanding")(backfill)


def backfill(
    workspace: Annotated[
        str | None,
        typer.Option("--workspace", "-w", help="Workspace. Default: the document's, or `default`."),
    ] = None,
    document: Annotated[
        str | None, typer.Option("--document", help="Only this document, workspace/document.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Images to look at, at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Embed the analyses that have no vector, or a stale one; can be stopped and called again."""
    settings = load_settings()
    key = DocumentKey.parse(document) if document else None
    if key is not None and workspace not in (None, key.workspace_id):
        raise typer.BadParameter(f"document {key} is not in workspace {workspace}")
    chosen = key.workspace_id if key else workspace or ("demo" if settings.demo else DEFAULT_WORKSPACE)
    database = open_database(settings)
    embedder = open_understanding_embedder(settings, database)
    waiting = count_to_backfill(embedder, chosen, key.document_id if key else None)
    total = waiting if limit is None else min(waiting, limit)
    report = BackfillReport(scanned=total)
    if not dry_run:
        so_far = BackfillReport()

        def note(progress: BackfillReport) -> None:
            so_far.scanned = progress.scanned

        with progress_bar("understand", total, lambda: so_far.scanned):
            report = backfill_understanding(
                embedder, chosen, document_id=key.document_id if key else None, limit=limit, progress=note
            )
    if as_json:
        print_json({**vars(report), "dry_run": dry_run})
    else:
        out.print(
            f"{'would scan' if dry_run else 'scanned'} {report.scanned}, embedded {report.embedded}, "
            f"skipped {report.skipped}, failed {report.failed}",
            highlight=False,
        )
    if report.failed:
        raise typer.Exit(1)
