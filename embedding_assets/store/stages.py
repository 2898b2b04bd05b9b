"""What the stages of the pipeline are to the database: what each needs, and whose failures it inherits."""

from __future__ import annotations

SLIG = "slig"
VISION = "vision"
UNDERSTANDING = "understanding"
TEXT = "text"

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
