"""Reads what providers really send into a `VisionAnalysis`: tolerant in, strict out.

Field names come under aliases, lists as one text, texts as lists or objects, numbers as texts, "N/A" for nothing.
Whatever is not understood is kept in `extra`, under the name that the provider gave it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from embedding_assets.analysis.answers import find_object
from embedding_assets.analysis.color_names import color_name, parse_hex
from embedding_assets.analysis.schema import (
    MAX_DESCRIPTION,
    MAX_DETECTED_TEXT,
    MIN_DESCRIPTIVE_FIELDS,
    VisionAnalysis,
    clean_text,
)
from embedding_assets.analysis.values import (
    as_confidence,
    as_dimensions,
    as_properties,
    as_text,
    as_texts,
    snake_case,
)

ALIASES: dict[str, tuple[str, ...]] = {
    "material_type": ("material_type", "type", "material", "primary_material"),
    "material_subtype": ("material_subtype", "subtype", "sub_type", "material_sub_type"),
    "category": ("category", "product_category", "product_type"),
    "subcategory": ("subcategory", "sub_category", "product_subcategory"),
    "colors": ("colors", "color_palette", "dominant_colors", "colours", "color", "colour", "colour_palette"),
    "primary_color_hex": (
        "primary_color_hex",
        "primary_colour_hex",
        "color_hex",
        "hex",
        "hex_code",
        "hex_color",
    ),
    "textures": ("textures", "texture", "surface_texture"),
    "pattern": ("pattern", "patterns", "pattern_type"),
    "finish": ("finish", "surface_finish", "finish_type"),
    "design_style": ("design_style", "style", "aesthetic", "design_aesthetic"),
    "applications": ("applications", "suitable_for", "usage", "application", "uses"),
    "dimensions": ("dimensions", "size", "dimension", "sizes"),
    "physical_properties": ("physical_properties", "properties", "characteristics"),
    "detected_text": ("detected_text", "ocr_text", "text_content", "text_detected"),
    "description": ("description", "summary", "caption"),
    "confidence": ("confidence", "confidence_score"),
}
"""Field -> names under which providers send it. The first that is not empty wins; the others go to `extra`."""

PROPERTY_NAMES = frozenset(
    {
        *("slip_rating", "slip_resistance", "thickness", "weight", "hardness", "density", "durability"),
        *("pei_rating", "wear_rating", "abrasion_resistance", "scratch_resistance", "stain_resistance"),
        *("water_absorption", "water_resistance", "frost_resistance", "frost_proof", "fire_rating"),
        *("fire_resistance", "shade_variation", "light_reflectance", "rectified", "edge", "edge_type"),
    }
)
"""Names that are physical properties even where they stand beside the other fields, not below `properties`."""

_KNOWN = {alias for aliases in ALIASES.values() for alias in aliases}
_MATERIAL_PARTS = {"material_type": ("type", "name", "value"), "material_subtype": ("subtype", "sub_type")}
_LISTS = {"colors": r"[,;|\n]", "textures": r"[,;|\n]", "applications": r"[,;|\n]", "detected_text": r"\n"}
"""Fields that are lists, and where a single text is cut into items (text in the picture may hold commas)."""


def parse_analysis(
    answer: str | Mapping[str, Any], *, minimum: int = MIN_DESCRIPTIVE_FIELDS
) -> VisionAnalysis:
    """Reads a provider's answer.

    Args:
        answer: the model's text (JSON, fenced JSON, or JSON inside prose), or an object that was parsed already.
        minimum: descriptive fields that must be filled.

    Raises:
        AnalysisUnreadable: (transient) no JSON object, or one that was cut off.
        AnalysisBusy: (transient) an error message about load, limits or time-outs, in JSON.
        AnalysisRefused: (permanent) any other error message in JSON.
        AnalysisRejected: (permanent) fewer descriptive fields than `minimum`; the message names those there were.
    """
    found = find_object(answer, _is_analysis)
    named: dict[str, tuple[str, Any]] = {}
    extra: dict[str, Any] = {}
    for name, value in found.items():
        name = str(name)
        alias = snake_case(name)
        if alias in _KNOWN and alias not in named:
            named[alias] = (name, value)
        else:
            extra[name] = value
    _split_material(named)
    fields: dict[str, Any] = {}
    for field, aliases in ALIASES.items():
        for alias in aliases:
            if alias not in named:
                continue
            name, value = named[alias]
            read = None if field in fields else _read(field, value)
            if read:
                fields[field] = read
            else:
                extra[name] = value
    _take_properties(fields, extra)
    _take_hex(fields, named)
    extra = {name: value for name, value in extra.items() if as_text(value)}
    if isinstance(found.get("extra"), Mapping):
        extra = {**extra.pop("extra", {}), **extra}
    return VisionAnalysis(**fields, extra=extra).require_descriptive(minimum)


def _is_analysis(value: Mapping[str, Any]) -> bool:
    return any(snake_case(str(name)) in _KNOWN for name in value)


def _read(field: str, value: Any) -> Any:
    if field in _LISTS:
        items = as_texts(value, _LISTS[field], MAX_DETECTED_TEXT)
        return [_color(item) for item in items] if field == "colors" else items
    if field == "physical_properties":
        return as_properties(value)
    if field == "confidence":
        return as_confidence(value)
    if field == "dimensions":
        return as_dimensions(value)
    if field == "primary_color_hex":
        return parse_hex(as_text(value))
    return as_text(value, MAX_DESCRIPTION)


def _color(text: str) -> str:
    """A colour's name: as given, or, where only a hex code was given, the nearest in our table."""
    code = parse_hex(text) if text.startswith("#") or text.lower().startswith("rgb") else None
    return color_name(code) if code else text


def _split_material(named: dict[str, tuple[str, Any]]) -> None:
    """`{"material": {"type": ..., "subtype": ...}}` becomes the two fields."""
    for alias in ALIASES["material_type"]:
        name, value = named.get(alias, (alias, None))
        if not isinstance(value, Mapping):
            continue
        parts = {snake_case(str(key)): inner for key, inner in value.items()}
        subtype = next((parts[key] for key in _MATERIAL_PARTS["material_subtype"] if key in parts), None)
        main = next((parts[key] for key in _MATERIAL_PARTS["material_type"] if key in parts), None)
        if main is not None:
            named[alias] = (name, main)
            if subtype is not None:
                named.setdefault("material_subtype", ("material_subtype", subtype))
            rest = {
                key: inner
                for key, inner in parts.items()
                if key not in (*_MATERIAL_PARTS["material_type"], *_MATERIAL_PARTS["material_subtype"])
            }
            if rest:
                named.setdefault("characteristics", ("characteristics", rest))


def _take_properties(fields: dict[str, Any], extra: dict[str, Any]) -> None:
    """Moves well-known properties that stand beside the other fields to where they belong."""
    beside = {name: value for name, value in extra.items() if snake_case(name) in PROPERTY_NAMES}
    if beside:
        fields["physical_properties"] = {**as_properties(beside), **fields.get("physical_properties", {})}
        for name in beside:
            del extra[name]


def _take_hex(fields: dict[str, Any], named: dict[str, tuple[str, Any]]) -> None:
    """Where no primary colour is given, the first hex code among the colours is it."""
    if "primary_color_hex" in fields:
        return
    for alias in ALIASES["colors"]:
        text = clean_text(str(named.get(alias, ("", ""))[1]), MAX_DESCRIPTION)
        if match := re.search(r"#[0-9a-fA-F]{6}\b", text):
            fields["primary_color_hex"] = match[0].upper()
            return
