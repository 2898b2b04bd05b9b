"""Commands on documents: ingest, embed, coverage, failures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from embedding_assets.cli.output import (
    DocumentCoverage,
    coverage_as_dict,
    failure_as_dict,
    out,
    print_coverage,
    print_coverage_totals,
    print_failures,
    print_json,
    print_table,
)
from embedding_assets.cli.runs import embed_documents, ingest_documents, submit
from embedding_assets.errors import DocumentError
from embedding_assets.ingest.image_store import local_path
from embedding_assets.ingest.landing import discover, locate
from embedding_assets.keys import DocumentKey, document_id_for_name
from embedding_assets.pipeline.assembly import open_ingestor
from embedding_assets.pipeline.asset_stages import assets_in_use, stages_in_use
from embedding_assets.pipeline.ingestion import INGEST
from embedding_assets.settings import Settings, load_settings
from embedding_assets.store.coverage_totals import CoverageTotal, coverage_totals, incomplete_documents
from embedding_assets.store.database import Database, open_database
from embedding_assets.store.documents import (
    Coverage,
    coverage_by_stage,
    coverage_of_documents,
    list_workspaces,
)
from embedding_assets.store.failures import OpenFailure, open_failures, release_for_retry

DEFAULT_WORKSPACE = "default"

LISTED = 200
"""Documents that `coverage` lists one by one; of more, it lists those that are not complete."""


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Workspace = Annotated[str | None, typer.Option("--workspace", "-w", help="Only this workspace.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(ingest)
    app.command()(embed)
    app.command()(coverage)
    app.command()(failures)


def read_coverage(
    settings: Settings,
    database: Database,
    workspace: str | None = None,
    keys: list[DocumentKey] | None = None,
    *,
    only_incomplete: bool = False,
) -> list[DocumentCoverage]:
    """Coverage at each stage in use: of these documents, of one workspace, or of all.

    Args:
        only_incomplete: without the documents that are complete at every stage; not together with `keys`.
    """
    stages = stages_in_use(settings)
    by_stage: dict[str, list[Coverage]] = {stage.asset: [] for stage in stages}
    with database.transaction() as connection:
        if keys is not None:
            for stage in stages:
                by_stage[stage.asset] = coverage_of_documents(connection, keys, stage)
        else:
            for name in [workspace] if workspace else list_workspaces(connection):
                found = (
                    incomplete_documents(connection, name, stages, settings.min_coverage)
                    if only_incomplete
                    else coverage_by_stage(connection, name, stages)
                )
                for stage in stages:
                    by_stage[stage.asset] += found[stage.name]
    return [
        DocumentCoverage(dict(zip(by_stage, rows, strict=True)))
        for rows in zip(*by_stage.values(), strict=True)
    ]


def read_totals(
    settings: Settings, database: Database, workspace: str | None = None
) -> dict[str, CoverageTotal]:
    """Sums over the documents of one workspace, or of all, for each asset in use."""
    stages = stages_in_use(settings)
    totals = {stage.asset: CoverageTotal() for stage in stages}
    with database.transaction() as connection:
        for name in [workspace] if workspace else list_workspaces(connection):
            found = coverage_totals(connection, name, stages, settings.min_coverage)
            for stage in stages:
                totals[stage.asset] += found[stage.name]
    return totals


def read_failures(database: Database, workspace: str | None) -> list[OpenFailure]:
    """Open failures of one workspace, or of all."""
    with database.transaction() as connection:
        workspaces = [workspace] if workspace else list_workspaces(connection)
        return [failure for name in workspaces for failure in open_failures(connection, name)]


def ingest(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="PDFs, folders of images, images, or a .json list of images. Default: all that has landed."
        ),
    ] = None,
    workspace: Annotated[
        str, typer.Option("--workspace", "-w", help="Workspace of the paths.")
    ] = DEFAULT_WORKSPACE,
    force: Annotated[bool, typer.Option("--force", help="Read unchanged documents again.")] = False,
    launch: Annotated[
        bool,
        typer.Option("--launch", help="Leave all the work, embedding too, to the running daemon."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring documents in: their images are found, checked, stored and listed."""
    if force and launch:
        raise typer.BadParameter("--force works in this process only; leave --launch out")
    settings = load_settings()
    database = open_database(settings)
    if paths:
        keys = [_bring_in(path, workspace, settings, database) for path in paths]
    else:
        keys = [document.key for document in discover(settings.landing)]
        if not keys:
            raise DocumentError(
                f"nothing has landed in {settings.landing}",
                hint=f"give paths, or put documents into {settings.landing}/<workspace_id>/",
            )
    if launch:
        submitted = submit(
            settings, dict.fromkeys(assets_in_use(settings), keys), title="embedding-assets ingest"
        )
        if as_json:
            print_json({"documents": [str(key) for key in keys], **vars(submitted)})
        else:
            out.print(submitted.describe(settings), highlight=False, markup=False)
        return
    run = ingest_documents(settings, database, keys, force=force)
    found = [row.visual for row in read_coverage(settings, database, keys=keys)]
    failed = [f for f in read_failures(database, None) if f.key in set(keys) and f.stage == INGEST]
    if as_json:
        print_json(
            {
                "documents": [coverage_as_dict(row, settings.min_coverage) for row in found],
                "unchanged": [str(key) for key in run.unchanged],
                "failures": [failure_as_dict(failure) for failure in failed],
                "failed_runs": run.failed,
            }
        )
    else:
        print_table(
            f"Ingested: {len(run.done)} documents read, {len(run.unchanged)} unchanged",
            [
                ("document", False),
                ("images", True),
                ("skipped", True),
                ("rejected", True),
                ("to embed", True),
            ],
            [(row.key, row.total, row.skipped, row.rejected, row.missing) for row in found],
        )
        if failed:
            print_failures(failed)
        out.print("Next: embedding-assets embed", highlight=False)
    if run.failed:
        raise typer.Exit(1)


