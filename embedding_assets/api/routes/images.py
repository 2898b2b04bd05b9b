"""One image: its row, its analysis, its texts, a small picture."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field, ValidationError
from starlette.responses import Response

from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.analysis.to_text import analysis_to_text
from embedding_assets.api.auth import Known, Principal, Reader, workspace_for
from embedding_assets.api.problems import not_found, problem
from embedding_assets.api.routes.documents import ImageSummaryShape, image_summary
from embedding_assets.api.services import Services
from embedding_assets.api.shapes import WorkspaceParam, problems
from embedding_assets.errors import PermanentError
from embedding_assets.ingest.thumbnail import FORMAT, SIDES, side_for
from embedding_assets.store.browsing import ImageDetail, get_image

logger = logging.getLogger(__name__)

router = APIRouter(tags=["images"], responses=problems(404))


class ImageShape(ImageSummaryShape):
    """All that is known of an image."""

    workspace_id: str
    document_id: str
    image_format: str | None
    byte_size: int | None
    quality_score: float | None
    nearby_text: str | None = Field(description="The document's text around it.")
    analysis: dict[str, Any] | None = Field(description="What it shows, as it was analysed.")
    analysis_text: str | None = Field(description="The text made of that, which is embedded.")
    analyzed_by: str | None = Field(description="provider and model")
    analyzed_at: datetime | None
    left_out: dict[str, str] = Field(description="Stage -> why the image is left out there.")


@router.get("/api/images/{image_id}", response_model=ImageShape)
def image(
    image_id: uuid.UUID, who: Reader, known: Known, workspace_id: WorkspaceParam = None
) -> dict[str, Any]:
    """One image: row, analysis, texts, and which vectors it has."""
    found = _find(who, known, workspace_id, image_id)
    by = [part for part in (found.vision_provider, found.vision_model) if part]
    return {
        **image_summary(found.summary),
        "workspace_id": found.summary.key.workspace_id,
        "document_id": found.summary.key.document_id,
        "image_format": found.image_format,
        "byte_size": found.byte_size,
        "quality_score": found.quality_score,
        "nearby_text": found.nearby_text,
        "analysis": found.vision_analysis,
        "analysis_text": _text_of(found.vision_analysis),
        "analyzed_by": " ".join(by) or None,
        "analyzed_at": found.vision_analyzed_at,
        "left_out": found.stage_skips,
    }


@router.get(
    "/api/images/{image_id}/thumbnail",
    response_class=Response,
    responses={
        200: {
            "content": {FORMAT: {"schema": {"type": "string", "format": "binary"}}},
            "description": "A JPEG.",
        },
        304: {"description": "The picture that the browser has is still the one."},
    },
)
def thumbnail(
    image_id: uuid.UUID,
    request: Request,
    who: Reader,
    known: Known,
    workspace_id: WorkspaceParam = None,
    side: Annotated[
        int,
        Query(ge=1, le=SIDES[-1], description=f"Pixels of the longer side, rounded up to one of {SIDES}."),
    ] = 256,
) -> Response:
    """A small JPEG of the image. Ask again with `If-None-Match`: who may see it is checked each time."""
    found = _find(who, known, workspace_id, image_id)
    if found.store_key is None:
        reason = found.summary.status_reason or found.summary.status
        raise problem(404, f"there is no picture of this image: {reason}")
    digest, pixels = found.store_key.rpartition("/")[2].partition(".")[0], side_for(side)
    headers = {
        "ETag": f'"{digest[:32]}-{pixels}"',
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization, Cookie",
    }
    known_tags = {
        tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
    }
    if headers["ETag"] in known_tags:
        return Response(status_code=304, headers=headers)
    store_key = found.store_key
    try:
        made = known.thumbnails.get(
            digest, pixels, known.settings.max_image_pixels, lambda: known.image_store.get(store_key)
        )
    except PermanentError as error:
        logger.warning("no thumbnail of image %s: %s", image_id, error)
        raise problem(
            404, "the picture of this image is not in the image store", "ingest its document again"
        ) from error
    return Response(made, media_type=FORMAT, headers=headers)


def _find(who: Principal, known: Services, workspace_id: str | None, image_id: uuid.UUID) -> ImageDetail:
    workspace = workspace_for(who, known, workspace_id)
    with known.database.transaction() as connection:
        found = get_image(connection, workspace, image_id)
    if found is None:
        raise not_found("image")
    return found


def _text_of(analysis: dict[str, Any] | None) -> str | None:
    if analysis is None:
        return None
    try:
        return analysis_to_text(VisionAnalysis.model_validate(analysis)) or None
    except ValidationError:  # of an older schema: the next run of the stage replaces it
        return None
