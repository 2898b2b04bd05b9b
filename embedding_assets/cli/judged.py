"""The judged database: the judged catalogue through the whole pipeline, in a database of its own."""

from __future__ import annotations

from pathlib import Path

from embedding_assets.demo.judged import WORKSPACE, match_images
from embedding_assets.demo.judged_catalogue import write_judged_catalogue
from embedding_assets.errors import FatalError
from embedding_assets.pipeline.all_stages import run_all_stages
from embedding_assets.pipeline.report import StageReport
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
