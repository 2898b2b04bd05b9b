"""What a document's page shows: how far each stage is, and what failed why."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection

from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import INGEST_ASSET, AssetStage
from embedding_assets.settings import Settings
from embedding_assets.store.browsing import DocumentSummary
from embedding_assets.store.documents import coverage_by_stage
from embedding_assets.store.failures import OpenFailure
from embedding_assets.web.bars import StageView, stage_view
from embedding_assets.web.coverage_page import about as about_document
from embedding_assets.web.labels import STAGE_LABELS, moment

RETRYING, WAITING = "retrying", "waiting"
"""What a retry came to, as the `notice` of the address that is shown then."""


@dataclass(frozen=True)
class Progress:
    """How far a document is.

    Attributes:
        total: its images.
        open: whether something is still to do.
        stamp: changes when the lists of failures and images do.
    """

    stages: tuple[StageView, ...]
    total: int
    open: bool
    stamp: str

    def as_dict(self) -> dict[str, Any]:
        """For the script that keeps the page up to date."""
        return {
            "stages": {stage.name: stage.as_dict() for stage in self.stages},
            "open": self.open,
            "stamp": self.stamp,
        }


@dataclass(frozen=True)
class FailureView:
    """A failure. `run_url` is "" where it was no Dagster run that met it."""

    image_id: uuid.UUID | None
    path: str | None
    stage_label: str
    error_class: str
    message: str
    attempts: int
    last_seen_at: datetime
    has_picture: bool
    run_url: str


def read_progress(
    connection: Connection, key: DocumentKey, stages: Sequence[AssetStage], failures: Sequence[OpenFailure]
) -> Progress:
    """Counts a registered document's images at each stage."""
    counted = coverage_by_stage(connection, key.workspace_id, stages, [key.document_id])
    rows = {name: found[0] for name, found in counted.items()}
    views = tuple(stage_view(name, coverage) for name, coverage in rows.items())
    seen = max((failure.last_seen_at for failure in failures), default=None)
    parts = [f"{row.total}.{row.embedded}.{row.skipped}.{row.rejected}" for row in rows.values()]
    return Progress(
        stages=views,
        total=max((row.total for row in rows.values()), default=0),
        open=any(row.missing or not row.ingested for row in rows.values()),
        stamp="-".join([*parts, str(len(failures)), seen.isoformat() if seen else ""]),
    )


def notice_words(notice: str, settings: Settings) -> str:
    """What a retry came to, in words; "" where nobody retried."""
    if notice == RETRYING:
        return "Trying again. What the run embeds shows here as it goes."
    if notice == WAITING:
        command = "embedding-assets --demo up" if settings.demo else "embedding-assets up"
        return f"The run waits: no daemon is there to start it. Start one with: {command}"
    return ""


def failure_view(failure: OpenFailure, settings: Settings) -> FailureView:
    """A failure as the page lists it."""
    return FailureView(
        image_id=failure.image_id,
        path=failure.path,
        stage_label=STAGE_LABELS.get(failure.stage, failure.stage),
        error_class=failure.error_class,
        message=failure.message,
        attempts=failure.attempts,
        last_seen_at=failure.last_seen_at,
        has_picture=failure.image_id is not None and failure.stage != "ingest",
        run_url=run_url(settings, failure.run_id),
    )


def about(summary: DocumentSummary) -> str:
    """What a document is, in words."""
    read = f"read {moment(summary.ingested_at)}" if summary.ingested_at else "not read yet"
    if summary.status == "failed":
        read = "could not be read"
    name = summary.key.document_id
    return " · ".join((about_document(summary), *([name] if summary.title not in (None, name) else []), read))


def dagster_url(settings: Settings, key: DocumentKey) -> str:
    """The document's partition in the Dagster UI."""
    query = urlencode({"view": "partitions", "partition": str(key)})
    return f"{settings.ui_url}/assets/{INGEST_ASSET}?{query}"


def run_url(settings: Settings, run_id: str | None) -> str:
    """A run in the Dagster UI; "" where it was not run by Dagster, whose run ids are UUIDs."""
    try:
        return f"{settings.ui_url}/runs/{uuid.UUID(run_id or '')}"
    except ValueError:
        return ""
