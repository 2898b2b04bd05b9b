"""The Dagster code location. `build_defs(...)` makes it, so that tests can swap a resource."""

import warnings

import dagster as dg

from embedding_assets.defs.assets.document_images import make_document_images
from embedding_assets.defs.assets.slig_embeddings import make_slig_embeddings
from embedding_assets.defs.jobs import embed_document, ingest_document, process_document
from embedding_assets.defs.resources import PipelineResource
from embedding_assets.settings import load_settings


def build_defs(*, pipeline: PipelineResource | None = None) -> dg.Definitions:
    """The definitions.

    Args:
        pipeline: the resource; by default the one that reads settings from the environment.
    """
    resource = pipeline or PipelineResource()
    documents_per_run = (pipeline.settings() if pipeline else load_settings()).documents_per_run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # backfill_policy is "beta" in Dagster 1.13
        assets = [make_document_images(documents_per_run), make_slig_embeddings(documents_per_run)]
    return dg.Definitions(
        assets=assets,
        jobs=[ingest_document, embed_document, process_document],
        resources={"pipeline": resource},
        # Parallelism is across runs: a process for each step would load torch and the model each time.
        executor=dg.in_process_executor,
    )


defs = build_defs()
