"""Documents and the coverage of a workspace."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from embedding_assets.api.auth import Known, Reader, workspace_for
from embedding_assets.api.problems import not_found
from embedding_assets.api.services import Services
from embedding_assets.api.shapes import (
    CursorParam,
    DocumentPath,
    LimitParam,
    Page,
    WorkspaceParam,
    WorkspacePath,
    from_cursor,
    problems,
    to_cursor,
)
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import stages_in_use
from embedding_assets.pipeline.workspace_coverage import incomplete_documents, read_workspace_coverage
from embedding_assets.store.browsing import ImageSummary, list_images, summarize_documents
from embedding_assets.store.documents import Coverage, coverage_by_stage
from embedding_assets.store.listing import count_vectors_by_kind, page_of_documents
from embedding_assets.store.models import FLAGS

router = APIRouter(tags=["documents"], responses=problems(404))


class StageCoverageShape(BaseModel):
    """How far a document is at one stage. images = embedded + skipped + rejected + missing."""

    images: int
    embedded: int
    skipped: int = Field(description="Left out for a stated reason.")
    rejected: int = Field(description="With a permanent failure.")
    missing: int = Field(description="Still to do.")
    coverage: float = Field(description="embedded / (images - skipped)")
    complete: bool


class DocumentShape(BaseModel):
    """A document, and how far it is at each stage."""

    key: str = Field(examples=["demo/natural-stone.pdf"])
    workspace_id: str
    document_id: str
    title: str | None
    source_kind: str
    status: str = Field(description="registered, ingested or failed")
    page_count: int | None
    ingested_at: datetime | None
    complete: bool = Field(description="Whether every stage is.")
    stages: dict[str, StageCoverageShape]


class ImageSummaryShape(BaseModel):
    """An image as a list shows it."""

    image_id: str
    index: int = Field(description="Position in its document, from 0.")
    status: str = Field(description="ready, skipped, rejected or pending")
    status_reason: str | None
    reference: str
    page_number: int | None
    caption: str | None
    width: int | None
    height: int | None
    vectors: list[str] = Field(description="Collections that hold a vector of it.")
    failed_stages: list[str] = Field(description="Stages with an open failure.")
    thumbnail: str


class DocumentDetail(DocumentShape):
    """A document with one page of its images."""

    vectors: dict[str, int] = Field(description="Images with a vector, by collection.")
    images: Page[ImageSummaryShape]


class WorkspaceCoverageShape(BaseModel):
    """Sums over a workspace's documents at one stage."""

    documents: int
    complete: int = Field(description="Documents that are complete.")
    images: int
    embedded: int
    skipped: int
    rejected: int
    missing: int
    coverage: float
    failures: dict[str, int] = Field(description="Open failures by error class.")
    images_per_hour: float | None = Field(description="Of late; null where that is not known.")
    seconds_left: float | None = Field(description="At that speed; null where nothing moves.")


class CoverageRecordShape(BaseModel):
    """What coverage was."""

    taken_at: datetime
    stage: str
    documents: int
    complete: int
    images: int
    embedded: int
    missing: int
    coverage: float


class CoverageAnswer(BaseModel):
    """Coverage of a workspace now, and what was recorded of it."""

    workspace_id: str
    stages: dict[str, WorkspaceCoverageShape]
    failures: dict[str, dict[str, int]] = Field(
        description="Open failures by stage and error class, those of ingest included."
    )
    vectors: dict[str, int] = Field(description="Images with a vector, by collection.")
    history: list[CoverageRecordShape] = Field(description="Oldest first.")


@router.get("/api/documents", response_model=Page[DocumentShape])
def documents(
    who: Reader,
    known: Known,
    workspace_id: WorkspaceParam = None,
    incomplete: Annotated[bool, Query(description="Only documents that are not complete.")] = False,
    limit: LimitParam = 100,
    after: CursorParam = None,
) -> dict[str, Any]:
    """The documents of a workspace, by id, each with its coverage."""
    workspace = workspace_for(who, known, workspace_id)
    behind = from_cursor(after, str)
    start = behind[0] if behind else None
    stages = stages_in_use(known.settings)
    with known.database.transaction() as connection:
        if incomplete:
            ids = incomplete_documents(
                connection, workspace, stages, known.settings.min_coverage, start, limit + 1
            )
        else:
            ids = page_of_documents(connection, workspace, start, limit + 1)
        items = _documents(connection, known, workspace, ids[:limit])
    more = len(ids) > limit
    return {"items": items, "next": to_cursor(ids[limit - 1]) if more else None}


