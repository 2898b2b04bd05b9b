"""Asset `slig_embeddings`: the visual vectors of each document's images."""

import dagster as dg

from embedding_assets.defs.assets.stage_asset import StageAsset
from embedding_assets.defs.assets.table_schema import collection_metadata

KEY = dg.AssetKey("slig_embeddings")

SLIG_EMBEDDINGS = StageAsset(
    name="slig_embeddings",
    stage="slig",
    verb="embed",
    upstream="document_images",
    open_runner=lambda pipeline, batch_size, max_retries: pipeline.slig_embedder(batch_size, max_retries),
    description="Visual (SLIG) vectors of the document's images in the collection `image_slig_embeddings`. "
    "Materialized when every image is embedded, skipped for a stated reason or permanently rejected, and coverage "
    "is at least the minimum.",
    kinds=("python", "pytorch", "postgres"),
    metadata=collection_metadata("image_slig_embeddings"),
)
