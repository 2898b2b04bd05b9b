"""The Dagster code location. `build_defs(...)` makes it, so that tests can swap a resource."""

import warnings

import dagster as dg

from embedding_assets.defs.assets.document_images import make_document_images
from embedding_assets.defs.assets.embedding_coverage import make_embedding_coverage
from embedding_assets.defs.assets.slig_embeddings import SLIG_EMBEDDINGS
from embedding_assets.defs.assets.stage_asset import make_stage_asset
from embedding_assets.defs.assets.understanding import (
    TEXT_EMBEDDINGS,
    UNDERSTANDING_EMBEDDINGS,
    VISION_ANALYSIS,
)
from embedding_assets.defs.assets.vector_indexes import make_vector_indexes
from embedding_assets.defs.checks import CHECKS
from embedding_assets.defs.jobs import JOBS
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.defs.schedules import SCHEDULES
from embedding_assets.defs.sensors.alert_on_failure import alert_on_failure
from embedding_assets.defs.sensors.new_documents import new_documents
from embedding_assets.defs.sensors.removed_documents import removed_documents
from embedding_assets.defs.sensors.retry_failed_images import retry_failed_images
from embedding_assets.pipeline.ingestion import INGEST
from embedding_assets.pipeline.versions import code_version_of, index_version
from embedding_assets.settings import load_settings

STAGES = (SLIG_EMBEDDINGS, VISION_ANALYSIS, UNDERSTANDING_EMBEDDINGS, TEXT_EMBEDDINGS)

SENSORS = (new_documents, retry_failed_images, removed_documents, alert_on_failure)


def build_defs(*, pipeline: PipelineResource | None = None) -> dg.Definitions:
    """The definitions.

    Args:
        pipeline: the resource; by default the one that reads settings from the environment.
    """
    resource = pipeline or PipelineResource()
    settings = pipeline.settings() if pipeline else load_settings()
    documents_per_run, owners = settings.documents_per_run, settings.asset_owners
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # backfill_policy is "beta" in Dagster 1.13
        assets = [
            make_document_images(documents_per_run, code_version_of(INGEST, settings), owners),
            *(
                make_stage_asset(stage, documents_per_run, code_version_of(stage.stage, settings), owners)
                for stage in STAGES
            ),
            make_embedding_coverage(owners),
            make_vector_indexes(index_version(settings), owners),
        ]
    return dg.Definitions(
        assets=assets,
        asset_checks=CHECKS,
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources={"pipeline": resource},
        # Parallelism is across runs: a process for each step would load torch and the model each time.
        executor=dg.in_process_executor,
    )


defs = build_defs()