@router.get("/api/documents/{workspace_id}/{document_id}", response_model=DocumentDetail)
def document(
    who: Reader,
    known: Known,
    workspace_id: WorkspacePath,
    document_id: DocumentPath,
    limit: LimitParam = 100,
    after: CursorParam = None,
) -> dict[str, Any]:
    """A document by its key: coverage, vectors, and its images in reading order, page by page."""
    workspace = workspace_for(who, known, workspace_id)
    key = DocumentKey(workspace, document_id)
    behind = from_cursor(after, int)
    start = behind[0] if behind else -1
    with known.database.transaction() as connection:
        found = _documents(connection, known, workspace, [document_id])
        if not found:
            raise not_found("document")
        images = list_images(connection, key, after=min(start, 2**31 - 1), limit=limit)
        counts = count_vectors_by_kind(connection, workspace, list(FLAGS.values()), [document_id])
    last = images[-1].index if images else None
    return {
        **found[0],
        "vectors": {name: counts[flag] for name, flag in FLAGS.items()},
        "images": {
            "items": [image_summary(image) for image in images],
            "next": to_cursor(last) if len(images) >= limit else None,
        },
    }


@router.get("/api/coverage", response_model=CoverageAnswer)
def coverage(
    who: Reader,
    known: Known,
    workspace_id: WorkspaceParam = None,
    days: Annotated[int, Query(ge=0, le=400, description="History of so many days.")] = 14,
) -> dict[str, Any]:
    """Coverage of a workspace at each stage: now, how fast it grows, and its history."""
    workspace = workspace_for(who, known, workspace_id)
    found = read_workspace_coverage(known.database, workspace, known.settings, days)
    return {
        "workspace_id": workspace,
        "stages": {
            name: {
                **stage.total.as_dict(),
                "failures": stage.failures,
                "images_per_hour": stage.images_per_hour,
                "seconds_left": None if stage.time_left is None else stage.time_left.total_seconds(),
            }
            for name, stage in found.stages.items()
        },
        "failures": found.failures,
        "vectors": found.vectors,
        "history": [
            {"taken_at": record.taken_at, "stage": record.stage, **record.total.as_dict()}
            for record in found.history
        ],
    }


def image_summary(image: ImageSummary) -> dict[str, Any]:
    """An image as lists show it."""
    return {
        "image_id": str(image.image_id),
        "index": image.index,
        "status": image.status,
        "status_reason": image.status_reason,
        "reference": image.reference,
        "page_number": image.page_number,
        "caption": image.caption,
        "width": image.width,
        "height": image.height,
        "vectors": list(image.vectors),
        "failed_stages": list(image.failed),
        "thumbnail": f"/api/images/{image.image_id}/thumbnail?workspace_id={image.key.workspace_id}",
    }


def _documents(connection: Any, known: Services, workspace: str, ids: list[str]) -> list[dict[str, Any]]:
    if not ids:
        return []
    minimum = known.settings.min_coverage
    by_stage = coverage_by_stage(connection, workspace, stages_in_use(known.settings), ids)
    rows = summarize_documents(connection, workspace, ids)
    stages: dict[str, dict[str, Coverage]] = {}
    for name, coverages in by_stage.items():
        for one in coverages:
            stages.setdefault(one.key.document_id, {})[name] = one
    return [
        {
            "key": str(rows[i].key),
            "workspace_id": workspace,
            "document_id": i,
            "title": rows[i].title,
            "source_kind": rows[i].source_kind,
            "status": rows[i].status,
            "page_count": rows[i].page_count,
            "ingested_at": rows[i].ingested_at,
            "complete": all(one.is_complete(minimum) for one in stages[i].values()),
            "stages": {name: _stage(one, minimum) for name, one in stages[i].items()},
        }
        for i in ids
        if i in rows and i in stages
    ]


def _stage(coverage: Coverage, minimum: float) -> dict[str, Any]:
    return {
        "images": coverage.total,
        "embedded": coverage.embedded,
        "skipped": coverage.skipped,
        "rejected": coverage.rejected,
        "missing": coverage.missing,
        "coverage": round(coverage.ratio, 6),
        "complete": coverage.is_complete(minimum),
    }
