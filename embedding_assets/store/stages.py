"""What the stages of the pipeline are to the database: what each needs, and whose failures it inherits."""

from __future__ import annotations

from typing import Protocol

SLIG = "slig"
VISION = "vision"
UNDERSTANDING = "understanding"
TEXT = "text"


class CountedStage(Protocol):
    """A stage whose coverage is counted; `pipeline.asset_stages` has them all."""

    @property
    def name(self) -> str:
        """The stage's name in failure records."""

    @property
    def flag(self) -> str:
        """Column of document_images that says that the stage has done an image."""


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
