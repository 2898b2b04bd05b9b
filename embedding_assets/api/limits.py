"""How large a request may be, and how long it may take."""

from __future__ import annotations

import asyncio
import logging
import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedding_assets.api.problems import Problem

logger = logging.getLogger(__name__)

_STREAMS = re.compile(r"/api/jobs/[^/]+/events")
"""What goes on for as long as somebody listens; it has a limit of its own."""


class RequestLimits:
    """Refuses bodies that are too large (413), and answers for routes that take too long (503).

    A body is counted as it comes in, whatever its header says. Work that was begun in a thread can't be broken off: it
    ends by itself, by the statement timeout or by being done, and its answer is dropped.

    Args:
        app: what answers.
        max_bytes: of a body.
        timeout_s: seconds from the request's head to the beginning of the answer and to its end.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > self.max_bytes:
            await self._too_large().response()(scope, receive, send)
            return
        limited = self._counted(receive)
        if _STREAMS.fullmatch(scope["path"]):
            await self.app(scope, limited, send)
            return
        await self._timed(scope, limited, send)

    def _counted(self, receive: Receive) -> Receive:
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.max_bytes:
                raise HTTPException(413, self._too_large().detail)
            return message

        return counted

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"the request is larger than the {self.max_bytes} bytes that are allowed",
            "send less at once; the setting api_max_body_mb says how much",
        )

    async def _timed(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = over = False

        async def passed_on(message: Message) -> None:
            nonlocal started
            if over:
                return
            started = True
            await send(message)

        task = asyncio.ensure_future(self.app(scope, receive, passed_on))
        try:
            await asyncio.wait({task}, timeout=self.timeout_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            task.result()
            return
        over = True
        task.cancel()
        task.add_done_callback(_note_end)
        logger.warning("%s %s took longer than %g s", scope["method"], scope["path"], self.timeout_s)
        if not started:
            slow = Problem(
                503,
                f"the request took longer than {self.timeout_s:g} s",
                "ask for less at once, or raise the setting api_timeout_s",
                headers={"Retry-After": "10"},
            )
            await slow.response()(scope, receive, send)


def _note_end(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("a request that took too long failed in the end: %s", type(error).__name__)
