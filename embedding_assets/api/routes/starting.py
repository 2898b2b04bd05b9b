"""Starting jobs: posted lists, understanding, regenerating, retrying."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Response

from embedding_assets.api.auth import Admin, Known, Principal, Writer, workspace_for
from embedding_assets.api.problems import not_found
from embedding_assets.api.routes.job_shapes import (
    BackfillAnswer,
    BackfillBody,
    JobBody,
    QueueUnderstandingBody,
    RegenerateBody,
    RetryBody,
    SaveImagesAnswer,
    SaveImagesBody,
    StartedAnswer,
    job_shape,
    public_counts,
)
from embedding_assets.api.services import Services
from embedding_assets.api.shapes import (
    JobPath,
    problems,
)
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.jobs import PostedList
from embedding_assets.pipeline.requests import WorkToDo, regenerate, retry_failures, understand
from embedding_assets.store.documents import get_document

router = APIRouter(tags=["jobs"], responses=problems(400, 404, 409))


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
    workspace = _own_document(who, known, body)

    def find() -> WorkToDo:
        return understand(known.database, known.settings, workspace, document_id=body.document_id)

    return _start("understanding", find, body, workspace, who, known)


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
    workspace = _own_document(who, known, body)

    def find() -> WorkToDo:
        return regenerate(
            known.database,
            known.settings,
            workspace,
            document_id=body.document_id,
            image_ids=body.image_ids,
            force=body.force_regenerate,
        )

    return _start("regenerate", find, body, workspace, who, known)


@router.post("/api/admin/understanding-embeddings/backfill", response_model=BackfillAnswer, status_code=202)
def backfill_understanding(
    body: Annotated[BackfillBody, Body(openapi_examples={"count": {"value": {"dry_run": True}}})],
    who: Admin,
    known: Known,
) -> dict[str, Any]:
    """Vectors for analyses that have none: stopped providers leave such behind. Analyses nothing."""
    workspace = _own_document(who, known, body)

    def find() -> WorkToDo:
        return understand(
            known.database, known.settings, workspace, document_id=body.document_id, analysed_only=True
        )

    if body.dry_run:
        work = find()
        return {"counts": {**work.counts, "documents": len(work.document_ids)}, "job": None}
    return _start("backfill", find, body, workspace, who, known)


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
    workspace = _own_document(who, known, body)

    def find() -> WorkToDo:
        return retry_failures(
            known.database,
            known.settings,
            workspace,
            document_id=body.document_id,
            image_ids=body.image_ids,
            stage=body.stage,
        )

    return _start("retry", find, body, workspace, who, known)


def _own_document(who: Principal, known: Services, body: JobBody) -> str:
    """The workspace; a document that is named has to be in it."""
    workspace = workspace_for(who, known, body.workspace_id)
    if body.document_id is not None:
        key = DocumentKey(workspace, body.document_id)
        with known.database.transaction() as connection:
            if get_document(connection, key) is None:
                raise not_found("document")
    return workspace


def _start(
    kind: str,
    find: Callable[[], WorkToDo],
    body: JobBody,
    workspace: str,
    who: Principal,
    known: Services,
) -> dict[str, Any]:
    """Starts a job on what `find` finds, and says what that is."""
    progress = known.jobs.start(
        workspace,
        kind,
        find,
        job_id=body.job_id,
        asked=body.model_dump(mode="json", exclude={"job_id", "workspace_id"}),
        created_by=who.key_id,
    )
    return {"counts": public_counts(progress.row), "job": job_shape(progress, known)}
