"""`reconcile`: repairs what somebody changed in the database from outside."""

from __future__ import annotations

from typing import Annotated

import typer

from embedding_assets.cli.documents import Json
from embedding_assets.cli.output import out, print_json, print_table
from embedding_assets.pipeline.reconciliation import reconcile_vectors
from embedding_assets.settings import load_settings
from embedding_assets.store.database import open_database


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(reconcile)


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
