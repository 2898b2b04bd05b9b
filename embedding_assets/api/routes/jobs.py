"""Jobs: starting them, following them, and being told live."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from embedding_assets.api.auth import Admin, Known, Principal, Reader, Writer, workspace_for
from embedding_assets.api.problems import Problem, ProblemError, not_found, problem_of
from embedding_assets.api.routes.failures import StageName
from embedding_assets.api.services import Services
from embedding_assets.api.shapes import (
    CursorParam,
    IdText,
    JobPath,
    LimitParam,
    Page,
    Shape,
    WorkspaceParam,
    from_cursor,
    problems,
    to_cursor,
)
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.jobs import JobProgress, PostedList
from embedding_assets.pipeline.requests import regenerate, retry_failures, understand
from embedding_assets.store.api_keys import key_is_good
from embedding_assets.store.documents import get_document
from embedding_assets.store.jobs import JobRow, page_of_jobs

logger = logging.getLogger(__name__)

router = APIRouter(tags=["jobs"], responses=problems(400, 404, 409))

MAX_IMAGES = 10_000
"""Images in one posted list, and ids in one request."""
POLL_S = 1.0
"""Seconds between two looks at a job that somebody follows."""
KEEP_ALIVE_S = 15.0
MAX_STREAM_S = 3600.0
"""A stream ends after so long; browsers open it again by themselves."""
MAX_STREAMS = 64
"""Streams at once, in all."""

ImageIds = Annotated[list[uuid.UUID], Field(min_length=1, max_length=MAX_IMAGES)]


# -- shapes ------------------------------------------------------------------------------------------------------
class SaveImagesBody(Shape):
    """A document as a list of images. The list is the document: images that are no longer in it go."""

    document_id: IdText
    workspace_id: IdText | None = None
    material_images: list[dict[Annotated[str, Field(max_length=256)], Any]] = Field(
        max_length=MAX_IMAGES,
        description="Each with `path` (under the workspace's landing folder or an allowed root) or `url` (where the "
        "server fetches any), and optionally page_number, caption, bbox, quality_score; further keys are kept. A bad "
        "entry becomes a failed image and never sinks the list.",
    )
    batch_size: int | None = Field(
        None, ge=1, le=10_000, description="Images encoded and committed together."
    )
    max_retries: int | None = Field(None, ge=0, le=10, description="Tries of an image after its first.")


class QueueUnderstandingBody(Shape):
    """Which images are to get understanding vectors: of a document, or of the whole workspace."""

    workspace_id: IdText | None = None
    document_id: IdText | None = None
    job_id: IdText | None = Field(None, description="Makes the request repeatable.")


class RegenerateBody(Shape):
    """Which images are to be embedded: of a document, some images, or all that lack a vector."""

    workspace_id: IdText | None = None
    document_id: IdText | None = None
    image_ids: ImageIds | None = None
    force_regenerate: bool = Field(False, description="Drop the vectors that there are, and make them anew.")
    job_id: IdText | None = Field(None, description="Makes the request repeatable.")


class BackfillBody(Shape):
    """Vectors for analyses that have none, in a workspace or one document of it."""

    workspace_id: IdText | None = None
    document_id: IdText | None = None
    dry_run: bool = Field(False, description="Count, and start nothing.")
    job_id: IdText | None = Field(None, description="Makes the request repeatable.")


class RetryBody(Shape):
    """Which failures are to be tried again, permanent ones too: all of a workspace, or only some."""

    workspace_id: IdText | None = None
    document_id: IdText | None = None
    image_ids: ImageIds | None = None
    stage: StageName | None = None
    job_id: IdText | None = Field(None, description="Makes the request repeatable.")


class FailedImageShape(BaseModel):
    """An image of a posted list that stands without a vector or analysis for an error."""

    index: int | None
    image_id: str | None
    path: str | None
    page_number: int | None
    error: str
    error_class: str
    stage: str
    attempts: int


class StageProgressShape(BaseModel):
    """Sums over the job's documents at one stage."""

    documents: int
    complete: int
    images: int
    embedded: int
    skipped: int
    rejected: int
    missing: int
    coverage: float


