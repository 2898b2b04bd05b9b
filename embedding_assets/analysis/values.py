"""Single values of a provider's answer in the form that the schema wants: texts, lists, properties, numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from embedding_assets.analysis.schema import MAX_ITEMS, MAX_TEXT, clean_text

NOTHING = frozenset(
    {
        *(
            "",
            "n/a",
            "na",
            "n.a.",
            "nil",
            "none",
            "null",
            "nan",
            "unknown",
            "undefined",
            "unspecified",
            "tbd",
        ),
        *("-", "--", "–", "—", "?", "...", "…", "[]", "{}", "not applicable", "not available", "not visible"),
        *("not specified", "not detected", "not determined", "not provided", "not stated", "not known"),
        *("none visible", "none detected", "no text", "no text detected", "no text visible", "not found"),
        *("cannot be determined", "cannot determine", "can't be determined", "unclear", "not clear"),
    }
)
"""Words by which models say that they have nothing to say, in lower case without a final dot."""

_MAX_DEPTH = 4
_MAX_LEAVES = 200
_NAME_KEYS = ("name", "value", "text", "label", "type", "content")
_SIDE_KEYS = (
    ("width", "w"),
    ("length", "l", "height", "h"),
    ("thickness", "depth", "d", "t"),
)


def snake_case(name: str) -> str:
    """A key in lower case with underscores: "materialType", "Material Type" and "material-type" are the same."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", clean_text(name))
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_")


def is_nothing(text: str) -> bool:
    """Whether a cleaned text says that there is nothing to say ("N/A", "Unknown.")."""
    lowered = text.casefold()
    return lowered in NOTHING or lowered.rstrip(". ") in NOTHING


def as_text(value: Any, limit: int = MAX_TEXT) -> str:
    """One text of any value: leaves of lists and objects joined by commas; "" where there is nothing."""
    return clean_text(", ".join(_leaves(value, limit)), limit)


def as_texts(value: Any, separator: str, limit: int) -> list[str]:
    """A list of texts of any value.

    Args:
        value: a list; an object, whose leaves are taken in order; or one text, which is cut.
        separator: regular expression at which texts are cut.
        limit: characters of each item that are looked at.
    """
    items: list[str] = []
    for leaf in _leaves(value, limit * MAX_ITEMS, keep_lines=True):
        for part in re.split(separator, leaf):
            text = clean_text(part, limit)
            if not is_nothing(text):
                items.append(text)
    return items


def as_properties(value: Any) -> dict[str, str]:
    """Named properties of an object, of a list of {name, value} objects or "name: value" texts, or of such a text.

    A text without a colon ("frost proof") is a property that the product has: "yes".
    """
    found: dict[str, str] = {}
    for name, inner in _pairs(value, ""):
        if name and inner and inner not in found.get(name, "").split(", "):
            found[name] = f"{found[name]}, {inner}" if name in found else inner
    return found


def as_dimensions(value: Any) -> str:
    """Sizes as text: "60 x 120 cm" of {"width": 60, "height": 120, "unit": "cm"}; other values as `as_text`."""
    if isinstance(value, Mapping):
        parts = {snake_case(str(key)): as_text(inner) for key, inner in value.items()}
        sides = [next((parts.pop(k) for k in keys if parts.get(k)), "") for keys in _SIDE_KEYS]
        unit = next((parts.pop(k) for k in ("unit", "units") if parts.get(k)), "")
        sides = [side for side in sides if side]
        rest = [f"{key.replace('_', ' ')}: {inner}" for key, inner in parts.items() if inner]
        if sides:
            return ", ".join([f"{' x '.join(sides)} {unit}".strip(), *rest])
    if isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        return ", ".join(filter(None, (as_dimensions(part) for part in value[:MAX_ITEMS])))
    return as_text(value)


def as_confidence(value: Any) -> float | None:
    """A number from 0 to 1 of 0.85, "0.85", "85%" or 85; None of anything else."""
    if isinstance(value, bool):
        return None
    match = re.fullmatch(r"\s*(\d{1,3}(?:[.,]\d+)?|[.,]\d+)\s*(%?)\s*", str(value)[:40])
    if not match:
        return None
    number = float(match[1].replace(",", "."))
    if match[2] or number > 1:
        number /= 100
    return number if math.isfinite(number) and 0 <= number <= 1 else None


def _scalar(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value) if abs(value) < 2**53 else None
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else None
    return value if isinstance(value, str) else None


def _leaves(value: Any, limit: int, depth: int = _MAX_DEPTH, *, keep_lines: bool = False) -> Iterator[str]:
    """Non-empty leaf texts; of an object with a name ({"name": "white", "share": 0.4}) only the name."""
    if isinstance(value, Mapping):
        parts = {snake_case(str(key)): inner for key, inner in value.items()}
        named = [parts[key] for key in _NAME_KEYS if isinstance(parts.get(key), str) and parts[key].strip()]
        value = named[:1] or list(value.values())
    if isinstance(value, list | tuple):
        if depth > 0:
            for inner in value[:_MAX_LEAVES]:
                yield from _leaves(inner, limit, depth - 1, keep_lines=keep_lines)
        return
    text = _scalar(value)
    if text is not None and not is_nothing(clean_text(text)):
        yield text[:limit] if keep_lines else clean_text(text, limit)


def _pairs(value: Any, prefix: str, depth: int = _MAX_DEPTH) -> Iterator[tuple[str, str]]:
    if depth <= 0:
        return
    if isinstance(value, str):
        parts = re.split(r"[;\n]", value)
        if len(parts) == 1 and all(":" in part for part in value.split(",")):
            parts = value.split(",")
        for part in parts[:MAX_ITEMS]:
            name, colon, text = part.partition(":")
            text = clean_text(text) if colon else "yes"
            if not is_nothing(clean_text(name)) and not is_nothing(text):
                yield _joined(prefix, name), text
    elif isinstance(value, list | tuple):
        for inner in value[:_MAX_LEAVES]:
            yield from _pairs(inner, prefix, depth - 1)
    elif isinstance(value, Mapping):
        keys = {snake_case(str(key)): key for key in value}
        name_key = next((keys[k] for k in ("name", "property", "key", "label") if k in keys), None)
        if name_key is not None and "value" in keys and isinstance(value[name_key], str):
            unit = as_text(value[keys["unit"]]) if "unit" in keys else ""
            text = as_text(value[keys["value"]])
            if text:
                yield _joined(prefix, value[name_key]), f"{text} {unit}".strip()
            return
        for key, inner in list(value.items())[:_MAX_LEAVES]:
            if isinstance(inner, Mapping):
                yield from _pairs(inner, _joined(prefix, str(key)), depth - 1)
            elif text := as_text(inner):
                yield _joined(prefix, str(key)), text


def _joined(prefix: str, name: str) -> str:
    return "_".join(filter(None, (prefix, snake_case(name))))
