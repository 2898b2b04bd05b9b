"""What arms, stages, states and fields are called on the pages."""

from __future__ import annotations

from datetime import datetime, timedelta

PROFILE_LABELS = {
    "auto": "Auto",
    "product_name": "Product name",
    "color_finish": "Colour & finish",
    "specification": "Specification",
    "texture_pattern": "Texture & pattern",
    "style_aesthetic": "Style",
    "material_search": "Material",
    "balanced": "Balanced",
}
"""Profile of `search.profiles` -> label of its chip."""

ARM_LABELS = {
    "text": "text",
    "visual": "look",
    "understanding": "meaning",
    "color": "colour",
    "texture": "texture",
    "style": "style",
    "material": "material",
}
"""Arm of `search.arms` -> label of its bar."""

MORE_OF = {"color": "colour", "texture": "texture", "material": "material", "style": "style"}
"""Arms that "more of this ..." asks for, in the order of the links."""

STAGE_LABELS = {
    "ingest": "Reading",
    "slig": "Visual vectors",
    "vision": "Analyses",
    "understanding": "Meaning vectors",
    "text": "Text vectors",
}
"""Stage -> what it makes."""

ANALYSIS_LABELS = {
    "material_type": "Material",
    "material_subtype": "Kind",
    "category": "Category",
    "subcategory": "Subcategory",
    "colors": "Colours",
    "primary_color_hex": "Main colour",
    "textures": "Textures",
    "pattern": "Pattern",
    "finish": "Finish",
    "design_style": "Style",
    "applications": "Use",
    "dimensions": "Dimensions",
    "physical_properties": "Properties",
    "detected_text": "Text in the picture",
    "description": "Description",
    "confidence": "Confidence",
}
"""Field of `analysis.schema.VisionAnalysis` -> row of the table, in this order."""

SOURCE_LABELS = {"pdf": "PDF", "folder": "folder", "image": "image", "posted": "posted list"}


def percent(ratio: float) -> str:
    """A share as people read it; never "100 %" where something is missing."""
    if 0.999 <= ratio < 1:
        return "99.9 %"
    return f"{100 * ratio:.1f} %".replace(".0 %", " %")


def count(value: int) -> str:
    """A number with its thousands apart."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def moment(when: datetime | None) -> str:
    """A time to the minute, in UTC."""
    return "" if when is None else when.strftime("%Y-%m-%d %H:%M UTC")


def duration(span: timedelta) -> str:
    """A time span in its largest unit: "under a minute", "12 min", "3 h", "5 days"."""
    minutes = span.total_seconds() / 60
    if minutes < 1:
        return "under a minute"
    if minutes < 90:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def size(values: int | None) -> str:
    """A file size in bytes, kB or MB."""
    if values is None:
        return ""
    if values < 1000:
        return f"{values} bytes"
    return f"{values / 1000:.0f} kB" if values < 1_000_000 else f"{values / 1_000_000:.1f} MB"


def score(value: float | None) -> str:
    """A calibrated score; a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
