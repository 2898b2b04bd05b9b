"""`create_app`: the FastAPI application of some settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from embedding_assets import __version__
from embedding_assets.api import session
from embedding_assets.api.headers import SecurityHeaders
from embedding_assets.api.limits import RequestLimits
from embedding_assets.api.metrics import MeasureRequests, Metrics
from embedding_assets.api.problems import LastResort, install_problem_handlers
from embedding_assets.api.rate_limit import RateLimiter
from embedding_assets.api.routes import documents, failures, health, images, jobs, search, starting
from embedding_assets.api.services import Services
from embedding_assets.api.shapes import FieldError, ProblemShape
from embedding_assets.settings import Settings

DESCRIPTION = """\
Search a catalogue's images, bring documents in, watch them being embedded, deal with failures.

Keys come as `Authorization: Bearer <key>`. Errors are problem details (RFC 9457). Lists are read page by page: send the
`next` of one page as `after` of the next.
"""


def create_app(settings: Settings, *, services: Services | None = None) -> FastAPI:
    """The application. Loads no model, and opens no database before the first request.

    Args:
        settings: all of them.
        services: parts made elsewhere, in place of those of the settings.
    """
    app = FastAPI(
        title="embedding-assets",
        version=__version__,
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its scripts come from elsewhere
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.services = services or Services(settings)
    app.state.rate_limiter = RateLimiter(settings.api_requests_per_minute)
    app.state.metrics = Metrics()
    app.state.streams = 0
    install_problem_handlers(app)
    for routes in (search, documents, images, failures, starting, jobs, health, session):
        app.include_router(routes.router)
    _add_web(app)
    _complete_document(app)
    # The last one added is the outermost.
    app.add_middleware(LastResort)
    app.add_middleware(RequestLimits, settings.api_max_body_mb * 2**20, settings.api_timeout_s)
    app.add_middleware(MeasureRequests, app.state.metrics)
    app.add_middleware(SecurityHeaders)
    return app


def _complete_document(app: FastAPI) -> None:
    """Adds to the OpenAPI document the shapes that routes name by reference only."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = made()["components"]["schemas"]
            for shape in (ProblemShape, FieldError, search.SearchBody):
                schemas[shape.__name__] = shape.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas[shape.__name__].pop("$defs", None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to extend it


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await run_in_threadpool(app.state.services.close)


def _add_web(app: FastAPI) -> None:
    """The pages for people, their static files, and how they show an error."""
    from embedding_assets.web.routes import error_page, router  # which import the API's own modules

    app.include_router(router)
    app.mount("/static", StaticFiles(directory=str(files("embedding_assets.web") / "static")), name="static")
    app.state.error_page = error_page
