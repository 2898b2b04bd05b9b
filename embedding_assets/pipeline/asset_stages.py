"""The stages as assets: which asset does which stage, and where its coverage is counted."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_assets.settings import Settings
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import SLIG as SLIG_COLLECTION
from embedding_assets.store.spaces import TEXT as TEXT_COLLECTION
from embedding_assets.store.spaces import UNDERSTANDING as UNDERSTANDING_COLLECTION
from embedding_assets.store.stages import SLIG, TEXT, UNDERSTANDING, VISION

INGEST_ASSET = "document_images"
"""The asset that the stages work on."""


@dataclass(frozen=True)
class AssetStage:
    """A stage, the asset and job that do it, the flag that its coverage is counted by, and a label for people."""

    name: str
    asset: str
    job: str
    flag: str
    label: str


ASSET_STAGES = (
    AssetStage(SLIG, "slig_embeddings", "embed_document", FLAGS[SLIG_COLLECTION], "embed"),
    AssetStage(VISION, "vision_analysis", "understand_document", "has_vision_analysis", "analyse"),
    AssetStage(
        UNDERSTANDING,
        "understanding_embeddings",
        "understand_document",
        FLAGS[UNDERSTANDING_COLLECTION],
        "understand",
    ),
    AssetStage(TEXT, "text_embeddings", "understand_document", FLAGS[TEXT_COLLECTION], "embed texts"),
)
"""In the order in which they are run."""


def stages_in_use(settings: Settings) -> list[AssetStage]:
    """The stages that the settings ask for: without vision analysis, there is nothing to understand."""
    if settings.vision_provider == "off":
        return [stage for stage in ASSET_STAGES if stage.name not in (VISION, UNDERSTANDING)]
    return list(ASSET_STAGES)


def assets_in_use(settings: Settings) -> list[str]:
    """Names of the assets of the whole chain that the settings ask for, in the order in which they run."""
    return [INGEST_ASSET, *(stage.asset for stage in stages_in_use(settings))]
