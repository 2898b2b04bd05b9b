"""Assets `vision_analysis` -> `understanding_embeddings`, and `text_embeddings`: what images mean, in vectors."""

from embedding_assets.defs.assets.stage_asset import StageAsset
from embedding_assets.defs.assets.table_schema import collection_metadata, columns_metadata
from embedding_assets.store.models import DocumentImage

VISION_COLUMNS = (
    "vision_analysis",
    "vision_provider",
    "vision_model",
    "vision_version",
    "vision_analyzed_at",
    "has_vision_analysis",
)
"""Columns of document_images that the vision analysis fills."""

VISION_ANALYSIS = StageAsset(
    name="vision_analysis",
    stage="vision",
    verb="analyze",
    upstream="document_images",
    open_runner=lambda pipeline, batch_size, max_retries: pipeline.vision_runner(batch_size, max_retries),
    description="What each image shows, as structured values in `document_images.vision_analysis`. An image is "
    "analysed once per content, provider, model and schema version.",
    kinds=("python", "postgres"),
    metadata=columns_metadata(DocumentImage, VISION_COLUMNS),
)

UNDERSTANDING_EMBEDDINGS = StageAsset(
    name="understanding_embeddings",
    stage="understanding",
    verb="embed",
    upstream="vision_analysis",
    open_runner=lambda pipeline, batch_size, max_retries: pipeline.understanding_embedder(
        batch_size, max_retries
    ),
    description="Vectors of the text of each image's analysis, in the collection "
    "`image_understanding_embeddings`. Images whose analysis failed count against coverage.",
    kinds=("python", "postgres"),
    metadata=collection_metadata("image_understanding_embeddings"),
)

TEXT_EMBEDDINGS = StageAsset(
    name="text_embeddings",
    stage="text",
    verb="embed",
    upstream="document_images",
    open_runner=lambda pipeline, batch_size, max_retries: pipeline.nearby_text_embedder(
        batch_size, max_retries
    ),
    description="Vectors of each image's caption and the text nearest to it in its document, in the collection "
    "`image_text_embeddings`. Images without text are skipped with that reason.",
    kinds=("python", "postgres"),
    metadata=collection_metadata("image_text_embeddings"),
)
