"""The judged database: the judged catalogue through the whole pipeline, in a database of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedding_assets.demo.closeness import TOP_GRADE
from embedding_assets.demo.judged import WORKSPACE, judgements, match_images
from embedding_assets.demo.judged_catalogue import write_judged_catalogue
from embedding_assets.demo.judged_queries import judged_queries
from embedding_assets.errors import FatalError
from embedding_assets.pipeline.all_stages import run_all_stages
from embedding_assets.pipeline.report import StageReport
from embedding_assets.search.evaluation import GradedQuery
from embedding_assets.search.judged_file import JudgedSet
from embedding_assets.settings import DEMO_MODEL, Settings, load_settings
from embedding_assets.store.database import Database, open_database
from embedding_assets.store.embedded import start_embedded_postgres
from embedding_assets.store.schema import upgrade_schema

DATABASE = "embedding_assets_judged"


def judged_settings(var_dir: Path, database_url: str | None = None) -> Settings:
    """Settings of the judged database: the demo model, local providers, and no OCR, as swatches hold no text.

    Args:
        var_dir: folder for catalogue, images and server.
        database_url: an empty or judged database; None: `DATABASE` of the embedded server under `var_dir`, made
            and migrated where it is missing.
    """
    home = var_dir.expanduser().absolute()
    if database_url is None:
        database_url = start_embedded_postgres(home / "postgres", DATABASE)
        database = Database(database_url)
        upgrade_schema(database)
        database.dispose()
    return load_settings(
        database_url=database_url,
        var_dir=home,
        landing_root=str(home / "judged" / "landing"),
        image_store_root=str(home / "judged" / "images"),
        slig_model=DEMO_MODEL,
        text_provider="local",
        vision_provider="local",
        vision_ocr=False,
        pdf_images="embedded",
        min_image_side=64,
    )


def build_judged_catalogue(settings: Settings) -> tuple[Database, dict[str, StageReport]]:
    """Draws the judged catalogue and takes it through every stage; what is there already is left alone.

    Args:
        settings: of `judged_settings`.

    Returns:
        The database, and what each stage did.

    Raises:
        FatalError: an image lacks a vector or an analysis.
        ValueError: the workspace holds other images too.
    """
    database = open_database(settings)
    write_judged_catalogue(Path(settings.landing), WORKSPACE)
    reports = run_all_stages(settings, database, WORKSPACE)
    for stage, report in reports.items():
        if report.failed or report.skipped:
            first = report.failed[0].error if report.failed else "skipped"
            raise FatalError(
                f"{stage}: {len(report.failed)} images of the judged catalogue failed and {report.skipped} were "
                f"skipped, the first: {first}"
            )
    with database.transaction() as connection:
        match_images(connection)
    return database, reports


def judged_set(database: Database, families: Sequence[str], split: str | None = None) -> JudgedSet:
    """The judged queries with the images that answer them.

    Args:
        database: of `build_judged_catalogue`.
        families: which families, of `GATE_FAMILIES` and `ASPECT_FAMILIES`.
        split: "tuning" or "gate"; None takes both halves.
    """
    with database.transaction() as connection:
        images = match_images(connection)
    chosen = [q for q in judged_queries() if q.family in families and split in (None, q.split)]
    grades = judgements(chosen, images)
    return JudgedSet(
        tuple(
            GradedQuery(q.query_id, q.family, q.split, q.text, q.picture(), grades[q.query_id])
            for q in chosen
        ),
        relevant_from=TOP_GRADE,
    )
