"""Whether the server lives, whether it can answer, and its figures for Prometheus."""

from __future__ import annotations

import logging
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import text
from starlette.responses import Response

from embedding_assets.api.auth import Known, Reader, workspaces_of
from embedding_assets.api.problems import problem
from embedding_assets.api.shapes import problems
from embedding_assets.errors import EmbeddingAssetsError

logger = logging.getLogger(__name__)

router = APIRouter(tags=["health"])

METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"


class Health(BaseModel):
    """That it is well."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", response_model=Health)
def healthz() -> Health:
    """Whether the process answers. Asks for no key."""
    return Health()


@router.get("/readyz", response_model=Health, responses={503: problems(503)[503]})
def readyz(known: Known) -> Health:
    """Whether it can answer requests: the database is there, with the schema that this version needs. No key."""
    try:
        with known.database.transaction() as connection:
            connection.execute(text("SELECT 1 FROM jobs LIMIT 1"))
    except EmbeddingAssetsError as error:
        logger.warning("not ready: %s", error)
        raise problem(503, "the database can't be used; the server's log says why") from error
    return Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
def metrics(request: Request, who: Reader, known: Known) -> Response:
    """Figures for Prometheus: those of the key's workspaces, and how long requests and searches take."""
    found = request.app.state.metrics.render(
        known, workspaces_of(who, known), everywhere=who.workspaces is None
    )
    return Response(found, media_type=METRICS_TYPE)
