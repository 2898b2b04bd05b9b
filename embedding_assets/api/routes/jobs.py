"""Following jobs: one, all of a workspace, and live."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from embedding_assets.api.auth import Known, Principal, Reader, workspace_for
from embedding_assets.api.problems import Problem, ProblemError, not_found, problem_of
from embedding_assets.api.routes.job_shapes import (
    JobShape,
    JobSummaryShape,
    job_shape,
)
from embedding_assets.api.services import Services
from embedding_assets.api.shapes import (
    CursorParam,
    JobPath,
    LimitParam,
    Page,
    WorkspaceParam,
    from_cursor,
    problems,
    to_cursor,
)
from embedding_assets.pipeline.jobs import JobProgress
from embedding_assets.store.api_keys import key_is_good
from embedding_assets.store.jobs import JobRow, page_of_jobs

logger = logging.getLogger(__name__)

router = APIRouter(tags=["jobs"], responses=problems(404))

POLL_S = 1.0
"""Seconds between two looks at a job that somebody follows."""
KEEP_ALIVE_S = 15.0
MAX_STREAM_S = 3600.0
"""A stream ends after so long; browsers open it again by themselves."""
MAX_STREAMS = 64
"""Streams at once, in all."""


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


def _find(who: Principal, known: Services, workspace_id: str | None, job_id: str) -> JobProgress:
    found = known.jobs.find(workspace_for(who, known, workspace_id), job_id)
    if found is None:
        raise not_found("job")
    return found


def _summary(row: JobRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in JobSummaryShape.model_fields}
