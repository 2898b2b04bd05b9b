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
from embedding_assets.defs.assets.vector_indexes import vector_indexes
from embedding_assets.defs.checks import CHECKS
from embedding_assets.defs.jobs import JOBS
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.defs.schedules import SCHEDULES
from embedding_assets.settings import load_settings

STAGES = (SLIG_EMBEDDINGS, VISION_ANALYSIS, UNDERSTANDING_EMBEDDINGS, TEXT_EMBEDDINGS)


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
            make_document_images(documents_per_run, owners),
            *(make_stage_asset(stage, documents_per_run, owners) for stage in STAGES),
            make_embedding_coverage(owners),
            vector_indexes,
        ]
    return dg.Definitions(
        assets=assets,
        asset_checks=CHECKS,
        jobs=JOBS,
        schedules=SCHEDULES,
        resources={"pipeline": resource},
        # Parallelism is across runs: a process for each step would load torch and the model each time.
        executor=dg.in_process_executor,
    )


defs = build_defs()
