"""Which images a search may find: its workspace, document and pages, and filters like those of vecs.

What belongs here: reading filters, and a scope as SQL. What does not: scores and candidates (`store.search`).
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding_assets.errors import PermanentError

COLUMNS = {
    "page_number": "i.page_number",
    "quality_score": "i.quality_score",
    "width": "i.width",
    "height": "i.height",
    "byte_size": "i.byte_size",
    "image_format": "i.image_format",
    "content_hash": "i.content_hash",
    "document_id": "i.document_id",
}
"""Names that filters take for columns of an image's row; every other name is a key of what the caller posted along
with the image (`document_images.extra`)."""

_NUMERIC = {"page_number", "quality_score", "width", "height", "byte_size"}
_OPERATORS = {"$eq": "=", "$ne": "<>", "$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">=", "$in": "in"}
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_CONDITIONS = 16
MAX_LISTED = 100


@dataclass(frozen=True)
class Condition:
    """One comparison of an image's field: `name operator value`; the value of "$in" is a tuple."""

    name: str
    operator: str
    value: Any


@dataclass(frozen=True)
class Scope:
    """Which images a search may find. Always those of one workspace.

    Attributes:
        workspace_id: the workspace.
        document_id: only images of this document.
        first_page, last_page: only these pages, both included.
        conditions: all have to hold.
        without: images that are left out.
    """

    workspace_id: str
    document_id: str | None = None
    first_page: int | None = None
    last_page: int | None = None
    conditions: tuple[Condition, ...] = ()
    without: tuple[uuid.UUID, ...] = ()

    @property
    def is_whole_workspace(self) -> bool:
        """Whether nothing but the workspace narrows it (single images left out do not count)."""
        return self.document_id is None and not (self.first_page or self.last_page or self.conditions)


def parse_filters(filters: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Conditions of a filter like those of vecs: {"name": {"$gte": 0.5}}, {"name": "value"} for equality.

    Names are those of `COLUMNS`, or keys that came with posted images. Operators: $eq, $ne, $lt, $lte, $gt, $gte, $in.
    All conditions have to hold. An image that lacks the field does not fit.

    Raises:
        PermanentError: an operator, a name or a value is not understood; the message says which.
    """
    if not isinstance(filters, Mapping):
        raise PermanentError(f"filters are {type(filters).__name__}; expected an object of name: condition")
    conditions = []
    for name, wanted in filters.items():
        if not isinstance(name, str) or not _KEY.fullmatch(name):
            raise PermanentError(
                f"filter {str(name)[:80]!r}: expected a name of A-Z a-z 0-9 _ . -, up to 64 characters"
            )
        comparisons = wanted if isinstance(wanted, Mapping) else {"$eq": wanted}
        for operator, value in comparisons.items():
            conditions.append(_condition(name, operator, value))
    if len(conditions) > MAX_CONDITIONS:
        raise PermanentError(f"{len(conditions)} conditions; {MAX_CONDITIONS} is the limit")
    return tuple(conditions)


def _condition(name: str, operator: str, value: Any) -> Condition:
    if operator not in _OPERATORS:
        raise PermanentError(f"filter {name}: no operator {operator!r}; expected {', '.join(_OPERATORS)}")
    if operator == "$in":
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_LISTED:
            raise PermanentError(f"filter {name}: $in takes a list of 1 to {MAX_LISTED} values")
        kinds = {_kind(name, item) for item in value}
        if len(kinds) > 1:
            raise PermanentError(f"filter {name}: the values of $in have to be of one type")
        return Condition(name, operator, tuple(value))
    kind = _kind(name, value)
    if kind is bool and operator not in ("$eq", "$ne"):
        raise PermanentError(f"filter {name}: true and false can only be compared by $eq and $ne")
    return Condition(name, operator, value)


def _kind(name: str, value: Any) -> type:
    kind = float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
    if kind not in (float, str, bool) or (kind is float and not _is_finite(value)):
        raise PermanentError(
            f"filter {name}: expected a text, a finite number, true or false, got {str(value)[:80]!r}"
        )
    if kind is str and ("\0" in value or len(value) > 1_000):
        raise PermanentError(f"filter {name}: a text has up to 1,000 characters and no NUL")
    if name in COLUMNS and (kind is float) != (name in _NUMERIC):
        raise PermanentError(
            f"filter {name}: expected {'a number' if name in _NUMERIC else 'a text'}, got {value!r}"
        )
    return kind


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def scope_sql(scope: Scope) -> tuple[str, dict[str, Any]]:
    """A scope as SQL over document_images AS i, and its parameters."""
    parts = ["i.workspace_id = :workspace", "i.status = 'ready'"]
    parameters: dict[str, Any] = {"workspace": scope.workspace_id}
    if scope.document_id is not None:
        parts.append("i.document_id = :document")
        parameters["document"] = scope.document_id
    if scope.first_page is not None:
        parts.append("i.page_number >= :first_page")
        parameters["first_page"] = scope.first_page
    if scope.last_page is not None:
        parts.append("i.page_number <= :last_page")
        parameters["last_page"] = scope.last_page
    if scope.without:
        parts.append("i.id <> ALL(CAST(:without AS uuid[]))")
        parameters["without"] = [str(i) for i in scope.without]
    for number, condition in enumerate(scope.conditions):
        parts.append(_comparison(condition, number, parameters))
    return " AND ".join(parts), parameters


def _comparison(condition: Condition, number: int, parameters: dict[str, Any]) -> str:
    operator = _OPERATORS[condition.operator]
    value = condition.value
    sample = value[0] if isinstance(value, tuple) else value
    parameters[f"value{number}"] = list(value) if isinstance(value, tuple) else value
    compared = f"= ANY(:value{number})" if operator == "in" else f"{operator} :value{number}"
    if condition.name in COLUMNS:
        return f"{COLUMNS[condition.name]} {compared}"
    parameters[f"key{number}"] = condition.name
    kind = (
        "boolean" if isinstance(sample, bool) else "number" if isinstance(sample, int | float) else "string"
    )
    cast = {"boolean": "boolean", "number": "numeric", "string": "text"}[kind]
    # The type is asked first: a text among numbers must not break the cast.
    return (
        f"CASE WHEN jsonb_typeof(i.extra -> :key{number}) = '{kind}' "
        f"THEN CAST(i.extra ->> :key{number} AS {cast}) {compared} ELSE false END"
    )
