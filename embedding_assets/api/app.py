"""`create_app`: the FastAPI application of some settings."""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from embedding_assets import __version__
from embedding_assets.api import session
from embedding_assets.api.headers import SecurityHeaders
from embedding_assets.api.problems import install_problem_handlers
from embedding_assets.api.rate_limit import RateLimiter
from embedding_assets.api.services import Services
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
    )
    app.state.settings = settings
    app.state.services = services or Services(settings)
    app.state.rate_limiter = RateLimiter(settings.api_requests_per_minute)
    install_problem_handlers(app)
    app.include_router(session.router)
    if find_spec("embedding_assets.web.routes") is not None:
        _add_web(app)
    app.add_middleware(SecurityHeaders)
    return app


def _add_web(app: FastAPI) -> None:
    """The pages for people, their static files, and how they show an error."""
    routes = import_module("embedding_assets.web.routes")
    app.include_router(routes.router)
    app.mount("/static", StaticFiles(directory=str(files("embedding_assets.web") / "static")), name="static")
    app.state.error_page = routes.error_page