def _bring_in(path: Path, workspace: str, settings: Settings, database: Database) -> DocumentKey:
    """Copies a path into the landing folder, unless it lies there; registers a posted list."""
    if not path.exists():
        raise DocumentError(
            f"{path} does not exist", hint="expected a PDF, a folder, an image or a .json list"
        )
    if path.suffix.lower() == ".json" and path.is_file():
        key = DocumentKey(workspace, document_id_for_name(path.stem))
        open_ingestor(settings, database).register_posted(key, _read_list(path))
        return key
    landing = local_path(settings.landing)
    if landing is None:
        raise DocumentError(
            f"the landing root {settings.landing} is no local folder",
            hint="upload the document there, then run `embedding-assets ingest` without a path",
        )
    source = path.resolve()
    if landing.resolve() in source.parents:
        workspace = source.relative_to(landing.resolve()).parts[0]
    else:
        folder = landing / workspace
        folder.mkdir(parents=True, exist_ok=True)
        _copy(source, folder / source.name)
    return locate(settings.landing, DocumentKey(workspace, document_id_for_name(source.name))).key


def _copy(source: Path, target: Path) -> None:
    """Copies so that a half-copied document never stands under its name."""
    unfinished = target.with_name(f".{target.name}.copying")
    if source.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished)
        if target.is_dir():
            replaced = target.with_name(f".{target.name}.replaced")
            shutil.rmtree(replaced, ignore_errors=True)
            target.rename(replaced)
            unfinished.rename(target)
            shutil.rmtree(replaced)
            return
    else:
        shutil.copy2(source, unfinished)
    unfinished.replace(target)


def _read_list(path: Path) -> list[dict[str, Any]]:
    try:
        value = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise DocumentError(f"{path} is no JSON: {error}") from error
    if isinstance(value, dict):
        value = value.get("material_images")
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DocumentError(
            f"{path} holds no list of images",
            hint='expected [{"path": "...", "page_number": 1}, ...] or {"material_images": [...]}',
        )
    return value


