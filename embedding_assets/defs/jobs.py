"""Jobs, by the names that people look for."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from embedding_assets.defs.checks import CORPUS_CHECKS
from embedding_assets.defs.clean_up import clean_up
from embedding_assets.defs.reconciliation import reconcile
from embedding_assets.defs.run_tags import RETRY_TAGS


def _without_corpus_checks(*assets: str) -> dg.AssetSelection:
    """Assets with what belongs to their runs: checks that look at the whole corpus run by the clock."""
    return dg.AssetSelection.assets(*assets) - dg.AssetSelection.checks(*CORPUS_CHECKS)


ingest_document = dg.define_asset_job(
    "ingest_document",
    selection=_without_corpus_checks("document_images"),
    tags=RETRY_TAGS,
    description="Reads documents and brings their image rows up to date.",
)

embed_document = dg.define_asset_job(
    "embed_document",
    selection=_without_corpus_checks("slig_embeddings"),
    tags=RETRY_TAGS,
    description="Embeds the images of ingested documents that lack a vector.",
)

understand_document = dg.define_asset_job(
    "understand_document",
    selection=_without_corpus_checks("vision_analysis", "understanding_embeddings", "text_embeddings"),
    tags=RETRY_TAGS,
    description="Analyses the images of ingested documents, and embeds what they show and the text around them.",
)

process_document = dg.define_asset_job(
    "process_document",
    selection=_without_corpus_checks(
        "document_images",
        "slig_embeddings",
        "vision_analysis",
        "understanding_embeddings",
        "text_embeddings",
    ),
    tags=RETRY_TAGS,
    description="The whole way: reads documents, embeds and understands their images.",
)

rebuild_indexes = dg.define_asset_job(
    "rebuild_indexes",
    selection=["vector_indexes"],
    tags=RETRY_TAGS,
    description="Builds the vector indexes that are missing, broken or of other settings, while searches go on; "
    "with `rebuild: true` all of them.",
)

REEMBEDDED = ("slig_embeddings", "understanding_embeddings", "text_embeddings")

reembed_document = dg.define_asset_job(
    "reembed_document",
    selection=_without_corpus_checks(*REEMBEDDED),
    config={"ops": {asset: {"config": {"force": True}} for asset in REEMBEDDED}},
    tags=RETRY_TAGS,
    description="Embeds documents again although nothing changed: their vectors are dropped and made anew. Set `force` "
    "to false in the launchpad for the stages that shall stay. Until the run is through, the documents are missing "
    "from searches by these vectors. Images with the same bytes in other documents of the workspace lend "
    "theirs.",
)

check_coverage = dg.define_asset_job(
    "check_coverage",
    selection=dg.AssetSelection.assets("embedding_coverage") | dg.AssetSelection.checks(*CORPUS_CHECKS),
    tags=RETRY_TAGS,
    description="Takes the coverage of the whole corpus and runs all checks. Hourly, by a schedule.",
)


JOBS: list[dg.JobDefinition | UnresolvedAssetJobDefinition] = [
    ingest_document,
    embed_document,
    understand_document,
    process_document,
    reembed_document,
    check_coverage,
    rebuild_indexes,
    reconcile,
    clean_up,
]
