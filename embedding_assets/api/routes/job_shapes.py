"""What jobs look like: requests that start one, and how it is told how they are going."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from embedding_assets.api.routes.failures import StageName
from embedding_assets.api.services import Services
from embedding_assets.api.shapes import (
    IdText,
    Shape,
)
from embedding_assets.pipeline.jobs import JobProgress
from embedding_assets.store.jobs import JobRow

MAX_IMAGES = 10_000
"""Images in one posted list, and ids in one request."""

ImageIds = Annotated[list[uuid.UUID], Field(min_length=1, max_length=MAX_IMAGES)]


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


class JobBody(Shape):
    """What all jobs on documents that are there take: a workspace, or one document of it."""

    workspace_id: IdText | None = None
    document_id: IdText | None = None
    job_id: IdText | None = Field(None, description="Makes the request repeatable.")


class QueueUnderstandingBody(JobBody):
    """Which images are to get understanding vectors: of a document, or of the whole workspace."""


class RegenerateBody(JobBody):
    """Which images are to be embedded: of a document, some images, or all that lack a vector."""

    image_ids: ImageIds | None = None
    force_regenerate: bool = Field(False, description="Drop the vectors that there are, and make them anew.")


class BackfillBody(JobBody):
    """Vectors for analyses that have none, in a workspace or one document of it."""

    dry_run: bool = Field(False, description="Count, and start nothing.")


class RetryBody(JobBody):
    """Which failures are to be tried again, permanent ones too: all of a workspace, or only some."""

    image_ids: ImageIds | None = None
    stage: StageName | None = None


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


def public_counts(row: JobRow) -> dict[str, int]:
    """What was found to do: the counts that are for people."""
    return {name: count for name, count in row.counts.items() if isinstance(count, int)}


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
        "counts": public_counts(row),
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
