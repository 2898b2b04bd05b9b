"""Logging in from a browser: a form posts a key, and a cookie that scripts can't read holds it from then on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse

from embedding_assets.api.auth import COOKIE, Known, check_same_origin, client_of
from embedding_assets.store.api_keys import find_key

router = APIRouter(include_in_schema=False)

MAX_AGE_S = 12 * 3600
"""A browser forgets the key after so long."""


def local_path(target: str) -> str:
    """Where to go after logging in: a path of this server, "/" for anything else (an open redirect, say)."""
    safe = target.startswith("/") and not target.startswith("//") and "\\" not in target
    return target if safe and target.isprintable() else "/"


@router.post("/login")
def log_in(
    request: Request,
    known: Known,
    key: Annotated[str, Form(max_length=200)],
    next: Annotated[str, Form(max_length=1000)] = "/",
) -> RedirectResponse:
    """Sets the cookie and goes on to `next`; back to the form with `?failed=1` where the key is no good."""
    check_same_origin(request, by_cookie=True)
    request.app.state.rate_limiter.count(client_of(request))
    with known.database.transaction() as connection:
        good = find_key(connection, key.strip()) is not None
    if not good:
        return RedirectResponse("/login?failed=1", status_code=303)
    answer = RedirectResponse(local_path(next), status_code=303)
    answer.set_cookie(
        COOKIE,
        key.strip(),
        max_age=MAX_AGE_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def log_out(request: Request) -> RedirectResponse:
    """Forgets the cookie."""
    check_same_origin(request, by_cookie=True)
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer
