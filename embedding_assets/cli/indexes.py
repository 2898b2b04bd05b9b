"""`indexes`: the vector indexes, brought to what the settings want, and what they are worth; and what searches scale
scores by."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from embedding_assets.cli.documents import Json
from embedding_assets.cli.output import err, out, print_json, print_table
from embedding_assets.pipeline.index_report import IndexReport, index_table
from embedding_assets.pipeline.indexing import IndexBuilder
from embedding_assets.search.assembly import open_search_engine
from embedding_assets.settings import load_settings
from embedding_assets.store.database import open_database


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(indexes)


def indexes(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build those anew too that are there and as wanted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build the vector indexes that are missing or of other settings; show size and recall; calibrate searches."""
    settings = load_settings()
    builder = IndexBuilder.from_settings(settings, open_database(settings))

    def note(report: IndexReport) -> None:
        if err.is_terminal:
            err.print(f"{report.table}: {report.vector.action.value}", highlight=False)

    reports = builder.build(rebuild=rebuild, progress=note)
    if any(report.rows for report in reports):
        open_search_engine(settings, builder.database).calibrate()
    if as_json:
        print_json([report.as_dict() for report in reports])
        return
    if not reports:
        out.print("No vectors yet. Embed some first: embedding-assets embed.", highlight=False)
        return
    rows = index_table(reports)
    print_table(
        "Indexes",
        [(name, _numeric(rows, name)) for name in rows[0]],
        [[_shown(value) for value in row.values()] for row in rows],
    )


def _numeric(rows: list[dict[str, Any]], name: str) -> bool:
    return all(isinstance(row[name], int | float) or row[name] == "" for row in rows) and name != "remarks"


def _shown(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) else value
