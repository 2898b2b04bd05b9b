"""`backfill`: documents that lack something, by the daemon or in this process."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from embedding_assets.cli.documents import Json, Workspace
from embedding_assets.cli.output import out, print_json, print_table
from embedding_assets.cli.runs import RunSummary, run_asset, submit
from embedding_assets.pipeline.selection import Which, release, select_documents
from embedding_assets.settings import load_settings
from embedding_assets.store.database import open_database


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(backfill)


def backfill(
    workspace: Workspace = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Documents that are not done yet (the default).")
    ] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="Documents with open failures, permanent ones too.")
    ] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Documents done by another model, template or schema version.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All documents.")] = False,
    asset: Annotated[
        list[str] | None, typer.Option("--asset", "-a", help="Only this asset; may be given more than once.")
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Run in this process, and wait, instead of asking the daemon.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Materialize old documents: those that lack something, failed, or were done by another model."""
    asked = {Which.MISSING: missing, Which.FAILED: failed, Which.STALE: stale, Which.ALL: everything}
    chosen = [which for which, is_asked in asked.items() if is_asked] or [Which.MISSING]
    if len(chosen) > 1:
        raise typer.BadParameter("give one of --missing, --failed, --stale and --all")
    settings = load_settings()
    database = open_database(settings)
    targets = select_documents(database, settings, chosen[0], workspace_id=workspace, assets=asset)
    counts = {name: len(keys) for name, keys in targets.items()}
    result: dict[str, Any] = {"which": chosen[0].value, "assets": counts, "dry_run": dry_run}
    lines: list[str] = []
    summary = RunSummary()
    if targets and not dry_run:
        if chosen[0] is Which.FAILED:
            result["released"] = release(database, settings, targets)
        if here:
            for name, keys in targets.items():
                run_asset(settings, name, keys, summary)
            result["failed_runs"] = summary.failed
            lines = summary.failed
        else:
            title = f"embedding-assets backfill --{chosen[0].value}"
            submitted = submit(settings, targets, title=title)
            result.update(backfill_id=submitted.backfill_id, daemon_running=submitted.daemon_running)
            lines = [submitted.describe(settings)]
    if as_json:
        print_json(result)
    else:
        verb = "would be materialized" if dry_run else "to materialize"
        print_table(
            f"Documents {verb} ({chosen[0].value})",
            [("asset", False), ("documents", True)],
            list(counts.items()),
        )
        for line in lines or ([] if targets else ["Nothing to do."]):
            out.print(line, highlight=False, markup=False)
    if summary.failed:
        raise typer.Exit(1)