class JobShape(BaseModel):
    """A job and how far it is."""

    job_id: str
    workspace_id: str
    kind: str
    mode: Literal["run", "inline"]
    state: Literal["queued", "running", "done", "failed"]
    documents: list[str] | None = Field(description="Its documents; null: the whole workspace.")
    counts: dict[str, int] = Field(description="What was found to do.")
    stages: dict[str, StageProgressShape] = Field(description="Progress, by stage.")
    vectors: dict[str, int] = Field(description="Images of its documents with a vector, by collection.")
    result: dict[str, Any] | None = Field(description="What came of it.")
    error: str | None
    run_ids: list[str] = Field(description="Dagster runs that work on it.")
    run_url: str | None = Field(description="Its page in the Dagster UI.")
    hint: str | None = Field(None, description="What to do, where nothing moves.")
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class JobSummaryShape(BaseModel):
    """A job as a list shows it: as it was when somebody last looked at it."""

    job_id: str
    workspace_id: str
    kind: str
    mode: str
    state: str
    created_at: datetime
    finished_at: datetime | None


class SaveImagesAnswer(BaseModel):
    """What came of a posted list so far; final once `job.state` is done."""

    success: bool = Field(
        description="Whether the list was accepted; images that failed are in `failed_images`."
    )
    images_saved: int = Field(description="Image rows that are new.")
    clip_embeddings_generated: int = Field(
        description="Images that have their vectors now and had none before."
    )
    failed_images: list[FailedImageShape]
    run_id: str | None = Field(description="The Dagster run; null before it is there, and inline.")
    job: JobShape


class StartedAnswer(BaseModel):
    """A job that was started, with its counts."""

    counts: dict[str, int]
    job: JobShape


class BackfillAnswer(BaseModel):
    """Counts, and the job; null with `dry_run`."""

    counts: dict[str, int]
    job: JobShape | None


# -- starting ----------------------------------------------------------------------------------------------------
@router.post(
    "/api/internal/save-images-db/{job_id}",
    response_model=SaveImagesAnswer,
    responses={202: {"model": SaveImagesAnswer, "description": "The job goes on: follow it."}},
)
def save_images(
    job_id: JobPath,
    body: Annotated[
        SaveImagesBody,
        Body(
            openapi_examples={
                "one": {
                    "value": {
                        "document_id": "posted-oak",
                        "workspace_id": "demo",
                        "material_images": [
                            {"path": "folder-of-samples/oak.png", "page_number": 1, "caption": "Oak, matte"}
                        ],
                    }
                }
            }
        ),
    ],
    response: Response,
    who: Writer,
    known: Known,
    mode: Annotated[
        Literal["run", "inline"],
        Query(description="run: by a Dagster run in the queue; inline: by this server, in this request."),
    ] = "run",
) -> dict[str, Any]:
    """Save and embed a document that is posted as a list of images.

    Repeatable: the same job id with the same list is the same job. Another list under a used id is refused (409).
    """
    workspace = workspace_for(who, known, body.workspace_id)
    posted = PostedList(
        DocumentKey(workspace, body.document_id), body.material_images, body.batch_size, body.max_retries
    )
    # Answers a little before the time limit of requests: a job that takes longer goes on.
    wait = max(0.5, known.settings.api_timeout_s - 5)
    progress = known.jobs.save_images(posted, job_id, mode=mode, created_by=who.key_id, wait_s=wait)
    if not progress.row.ended:
        response.status_code = 202
    result = progress.row.result or {}
    return {
        "success": progress.row.state != "failed",
        "images_saved": result.get("images_saved", 0),
        "clip_embeddings_generated": result.get("clip_embeddings_generated", 0),
        "failed_images": result.get("failed_images", []),
        "run_id": progress.run_ids[0] if progress.run_ids else None,
        "job": job_shape(progress, known),
    }


@router.post("/api/internal/queue-understanding-embeddings", response_model=StartedAnswer, status_code=202)
def queue_understanding(
    body: Annotated[
        QueueUnderstandingBody,
        Body(openapi_examples={"document": {"value": {"document_id": "natural-stone.pdf"}}}),
    ],
    who: Writer,
    known: Known,
) -> dict[str, Any]:
    """Queue understanding vectors: images without one are analysed where need be, and embedded."""
    workspace = _own_document(who, known, body.workspace_id, body.document_id)
    progress = known.jobs.start(
        workspace,
        "understanding",
        lambda: understand(known.database, known.settings, workspace, document_id=body.document_id),
        job_id=body.job_id,
        asked=_asked(body),
        created_by=who.key_id,
    )
    return _started(progress, known)