def embed(
    document: Annotated[
        list[str] | None,
        typer.Argument(help="Document keys, workspace/document. Default: all that are not complete."),
    ] = None,
    workspace: Workspace = None,
    batch_size: Annotated[int | None, typer.Option(help="Images encoded and committed together.")] = None,
    max_retries: Annotated[int | None, typer.Option(help="Tries of an image after its first.")] = None,
    as_json: Json = False,
) -> None:
    """Embed what lacks a vector: images, what they show, the text around them; exit code 0 only if complete."""
    settings = load_settings()
    database = open_database(settings)
    keys = [DocumentKey.parse(text) for text in document] if document else None
    targets = keys or [row.visual.key for row in read_coverage(settings, database, workspace)]
    if not targets:
        raise DocumentError("there are no documents yet", hint="bring some in: embedding-assets ingest PATH")
    run = embed_documents(settings, database, targets, batch_size=batch_size, max_retries=max_retries)
    rows = read_coverage(settings, database, keys=targets)
    if as_json:
        print_json(
            {
                "documents": [row.as_dict(settings.min_coverage) for row in rows],
                "failed_runs": run.failed,
            }
        )
    else:
        print_coverage(rows, settings.min_coverage)
        for reason in run.failed:
            out.print(reason, highlight=False, markup=False)
    if run.failed or not all(row.is_complete(settings.min_coverage) for row in rows):
        raise typer.Exit(1)


def coverage(
    workspace: Workspace = None,
    show_all: Annotated[
        bool,
        typer.Option(
            "--all", help=f"List every document. Default: of more than {LISTED}, those not complete."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the coverage of each document; exit code 0 only if all are complete."""
    settings = load_settings()
    database = open_database(settings)
    minimum = settings.min_coverage
    totals = read_totals(settings, database, workspace)
    documents = next(iter(totals.values())).documents
    everything = show_all or documents <= LISTED
    rows = read_coverage(settings, database, workspace, only_incomplete=not everything)
    incomplete = [row for row in rows if not row.is_complete(minimum)]
    if as_json:
        print_json(
            {
                "complete": not incomplete,
                "totals": {asset: total.as_dict() for asset, total in totals.items()},
                "listed": "all" if everything else "incomplete",
                "documents": [row.as_dict(minimum) for row in rows],
            }
        )
    elif documents:
        print_coverage(rows if everything else rows[:LISTED], minimum)
        if not everything:
            print_coverage_totals(totals)
            if len(incomplete) > LISTED:
                out.print(
                    f"... and {len(incomplete) - LISTED:,} more that are not complete (--all lists them)"
                )
            out.print(
                f"{documents - len(incomplete):,} of {documents:,} documents are complete.", highlight=False
            )
    else:
        out.print(
            "No documents yet. Bring some in: embedding-assets ingest PATH, or see embedding-assets demo."
        )
    if incomplete:
        raise typer.Exit(1)


def failures(
    workspace: Workspace = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try the failed images again, permanent ones too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List failed images and documents with reasons; with --retry, try them again."""
    settings = load_settings()
    database = open_database(settings)
    listed = read_failures(database, workspace)
    incomplete = False
    if retry and listed:
        reread = sorted({failure.key for failure in listed if failure.stage == INGEST})
        keys = sorted({failure.key for failure in listed})
        if reread:
            incomplete = bool(ingest_documents(settings, database, reread, force=True).failed)
        with database.transaction() as connection:
            for key in keys:
                for stage in stages_in_use(settings):
                    release_for_retry(connection, key, stage.name)
        incomplete = bool(embed_documents(settings, database, keys).failed) or incomplete
        listed = read_failures(database, workspace)
    if as_json:
        print_json({"failures": [failure_as_dict(failure) for failure in listed]})
    else:
        print_failures(listed)
    if incomplete:
        raise typer.Exit(1)
