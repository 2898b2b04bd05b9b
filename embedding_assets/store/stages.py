"""What the stages of the pipeline are to the database: what each needs, and whose failures it inherits."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_assets.settings import Settings
from embedding_assets.store.models import ALL_SLIG, FLAGS

SLIG = "slig"
VISION = "vision"
UNDERSTANDING = "understanding"
TEXT = "text"


@dataclass(frozen=True)
class CountedStage:
    """A stage whose coverage is counted.

    Attributes:
        name: the stage's name in failure records.
        flag: column of document_images that says that the stage has done an image.
        asset: the asset that does the stage's work.
    """

    name: str
    flag: str
    asset: str


STAGES = (
    CountedStage(SLIG, ALL_SLIG, "slig_embeddings"),
    CountedStage(VISION, "has_vision_analysis", "vision_analysis"),
    CountedStage(UNDERSTANDING, FLAGS["image_understanding_embeddings"], "understanding_embeddings"),
    CountedStage(TEXT, FLAGS["image_text_embeddings"], "text_embeddings"),
)
"""In the order in which they are run."""

STAGE_COLLECTIONS = {
    SLIG: (
        "image_slig_embeddings",
        "image_color_embeddings",
        "image_texture_embeddings",
        "image_style_embeddings",
        "image_material_embeddings",
    ),
    VISION: (),
    UNDERSTANDING: ("image_understanding_embeddings",),
    TEXT: ("image_text_embeddings",),
}
"""The collections that a stage writes to, by logical name; those without an active space are not in use."""


def stage_of(logical_name: str) -> str:
    """The stage that writes to a collection."""
    return next(stage for stage, names in STAGE_COLLECTIONS.items() if logical_name in names)


_NEEDS = {UNDERSTANDING: "i.has_vision_analysis"}
_INHERITS = {UNDERSTANDING: (VISION,)}


_EXCUSED = {
    TEXT: "i.status IN ('rejected', 'pending') AND coalesce(i.caption, '') = '' AND coalesce(i.nearby_text, '') = ''"
}


def stages_in_use(settings: Settings) -> list[CountedStage]:
    """The stages that the settings ask for: without vision analysis, there is nothing to understand."""
    unused = (VISION, UNDERSTANDING) if settings.vision_provider == "off" else ()
    return [stage for stage in STAGES if stage.name not in unused]


def excused_by(stage: str) -> str:
    """Which images without a sound picture the stage would have nothing to do with anyway, as SQL over i.

    A broken image without any text is a failure of ingest, and no gap in the text vectors.
    """
    return _EXCUSED.get(stage, "false")


def needs_of(stage: str) -> str:
    """What an image must have before the stage can work on it, as SQL over document_images AS i."""
    return _NEEDS.get(stage, "true")


def blamed_stages(stage: str) -> list[str]:
    """The stages whose permanent failures keep an image from being done at this one."""
    return [stage, *_INHERITS.get(stage, ())]
