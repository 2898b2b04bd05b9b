"""The one form that every vision analysis has, whoever made it.

Strict: values are cleaned and bounded, wrong types are refused. Reading what providers really send (aliases,
scalars for lists, prose) is the work of `parsing`. Cleaning is idempotent, so an analysis that was stored as
JSON and read back is equal to the one that was stored.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from embedding_assets.analysis.errors import AnalysisRejected

SCHEMA_VERSION = 1
"""Goes up when the meaning of a field changes: analyses of another version are made anew."""

MIN_DESCRIPTIVE_FIELDS = 4
"""An analysis with fewer non-empty descriptive fields is rejected."""

MAX_TEXT = 200
"""Characters of a short text (a material, one colour, a property's value); what is longer is cut."""
MAX_DESCRIPTION = 2000
"""Characters of the description."""
MAX_DETECTED_TEXT = 500
"""Characters of one detected line of text."""
MAX_ITEMS = 32
"""Items of a list, properties, and keys at one level of `extra`."""
MAX_DETECTED_ITEMS = 100
"""Detected lines of text."""
MAX_NAME = 80
"""Characters of a property's name."""
MAX_EXTRA_DEPTH = 4
"""Levels of `extra` that are kept; what lies deeper is dropped."""

HEX_COLOR = re.compile(r"#[0-9A-F]{6}")

_JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners: invisible by themselves, but part of the spelling in some scripts."""


def clean_text(value: str, limit: int = MAX_TEXT) -> str:
    """The text on one line, fit for a database and a model.

    Control and invisible formatting characters, NUL and lone surrogates are removed, runs of white space become
    one space, both ends are stripped, Unicode is composed (NFC), and what is longer than `limit` characters is
    cut. Cleaning twice gives the same as once.
    """
    # 8 times the limit: enough for padding, and no megabytes are walked through character by character.
    kept = "".join(
        c
        for c in value[: 8 * limit]
        if c.isspace() or c in _JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )
    line = " ".join(unicodedata.normalize("NFC", kept).split())
    return line[:limit].strip(" " + _JOINERS)


def clean_list(values: Sequence[str], *, items: int = MAX_ITEMS, limit: int = MAX_TEXT) -> list[str]:
    """Cleaned texts without empty ones and repetitions (capitals do not count), in the order given.

    Args:
        values: texts.
        items: how many are kept at most.
        limit: characters of each.
    """
    found: dict[str, str] = {}
    for value in values:
        text = clean_text(value, limit)
        if text:
            found.setdefault(text.casefold(), text)
        if len(found) == items:
            break
    return list(found.values())


def clean_extra(value: Any, depth: int = MAX_EXTRA_DEPTH) -> Any:
    """JSON-like data with its texts cleaned, its size bounded, and empty or unfit values dropped (None)."""
    if isinstance(value, str):
        return clean_text(value, MAX_DETECTED_TEXT) or None
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth <= 0:
        return None
    if isinstance(value, Mapping):
        kept = {clean_text(str(k), MAX_NAME): clean_extra(v, depth - 1) for k, v in value.items()}
        return dict([(k, v) for k, v in kept.items() if k and not _is_empty(v)][:MAX_ITEMS]) or None
    if isinstance(value, list | tuple):
        parts = [clean_extra(v, depth - 1) for v in value[: 4 * MAX_ITEMS]]
        return [v for v in parts if not _is_empty(v)][:MAX_ITEMS] or None
    return None


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}


def _text(limit: int) -> AfterValidator:
    return AfterValidator(lambda value: None if value is None else clean_text(value, limit) or None)


def _texts(items: int, limit: int) -> AfterValidator:
    return AfterValidator(lambda values: clean_list(values, items=items, limit=limit))


def _hex(value: str | None) -> str | None:
    if value is None or not value.strip():
        return None
    text = value.strip().upper()
    if not HEX_COLOR.fullmatch(text):
        raise ValueError(f"expected a colour as #RRGGBB, got {clean_text(value, 40)!r}")
    return text


def _properties(values: dict[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in values.items():
        name, value = clean_text(name, MAX_NAME), clean_text(value)
        if name and value and len(kept) < MAX_ITEMS:
            kept.setdefault(name, value)
    return kept


Text = Annotated[str | None, _text(MAX_TEXT)]
Texts = Annotated[list[str], _texts(MAX_ITEMS, MAX_TEXT)]


class VisionAnalysis(BaseModel):
    """What one image shows. Immutable; every text is one clean line, empty texts are None, lists hold no doubles.

    Raises:
        pydantic.ValidationError: a value is of another type, the hex colour is none, confidence is not in 0..1,
            or a key is unknown (put it into `extra`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    material_type: Text = Field(None, description="Main material, for example 'porcelain' or 'oak'.")
    material_subtype: Text = Field(None, description="Kind within the material, for example 'full body'.")
    category: Text = Field(None, description="Product category, for example 'tile' or 'flooring'.")
    subcategory: Text = Field(None, description="Category within it, for example 'wall tile'.")
    colors: Texts = Field([], description="Colour names, the dominant one first.")
    primary_color_hex: Annotated[str | None, AfterValidator(_hex)] = Field(
        None, description="Dominant colour of the product as #RRGGBB."
    )
    textures: Texts = Field([], description="Surface textures, for example 'smooth', 'veined'.")
    pattern: Text = Field(None, description="Pattern or layout, for example 'herringbone'.")
    finish: Text = Field(None, description="Surface finish, for example 'matte'.")
    design_style: Text = Field(None, description="Decorating style, for example 'scandinavian'.")
    applications: Texts = Field([], description="Where it can be used, for example 'floor', 'outdoor'.")
    dimensions: Text = Field(None, description="Sizes with their unit, for example '60x120 cm'.")
    physical_properties: Annotated[dict[str, str], AfterValidator(_properties)] = Field(
        {}, description="Stated properties, for example slip_rating 'R10', thickness '9 mm'."
    )
    detected_text: Annotated[list[str], _texts(MAX_DETECTED_ITEMS, MAX_DETECTED_TEXT)] = Field(
        [], description="Text that can be read in the image, one line each."
    )
    description: Annotated[str | None, _text(MAX_DESCRIPTION)] = Field(
        None, description="What the image shows, in one to three sentences."
    )
    confidence: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="How sure the analysis is, 0 to 1."
    )
    extra: Annotated[dict[str, Any], BeforeValidator(lambda value: clean_extra(value) or {})] = Field(
        {}, description="What the provider sent under other names; not used for the text."
    )

    def descriptive_fields(self) -> tuple[str, ...]:
        """Names of the non-empty descriptive fields, in the schema's order.

        Descriptive are all fields but `primary_color_hex` (the same news as `colors`), `confidence` and `extra`.
        """
        return tuple(name for name in DESCRIPTIVE_FIELDS if getattr(self, name))

    def require_descriptive(self, minimum: int = MIN_DESCRIPTIVE_FIELDS) -> VisionAnalysis:
        """The analysis itself, if it says enough.

        Raises:
            AnalysisRejected: fewer than `minimum` descriptive fields are filled; the message names them.
        """
        found = self.descriptive_fields()
        if len(found) < minimum:
            raise AnalysisRejected(
                f"the analysis has {len(found)} descriptive fields, at least {minimum} are needed; "
                f"found: {', '.join(found) or 'none'}"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """The analysis as JSON data without its empty fields; `VisionAnalysis(**data)` gives it back."""
        return self.model_dump(mode="json", exclude_defaults=True)


DESCRIPTIVE_FIELDS: tuple[str, ...] = tuple(
    name for name in VisionAnalysis.model_fields if name not in ("primary_color_hex", "confidence", "extra")
)


def json_schema() -> dict[str, Any]:
    """JSON schema for a provider's `response_format`, in the strict dialect that OpenAI-compatible endpoints take.

    Every object forbids additional keys and requires all of its own; what may be missing is nullable. A map with
    free keys can't be said in that dialect, so `physical_properties` is a list of {name, value} there, which
    `parsing.parse_analysis` reads. `extra` is left out: it is no provider's to fill.
    """
    pair = {"name": {"type": "string"}, "value": {"type": "string"}}
    properties: dict[str, Any] = {}
    for name, field in VisionAnalysis.model_fields.items():
        if name == "extra":
            continue
        kind: dict[str, Any]
        if name == "physical_properties":
            kind = {"type": "array", "items": _strict_object(pair)}
        elif name == "confidence":
            kind = {"type": ["number", "null"]}
        elif field.default == []:
            kind = {"type": "array", "items": {"type": "string"}}
        else:
            kind = {"type": ["string", "null"]}
        properties[name] = {**kind, "description": field.description}
    return _strict_object(properties)


def _strict_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
