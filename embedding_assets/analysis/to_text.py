"""The text that an analysis becomes before it is embedded. A change of this text is a new embedding space.

One pure function: no clock, no locale, no order of dictionaries. Equal analyses give equal texts, also after a trip
through JSON or a database that sorts keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from embedding_assets.analysis.color_names import color_name
from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.analysis.values import as_properties, is_nothing

TEMPLATE_VERSION = "1"
"""Part of the embedding space of every vector made from these texts (`EmbeddingSpace.template`)."""

MIN_TEXT = 8
"""Letters and digits, labels not counted, that a text needs to be worth a vector: "oak" alone is not."""

LABELS = (
    "Material",
    "Category",
    "Colors",
    "Primary color",
    "Texture",
    "Textures",
    "Finish",
    "Pattern",
    "Style",
    "Description",
    "Applications",
    "Dimensions",
    "Properties",
    "Text detected",
    "Material properties",
)
"""All labels, in the order of the text."""

_LABEL = re.compile(rf"(?:^|(?<=[.!?] ))(?:{'|'.join(sorted(LABELS, key=len, reverse=True))}): ")
_BOOKKEEPING = re.compile(
    r"(?:.*_)?(?:id|ids|uuid|guid|timestamp|hash|checksum|at|date|time)"
    r"|created|updated|modified|deleted|created_by|updated_by|version"
)
_IDENTIFIER = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\d[t ]\d\d:\d\d.*|[0-9a-f]{32,64}",
    re.IGNORECASE,
)


def analysis_to_text(analysis: VisionAnalysis, material_properties: Mapping[str, Any] | None = None) -> str:
    """The text of an analysis, on one line.

    Labelled sentences in a fixed order (`LABELS`), joined by one space; what is empty is left out, label and all.
    Properties are sorted by name. The primary colour is named by the nearest entry of
    `color_names.COLOR_NAMES`. Example:

        Material: porcelain. Colors: white, grey. Primary color: #EDEBE6 (white). Finish: matte.
        Dimensions: 60x120 cm. Properties: slip rating: R10, thickness: 9 mm.

    Args:
        analysis: what the image shows.
        material_properties: what the catalogue's own data say about the product; identifiers and time stamps
            (by name: `id`, `*_id`, `*_at`, ...; by value: UUIDs, hashes, ISO times) are left out.

    Returns:
        "" where the analysis and the properties say nothing.
    """
    textures = "Textures" if len(_worded(analysis.textures)) > 1 else "Texture"
    code = analysis.primary_color_hex
    parts = (
        ("Material", _listed([analysis.material_type, analysis.material_subtype])),
        ("Category", _listed([analysis.category, analysis.subcategory])),
        ("Colors", _listed(analysis.colors)),
        ("Primary color", f"{code} ({color_name(code)})" if code else ""),
        (textures, _listed(analysis.textures)),
        ("Finish", _listed([analysis.finish])),
        ("Pattern", _listed([analysis.pattern])),
        ("Style", _listed([analysis.design_style])),
        ("Description", _listed([analysis.description])),
        ("Applications", _listed(analysis.applications)),
        ("Dimensions", _listed([analysis.dimensions])),
        ("Properties", _named(analysis.physical_properties)),
        ("Text detected", _listed(analysis.detected_text)),
        ("Material properties", _named(_without_bookkeeping(material_properties or {}))),
    )
    return " ".join(_sentence(label, value) for label, value in parts if value)


def is_worth_embedding(text: str) -> bool:
    """Whether a text, from `analysis_to_text` or a document, says enough for a vector (see `MIN_TEXT`)."""
    return sum(character.isalnum() for character in _LABEL.sub("", text)) >= MIN_TEXT


def _sentence(label: str, value: str) -> str:
    return f"{label}: {value}" if value.endswith((".", "!", "?")) else f"{label}: {value}."


def _worded(values: Iterable[str | None]) -> list[str]:
    return [value for value in values if value and not is_nothing(value)]


def _listed(values: Iterable[str | None]) -> str:
    return ", ".join(_worded(values))


def _named(properties: Mapping[str, Any]) -> str:
    pairs = ((name.replace("_", " ").strip() or name, str(properties[name])) for name in sorted(properties))
    return ", ".join(f"{name}: {value}" for name, value in pairs if not is_nothing(value))


def _without_bookkeeping(properties: Mapping[str, Any]) -> dict[str, str]:
    named = as_properties(_in_order(properties))
    return {
        name: value
        for name, value in named.items()
        if not _BOOKKEEPING.fullmatch(name) and not _IDENTIFIER.fullmatch(value)
    }


def _in_order(value: Any) -> Any:
    """The same data with every object's keys sorted, so that what is joined is joined in one order."""
    if isinstance(value, Mapping):
        return {str(key): _in_order(value[key]) for key in sorted(value, key=str)}
    return [_in_order(part) for part in value] if isinstance(value, list | tuple) else value
