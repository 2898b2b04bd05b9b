"""One plain English sentence of what the local analyser found. It adds nothing to the fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NOUNS = {"tile", "carpet", "wallpaper", "slab", "paver", "fabric"}


def describe(fields: Mapping[str, Any]) -> str:
    """A sentence such as "Matte white porcelain tile with a herringbone pattern in classic style, 60x120 cm."

    Args:
        fields: fields of `VisionAnalysis` by name; `colors` holds at least one.
    """
    colors, material, pattern = fields["colors"], fields.get("material_type"), fields.get("pattern")
    category = fields.get("category")
    noun = category if category in _NOUNS else "surface"
    words = [fields.get("finish"), colors[0], material, noun if material != noun else None]
    sentence = " ".join(word for word in words if word)
    if pattern == "plain":
        sentence += " without a pattern"
    elif pattern:
        sentence += f" with {_article(pattern)} {pattern} pattern"
    if style := fields.get("design_style"):
        sentence += f" in {style} style"
    if subtype := fields.get("material_subtype"):
        sentence += f", {subtype}"
    if len(colors) > 1:
        sentence += f", with {_and(colors[1:])}"
    if grain := fields.get("textures"):
        sentence += f", {_and(grain)}"
    if dimensions := fields.get("dimensions"):
        sentence += f", {dimensions}"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _article(word: str) -> str:
    return "an" if word[0] in "aeio" else "a"


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