@router.post("/api/internal/regenerate-image-embeddings", response_model=StartedAnswer, status_code=202)
def regenerate_embeddings(
    body: Annotated[
        RegenerateBody,
        Body(
            openapi_examples={
                "missing": {"summary": "All that lack a vector", "value": {}},
                "document": {"value": {"document_id": "natural-stone.pdf", "force_regenerate": True}},
            }
        ),
    ],
    who: Writer,
    known: Known,
) -> dict[str, Any]:
    """Embed images again: of a document, some images, or all that lack a vector; understanding vectors included."""
    workspace = _own_document(who, known, body.workspace_id, body.document_id)
    progress = known.jobs.start(
        workspace,
        "regenerate",
        lambda: regenerate(
            known.database,
            known.settings,
            workspace,
            document_id=body.document_id,
            image_ids=body.image_ids,
            force=body.force_regenerate,
        ),
        job_id=body.job_id,
        asked=_asked(body),
        created_by=who.key_id,
    )
    return _started(progress, known)


@router.post("/api/admin/understanding-embeddings/backfill", response_model=BackfillAnswer, status_code=202)
def backfill_understanding(
    body: Annotated[BackfillBody, Body(openapi_examples={"count": {"value": {"dry_run": True}}})],
    who: Admin,
    known: Known,
) -> dict[str, Any]:
    """Vectors for analyses that have none: stopped providers leave such behind. Analyses nothing."""
    workspace = _own_document(who, known, body.workspace_id, body.document_id)

    def find() -> Any:
        return understand(
            known.database, known.settings, workspace, document_id=body.document_id, analysed_only=True
        )

    if body.dry_run:
        work = find()
        return {"counts": {**work.counts, "documents": len(work.document_ids)}, "job": None}
    progress = known.jobs.start(
        workspace, "backfill", find, job_id=body.job_id, asked=_asked(body), created_by=who.key_id
    )
    return _started(progress, known)


@router.post("/api/failures/retry", tags=["failures"], response_model=StartedAnswer, status_code=202)
def retry(
    body: Annotated[
        RetryBody,
        Body(
            openapi_examples={
                "all": {"summary": "All of the workspace", "value": {}},
                "document": {"value": {"document_id": "natural-stone.pdf", "stage": "slig"}},
            }
        ),
    ],
    who: Writer,
    known: Known,
) -> dict[str, Any]:
    """Try failed images again, those that failed for good too."""
    workspace = _own_document(who, known, body.workspace_id, body.document_id)
    progress = known.jobs.start(
        workspace,
        "retry",
        lambda: retry_failures(
            known.database,
            known.settings,
            workspace,
            document_id=body.document_id,
            image_ids=body.image_ids,
            stage=body.stage,
        ),
        job_id=body.job_id,
        asked=_asked(body),
        created_by=who.key_id,
    )
    return _started(progress, known)


