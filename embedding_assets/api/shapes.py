"""Shapes that several routes share: ids with their grammar, pages, and what problems look like in the document."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from embedding_assets.api.problems import MEDIA_TYPE, problem

ID_PATTERN = r"^[A-Za-z0-9._-]{1,128}$"
"""The grammar of workspace ids, document ids and job ids; see `keys`."""

NO_ZERO_BYTE = r"^[^\x00]*$"
"""Text that Postgres can hold."""

IdText = Annotated[str, Field(min_length=1, max_length=128, pattern=ID_PATTERN)]

WorkspaceParam = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=128,
        pattern=ID_PATTERN,
        description="The workspace. Default: the only one of the key; without keys, `default` (`demo` in the demo).",
        examples=["demo"],
    ),
]
DocumentParam = Annotated[
    str | None,
    Query(
        max_length=128, pattern=ID_PATTERN, description="Only this document.", examples=["natural-stone.pdf"]
    ),
]
WorkspacePath = Annotated[str, Path(max_length=128, pattern=ID_PATTERN, examples=["demo"])]
DocumentPath = Annotated[str, Path(max_length=128, pattern=ID_PATTERN, examples=["natural-stone.pdf"])]
JobPath = Annotated[str, Path(max_length=128, pattern=ID_PATTERN, examples=["import-2026-11"])]
LimitParam = Annotated[int, Query(ge=1, le=500, description="Rows in a page, at most.")]
CursorParam = Annotated[
    str | None,
    Query(max_length=1_000, description="`next` of the page before; leave out for the first page."),
]

T = TypeVar("T")


class Shape(BaseModel):
    """Base of what comes in: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(BaseModel, Generic[T]):
    """One page of a list, in the order of its key. `next` is the `after` of the page behind it; null on the last."""

    items: list[T]
    next: str | None = None


class FieldError(BaseModel):
    """One field that is not as expected."""

    field: str
    message: str


class ProblemShape(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What was expected and what came.")
    hint: str | None = Field(None, description="What to do about it.")
    errors: list[FieldError] | None = Field(None, description="The fields that are not as expected.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, besides those that every route has."""
    words = {
        400: "The request can't be read.",
        401: "No key, or none that is good.",
        403: "The key's role does not allow it, or a browser sent the request for another site.",
        404: "It is not there, or the key may not see it.",
        409: "The job id was used for another request.",
        413: "The request is larger than allowed.",
        415: "The body is of another kind than expected.",
        422: "A field is not as expected.",
        429: "Too many requests; `Retry-After` says when to try again.",
        503: "Something that is needed is not available now.",
    }
    return {
        status: {
            "description": words[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemShape"}}},
        }
        for status in sorted({401, 403, 413, 422, 429, 503, *statuses})
    }


def to_cursor(*parts: Any) -> str:
    """A place in a list, as an opaque text."""
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def from_cursor(cursor: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """The parts of a place, each of its kind; None where none was given. Raises a 422 problem where it is no such."""
    if cursor is None:
        return None
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        parts = None
    valid = isinstance(parts, list) and [type(part) for part in parts] == list(kinds)
    if not valid or any(isinstance(part, str) and ("\0" in part or not _encodes(part)) for part in parts):
        raise problem(422, "after: expected the `next` of an earlier page", "leave it out for the first page")
    return tuple(parts)


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
