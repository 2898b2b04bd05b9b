"""Errors as problem details (RFC 9457): what was expected, what came, what to do.

Every error answer of the API is `application/problem+json`. A page that a browser asked for may show the same problem
in its own way: `app.state.error_page`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedding_assets.errors import (
    EmbeddingAssetsError,
    ErrorClass,
    FatalError,
    InfrastructureError,
    ThrottledError,
)
from embedding_assets.pipeline.jobs import JobConflict

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

ErrorPage = Callable[[Request, "Problem"], Response]
"""Shows a problem as a page."""


@dataclass(frozen=True)
class Problem:
    """One error answer.

    Attributes:
        status: HTTP status.
        detail: what was expected and what came.
        hint: what to do about it; "" where there is nothing to add.
        errors: (field, message) of each field that is wrong.
        headers: of the answer.
        more: further members.
    """

    status: int
    detail: str
    hint: str = ""
    errors: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The status in words."""
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return "Error"

    def as_dict(self) -> dict[str, Any]:
        """Members of RFC 9457, and our own `hint` and `errors`."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.hint:
            members["hint"] = self.hint
        if self.errors:
            members["errors"] = [{"field": name, "message": message} for name, message in self.errors]
        return {**members, **self.more}

    def response(self) -> Response:
        """The answer."""
        return JSONResponse(
            self.as_dict(), status_code=self.status, headers=dict(self.headers), media_type=MEDIA_TYPE
        )


class ProblemError(Exception):
    """Raised by routes and dependencies to answer with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def problem(status: int, detail: str, hint: str = "", **more: Any) -> ProblemError:
    """An error to raise: `raise problem(404, "there is no such image")`."""
    return ProblemError(Problem(status, detail, hint, more=more))


def not_found(what: str) -> ProblemError:
    """The one answer to what is not there and to what the key may not see: they can't be told apart."""
    return problem(404, f"there is no such {what}, or this key may not see it")


def problem_of(error: Exception) -> Problem:
    """The problem that stands for an error of the domain packages.

    What the request is to blame for is 422; a database or provider that is gone is 503; a person has to mend the rest.
    """
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, DataError):
        return Problem(422, "a value is out of the range that the database holds")
    if not isinstance(error, EmbeddingAssetsError):
        return Problem(500, "the server met an error of its own", "its log has the trace")
    hint = error.hint or ""
    if isinstance(error, ThrottledError):
        wait = max(1, round(error.retry_after or 1))
        return Problem(503, error.message, hint, headers={"Retry-After": str(wait)})
    if isinstance(error, InfrastructureError) or error.error_class is ErrorClass.TRANSIENT:
        return Problem(503, error.message, hint, headers={"Retry-After": "5"})
    if isinstance(error, JobConflict):
        return Problem(409, error.message, hint)
    if isinstance(error, FatalError):
        return Problem(500, error.message, hint)
    return Problem(422, error.message, hint)


def _of_http(error: HTTPException) -> Problem:
    if error.status_code == 400 and isinstance(error.__cause__, UnicodeDecodeError):
        return Problem(400, "the body is no text: expected JSON in UTF-8")
    return Problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))


def _of_validation(error: RequestValidationError) -> Problem:
    """What pydantic found, without the values that came: they may hold a key or an image."""
    errors = []
    for item in error.errors():
        place, *names = [str(part) for part in item["loc"]]
        name = ".".join(names) or place
        errors.append((name, str(item["msg"]).removeprefix("Value error, ")))
    return Problem(
        422, "the request is not as expected: " + "; ".join(f"{n}: {m}" for n, m in errors[:5]), errors=errors
    )


class LastResort:
    """Makes a problem of what no handler knows, inside of the other middleware, so that headers are set on it too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise
            logger.error("%s %s: %s", scope["method"], scope["path"], type(error).__name__, exc_info=error)
            await problem_of(error).response()(scope, receive, send)


def install_problem_handlers(app: FastAPI) -> None:
    """Makes every error of the app a problem."""

    def answer(request: Request, found: Problem) -> Response:
        page: ErrorPage | None = getattr(app.state, "error_page", None)
        wants_page = "text/html" in request.headers.get("accept", "")
        if page is not None and wants_page and not request.url.path.startswith("/api/"):
            return page(request, found)
        return found.response()

    async def on_problem(request: Request, error: Exception) -> Response:
        found = problem_of(error)
        if found.status >= 500:
            logger.error("%s %s: %s", request.method, request.url.path, found.detail, exc_info=error)
        return answer(request, found)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(request, _of_http(error))

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(request, _of_validation(error))

    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(EmbeddingAssetsError, on_problem)
    app.add_exception_handler(DataError, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