# -- following ---------------------------------------------------------------------------------------------------
@router.get("/api/jobs", response_model=Page[JobSummaryShape])
def jobs(
    who: Reader,
    known: Known,
    workspace_id: WorkspaceParam = None,
    limit: LimitParam = 100,
    after: CursorParam = None,
) -> dict[str, Any]:
    """Jobs of a workspace, the latest first."""
    workspace = workspace_for(who, known, workspace_id)
    behind = from_cursor(after, str, str)
    with known.database.transaction() as connection:
        found = page_of_jobs(connection, workspace, (behind[0], behind[1]) if behind else None, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    return {
        "items": [_summary(row) for row in found[:limit]],
        "next": to_cursor(last.created_at.isoformat(), last.job_id) if last else None,
    }


@router.get("/api/jobs/{job_id}", response_model=JobShape)
def job(job_id: JobPath, who: Reader, known: Known, workspace_id: WorkspaceParam = None) -> dict[str, Any]:
    """A job: its state, and its progress by stage and by kind of vector."""
    return job_shape(_find(who, known, workspace_id, job_id), known)


@router.get(
    "/api/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `progress` with the job whenever it has changed, `end` when it has "
            "ended, `problem` where it can't be followed any more.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
def job_events(
    job_id: JobPath, request: Request, who: Reader, known: Known, workspace_id: WorkspaceParam = None
) -> StreamingResponse:
    """Follow a job live."""
    first = job_shape(_find(who, known, workspace_id, job_id), known)
    state = request.app.state
    if state.streams >= MAX_STREAMS:
        raise ProblemError(
            Problem(
                429,
                f"{MAX_STREAMS} jobs are being followed already",
                "ask for the job itself every few seconds",
                headers={"Retry-After": "10"},
            )
        )
    return StreamingResponse(
        _events(first, state, who, known), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def _events(shown: dict[str, Any], state: Any, who: Principal, known: Services) -> AsyncIterator[str]:
    """The stream of a job. That the key is still good is asked at every look."""
    workspace, job_id = shown["workspace_id"], shown["job_id"]
    state.streams += 1
    try:
        yield _event("progress", shown)
        started = said = time.monotonic()
        while shown["state"] not in ("done", "failed"):
            await asyncio.sleep(POLL_S)
            now = time.monotonic()
            if now - started > MAX_STREAM_S:
                return
            try:
                found = await run_in_threadpool(_look, who, known, workspace, job_id)
            except Exception as error:  # noqa: BLE001 (the answer has begun: a problem is told as an event)
                logger.warning("a stream of job %s/%s ends: %s", workspace, job_id, type(error).__name__)
                yield _event("problem", problem_of(error).as_dict())
                return
            if found != shown:
                shown, said = found, now
                yield _event("progress", shown)
            elif now - said >= KEEP_ALIVE_S:
                said = now
                yield ": nothing new\n\n"
        yield _event("end", {"state": shown["state"]})
    finally:
        state.streams -= 1


def _look(who: Principal, known: Services, workspace: str, job_id: str) -> dict[str, Any]:
    if not who.open:
        with known.database.transaction() as connection:
            if not key_is_good(connection, who.key_id):
                raise ProblemError(Problem(401, "the key was revoked"))
    found = known.jobs.find(workspace, job_id)
    if found is None:
        raise not_found("job")
    return job_shape(found, known)


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, default=str)}\n\n"


# -- inside ------------------------------------------------------------------------------------------------------
def _find(who: Principal, known: Services, workspace_id: str | None, job_id: str) -> JobProgress:
    found = known.jobs.find(workspace_for(who, known, workspace_id), job_id)
    if found is None:
        raise not_found("job")
    return found


def _own_document(who: Principal, known: Services, workspace_id: str | None, document_id: str | None) -> str:
    """The workspace; a document that is named has to be in it."""
    workspace = workspace_for(who, known, workspace_id)
    if document_id is not None:
        key = DocumentKey(workspace, document_id)
        with known.database.transaction() as connection:
            if get_document(connection, key) is None:
                raise not_found("document")
    return workspace


def _asked(body: Shape) -> dict[str, Any]:
    return body.model_dump(mode="json", exclude={"job_id", "workspace_id"})


def _started(progress: JobProgress, known: Services) -> dict[str, Any]:
    return {"counts": _counts(progress.row), "job": job_shape(progress, known)}


def _counts(row: JobRow) -> dict[str, int]:
    return {name: count for name, count in row.counts.items() if isinstance(count, int)}


def _summary(row: JobRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in JobSummaryShape.model_fields}


def job_shape(progress: JobProgress, known: Services) -> dict[str, Any]:
    """A job's members, as the API and its stream tell them."""
    row = progress.row
    url = f"{known.settings.ui_url}/runs/b/{row.backfill_id}" if row.backfill_id else None
    waits = progress.served is False
    return {
        "job_id": row.job_id,
        "workspace_id": row.workspace_id,
        "kind": row.kind,
        "mode": row.mode,
        "state": row.state,
        "documents": None if row.document_ids is None else list(row.document_ids),
        "counts": _counts(row),
        "stages": {name: total.as_dict() for name, total in progress.stages.items()},
        "vectors": progress.vectors,
        "result": row.result,
        "error": row.error,
        "run_ids": list(progress.run_ids),
        "run_url": url,
        "hint": "no Dagster daemon is running: it begins when `embedding-assets up` does" if waits else None,
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
        "finished_at": row.finished_at.isoformat() if row.finished_at else None,
    }
