"""Jobs, by the names that people look for."""

import dagster as dg

from embedding_assets.defs.partitions import documents

ingest_document = dg.define_asset_job(
    "ingest_document",
    selection=["document_images"],
    partitions_def=documents,
    description="Reads documents and brings their image rows up to date.",
)

embed_document = dg.define_asset_job(
    "embed_document",
    selection=["slig_embeddings"],
    partitions_def=documents,
    description="Embeds the images of ingested documents that lack a vector.",
)

process_document = dg.define_asset_job(
    "process_document",
    selection=["document_images", "slig_embeddings"],
    partitions_def=documents,
    description="The whole way: reads documents and embeds their images.",
)
