"""Every stage over a workspace's landed documents, in this process and without Dagster: to measure and to test."""

from __future__ import annotations

import logging
import uuid

from embedding_assets.ingest.landing import discover
from embedding_assets.pipeline.assembly import (
    open_image_store,
    open_ingestor,
    open_nearby_text_embedder,
    open_slig_embedder,
    open_understanding_embedder,
    open_vision_runner,
)
from embedding_assets.pipeline.report import StageReport
from embedding_assets.pipeline.stage_runner import AnyRunner
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database

logger = logging.getLogger(__name__)


def run_all_stages(settings: Settings, database: Database, workspace_id: str) -> dict[str, StageReport]:
    """Ingests all documents that have landed for a workspace, then does each stage on what is still to do.

    Images that fail have their failure records afterwards, as after any run.

    Returns:
        What each stage did, by its name, in the order of the stages.

    Raises:
        DocumentError: a document can't be read.
        FatalError: a person has to act.
        InfrastructureError: the database or a model is gone; what was committed stays.
    """
    run_id = f"in-process:{uuid.uuid4()}"
    ingestor = open_ingestor(settings, database)
    keys = [document.key for document in discover(settings.landing, workspace_id)]
    for key in keys:
        logger.info("%s: %s", key, ingestor.ingest(key, run_id=run_id))
    store = open_image_store(settings)
    runners: list[AnyRunner] = [open_slig_embedder(settings, database, store)]
    if settings.vision_provider != "off":
        runners.append(open_vision_runner(settings, database, store))
        runners.append(open_understanding_embedder(settings, database))
    runners.append(open_nearby_text_embedder(settings, database))
    reports = {}
    for runner in runners:
        runner.preflight()
        pending = [image_id for key in keys for image_id in runner.pending(key, run_id)]
        reports[runner.stage] = runner.run(workspace_id, pending, run_id=run_id)
        logger.info("%s: %s", runner.stage, reports[runner.stage].summary())
    return reports
