"""The demo: the real pipeline over a drawn catalogue, with the demo model."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

from embedding_assets.cli.documents import read_coverage
from embedding_assets.cli.output import command_as_typed, out, print_coverage, print_failures
from embedding_assets.cli.runs import embed_documents, ingest_documents
from embedding_assets.cli.search import print_hits
from embedding_assets.demo.catalogue import write_demo_catalogue
from embedding_assets.demo.manifest import CatalogueManifest
from embedding_assets.demo.queries import FAMILY_QUERIES, draw_image_query
from embedding_assets.ingest.landing import discover
from embedding_assets.pipeline.assembly import open_encoder
from embedding_assets.search.assembly import open_search_engine
from embedding_assets.search.engine import SearchEngine
from embedding_assets.search.request import SearchRequest
from embedding_assets.settings import PREFIX, load_settings
from embedding_assets.store.database import open_database
from embedding_assets.store.failures import open_failures

WORKSPACE = "demo"
HITS = 3


def run_demo() -> bool:
    """Writes the catalogue, runs the assets over what is new, and shows the outcome.

    Returns:
        Whether coverage is complete.
    """
    started = time.monotonic()
    os.environ[f"{PREFIX}DEMO"] = "true"
    settings = load_settings()
    database = open_database(settings)
    manifest = write_demo_catalogue(Path(settings.landing), WORKSPACE)
    keys = [document.key for document in discover(settings.landing, WORKSPACE)]
    out.print(f"Demo catalogue: {len(keys)} documents in {settings.landing}/{WORKSPACE}", highlight=False)
    ingested = ingest_documents(settings, database, keys)
    embedded = embed_documents(settings, database, keys)
    out.print(
        f"Dagster runs: {len(ingested.done)} documents ingested ({len(ingested.unchanged)} unchanged), "
        f"{len(embedded.done)} embedded ({len(embedded.unchanged)} complete already)\n",
        highlight=False,
    )
    for reason in [*ingested.failed, *embedded.failed]:
        out.print(reason, markup=False, highlight=False)
    coverages = read_coverage(settings, database, WORKSPACE)
    with database.transaction() as connection:
        failures = open_failures(connection, WORKSPACE)
    print_coverage(coverages, settings.min_coverage)
    out.print()
    print_failures(failures)
    out.print()
    _show_searches(open_search_engine(settings, database), manifest, settings.image_store)
    out.print(f"\nModel: {open_encoder(settings).space}", highlight=False)
    command = command_as_typed()
    out.print(
        f"\nDone in {time.monotonic() - started:.0f} s. Open the Dagster UI on these documents:\n"
        f"  {command} --demo up        then http://{settings.dagster_host}:{settings.dagster_port}\n"
        "Search on:\n"
        f'  {command} --demo search "grey slate chevron"',
        highlight=False,
    )
    complete = all(row.is_complete(settings.min_coverage) for row in coverages)
    return complete and not ingested.failed and not embedded.failed


def _show_searches(engine: SearchEngine, manifest: CatalogueManifest, image_store: str) -> None:
    for family, query in FAMILY_QUERIES.items():
        result = engine.search(SearchRequest(WORKSPACE, text=query, top_k=HITS))
        print_hits(f"{family}: {query}   ({result.profile})", result, image_store)
    spec = manifest.spec(manifest.image_query_sku)
    buffer = io.BytesIO()
    draw_image_query(spec).save(buffer, "PNG")
    result = engine.search(SearchRequest(WORKSPACE, image=buffer.getvalue(), top_k=HITS))
    print_hits(f"image: another piece of {spec.sku}, {spec.name}", result, image_store)
