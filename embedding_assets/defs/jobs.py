"""Jobs, by the names that people look for."""

import dagster as dg

RETRY_TAGS = {
    # Where run retries are switched on, they are for runs whose process died, not for steps that failed: those
    # were retried already as far as it makes sense, and a failure for good stays one.
    "dagster/retry_on_asset_or_op_failure": "false",
    # From failure, Dagster would drop the mapped steps that had not started (#20925). What is done is not done
    # again anyway: the checkpoint is in the database.
    "dagster/retry_strategy": "ALL_STEPS",
}

ingest_document = dg.define_asset_job(
    "ingest_document",
    selection=["document_images"],
    tags=RETRY_TAGS,
    description="Reads documents and brings their image rows up to date.",
)

embed_document = dg.define_asset_job(
    "embed_document",
    selection=["slig_embeddings"],
    tags=RETRY_TAGS,
    description="Embeds the images of ingested documents that lack a vector.",
)

understand_document = dg.define_asset_job(
    "understand_document",
    selection=["vision_analysis", "understanding_embeddings", "text_embeddings"],
    tags=RETRY_TAGS,
    description="Analyses the images of ingested documents, and embeds what they show and the text around them.",
)

process_document = dg.define_asset_job(
    "process_document",
    selection=[
        "document_images",
        "slig_embeddings",
        "vision_analysis",
        "understanding_embeddings",
        "text_embeddings",
    ],
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

JOBS = [ingest_document, embed_document, understand_document, process_document, rebuild_indexes]
