"""What failed and why."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from embedding_assets.api.auth import Known, Reader, workspace_for
from embedding_assets.api.shapes import (
    CursorParam,
    DocumentParam,
    LimitParam,
    Page,
    WorkspaceParam,
    from_cursor,
    problems,
    to_cursor,
)
from embedding_assets.store.listing import cursor_of, page_of_failures

router = APIRouter(tags=["failures"], responses=problems(404))

StageName = Literal["ingest", "slig", "vision", "understanding", "text"]
ErrorClassName = Literal["transient", "throttled", "too_large", "permanent", "fatal"]


class FailureShape(BaseModel):
    """Why an image, or a whole document, is not done at a stage."""

    workspace_id: str
    document_id: str
    image_id: uuid.UUID | None
    index: int | None
    path: str | None
    page_number: int | None
    stage: str
    error_class: str
    error_type: str
    message: str
    attempts: int
    first_seen_at: datetime
    last_seen_at: datetime
    next_retry_at: datetime | None
    run_id: str | None


@router.get("/api/failures", response_model=Page[FailureShape])
def failures(
    who: Reader,
    known: Known,
    workspace_id: WorkspaceParam = None,
    document_id: DocumentParam = None,
    stage: Annotated[StageName | None, Query(description="Only this stage.")] = None,
    error_class: Annotated[ErrorClassName | None, Query(description="Only failures of this class.")] = None,
    limit: LimitParam = 100,
    after: CursorParam = None,
) -> dict[str, Any]:
    """Open failures of a workspace in document and page order, each with its reason."""
    workspace = workspace_for(who, known, workspace_id)
    behind = from_cursor(after, str, int, str, str)
    if behind is not None:
        behind = (*behind[:3], _uuid_or_none(behind[3]))
    with known.database.transaction() as connection:
        found = page_of_failures(
            connection,
            workspace,
            document_id=document_id,
            stage=stage,
            error_class=error_class,
            after=behind,
            limit=limit + 1,
        )
    return {
        "items": [
            {
                **{name: getattr(one, name) for name in FailureShape.model_fields if hasattr(one, name)},
                "workspace_id": one.key.workspace_id,
                "document_id": one.key.document_id,
            }
            for one in found[:limit]
        ],
        "next": to_cursor(*cursor_of(found[limit - 1])) if len(found) > limit else None,
    }


def _uuid_or_none(value: str) -> str:
    try:
        return str(uuid.UUID(value)) if value else ""
    except ValueError:
        return ""
