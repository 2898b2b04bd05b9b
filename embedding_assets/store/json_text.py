"""Making text and JSON fit for Postgres, which takes no NUL characters, lone surrogates or NaN."""

from __future__ import annotations

import json
import math
from typing import Any


def clean_text(value: str) -> str:
    """Text that Postgres can hold: without NUL characters and lone surrogates."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def clean_json(value: Any) -> Any:
    """The value with what Postgres' text and jsonb can't hold replaced, at any depth."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(k)): clean_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(value: Any) -> str:
    """The cleaned value as JSON text that casts to jsonb."""
    return json.dumps(clean_json(value), allow_nan=False)
