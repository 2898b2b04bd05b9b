"""`reconcile`: repairs what somebody changed from outside. `archive`: makes room among Dagster's partitions."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from embedding_assets.cli.documents import Json, Workspace, read_coverage
from embedding_assets.cli.output import out, print_json, print_table
from embedding_assets.deploy.instance import apply_dagster_environment
from embedding_assets.pipeline.reconciliation import reconcile_vectors
from embedding_assets.settings import load_settings
from embedding_assets.store.database import open_database
from embedding_assets.store.documents import list_workspaces, settled_documents


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(reconcile)
    app.command()(archive)


def reconcile(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, and change nothing; exit code 1 if there is drift.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make flags, vectors and metadata agree again after somebody changed the database by hand."""
    report = reconcile_vectors(open_database(load_settings()), dry_run=dry_run)
    if as_json:
        print_json(report.as_dict())
    else:
        if report.collections:
            print_table(
                "Would repair" if dry_run else "Repaired",
                [
                    ("collection", False),
                    *(
                        (name.replace("_", " "), True)
                        for name in vars(next(iter(report.collections.values())))
                    ),
                ],
                [(name, *vars(repair).values()) for name, repair in report.collections.items()],
            )
        else:
            out.print("Flags, vectors and metadata agree.")
        for table, reason in report.unusable.items():
            out.print(f"left alone: {table}: {reason}", highlight=False, markup=False)
        if report.due:
            out.print(
                f"{len(report.due)} documents have images that are due again. Next: embedding-assets embed",
                highlight=False,
            )
    if report.unusable or (dry_run and report.total):
        raise typer.Exit(1)


def archive(
    older_than: Annotated[
        int, typer.Option("--older-than", min=0, help="Days for which a document has not changed.")
    ] = 30,
    workspace: Workspace = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Take complete documents out of Dagster's partitions; their rows, vectors and search stay as they are."""
    settings = load_settings()
    database = open_database(settings)
    with database.transaction() as connection:
        settled = {
            key
            for name in ([workspace] if workspace else list_workspaces(connection))
            for key in settled_documents(connection, name, timedelta(days=older_than))
        }
    complete = [
        row.visual.key
        for row in read_coverage(settings, database, workspace)
        if row.visual.key in settled and row.is_complete(settings.min_coverage)
    ]
    apply_dagster_environment(settings)
    import dagster as dg

    from embedding_assets.defs.archiving import archive_partitions
    from embedding_assets.defs.partitions import count_partitions

    with dg.DagsterInstance.get() as instance:
        removed = archive_partitions(instance, complete, dry_run=dry_run)
        left = count_partitions(instance) - (removed if dry_run else 0)
    if as_json:
        print_json({"dry_run": dry_run, "archived": removed, "partitions_left": left})
    else:
        out.print(
            f"{'would archive' if dry_run else 'archived'} {removed:,} documents; {left:,} partitions are left",
            highlight=False,
        )
