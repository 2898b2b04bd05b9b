"""A real HTTP server on loopback that answers as told: the part that both providers' stubs share.

    with VoyageStub() as stub:
        stub.script = [refuse(429, retry_after=7), RESET]   # for the first two requests; None: answer properly
        ...                                                 # point a client at stub.url
        stub.requests                                       # what came, with status and time

What belongs here: sockets, faults, quota, recording. What does not: a provider's protocol (`stubs`).
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What to do to one request. Make them with the functions and constants below."""

    kind: str
    status: int = 200
    words: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    value: float = 0


def refuse(
    status: int, words: str = "", *, retry_after: float | str | None = None, body: Any = None
) -> Fault:
    """An HTTP status, with an error body in the provider's form, or `body` as it is (text is sent as HTML)."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Fault("refuse", status, words, headers, body)


def envelope(body: Any) -> Fault:
    """Status 200 with a body that is no answer (an error envelope, say)."""
    return Fault("refuse", 200, body=body)


def hang(seconds: float = 60.0) -> Fault:
    """No answer for some seconds, or until the stub closes."""
    return Fault("hang", value=seconds)


def of_dimension(numbers: int) -> Fault:
    """Vectors of another dimension."""
    return Fault("dimension", value=numbers)


RESET = Fault("reset")
"""The connection is reset (RST) instead of an answer."""
TRUNCATED = Fault("truncated")
"""Half of the JSON, sent as if it were all."""
CUT_OFF = Fault("cut off")
"""The connection ends in the middle of the answer."""
ONE_MISSING = Fault("missing")
"""One result too few."""
ONE_EXTRA = Fault("extra")
"""One result too many."""
SWAPPED = Fault("swapped")
"""Results in reverse order, each with its true index."""
DOUBLE_INDEX = Fault("double index")
"""Two results with the same index."""
WITH_NAN = Fault("nan")
"""NaN in the last vector."""
ZEROS = Fault("zeros")
"""A vector of zeros."""


@dataclass(frozen=True)
class Quota:
    """What the stub allows in any sliding window, counted when a request arrives.

    `tells`: whether a refusal (429) says in Retry-After when there is room again.
    """

    requests: int
    tokens: int
    window_s: float = 60.0
    tells: bool = True


@dataclass
class Recorded:
    """One request that came. `at` is `time.monotonic()`; `tokens` what it is charged for; names of headers
    are in lower case."""

    at: float
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    tokens: int
    status: int = 0


class HttpStub:
    """Base of the stubs. A context manager; listens on a free port of 127.0.0.1.

    Attributes:
        key: the one bearer token that is taken; None takes any.
        script: one fault a request, in the order in which they arrive; None, or an empty script: none.
        always: a fault for every request that the script says nothing about.
        quota: refuses with 429 what is over it; None for none.
        latency_s: before each answer.
        requests: all that came.
    """

    def __init__(
        self, *, key: str | None = "stub-key", quota: Quota | None = None, latency_s: float = 0
    ) -> None:
        self.key = key
        self.quota = quota
        self.latency_s = latency_s
        self.always: Fault | None = None
        self.requests: list[Recorded] = []
        self._script: deque[Fault | None] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.stub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Base URL for a client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def script(self) -> list[Fault | None]:
        return list(self._script)

    @script.setter
    def script(self, faults: Iterable[Fault | None]) -> None:
        self._script = deque(faults)

    @property
    def answered(self) -> list[Recorded]:
        """Requests that were answered with success."""
        return [request for request in self.requests if request.status == 200]

    # -- for the protocols -----------------------------------------------------------------------------------
    path = ""

    def tokens_of(self, body: dict[str, Any]) -> int:
        raise NotImplementedError

    def error_body(self, status: int, words: str) -> Any:
        raise NotImplementedError

    def answer(self, body: dict[str, Any], fault: Fault | None) -> tuple[int, Any]:
        raise NotImplementedError

    # -- one request -----------------------------------------------------------------------------------------
    def _serve(self, handler: _Handler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length) or b"{}")
        with self._lock:
            request = Recorded(
                time.monotonic(),
                handler.path,
                {name.lower(): value for name, value in handler.headers.items()},
                body,
                self.tokens_of(body),
            )
            wait = self._over_quota(request)
            self.requests.append(request)
            fault = self._script.popleft() if self._script else self.always
        if self.latency_s:
            self._closing.wait(self.latency_s)
        if handler.path != f"/v1{self.path}":
            fault = refuse(404, f"no such path: {handler.path}")
        elif self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            fault = refuse(401, f"Invalid key: {request.headers.get('Authorization')}")
        elif wait is not None:
            told = {"retry_after": f"{wait:.3f}"} if self.quota and self.quota.tells else {}
            fault = refuse(429, "rate limit exceeded", **told)  # type: ignore[arg-type]
        if fault is not None and fault.kind == "hang":
            self._closing.wait(fault.value)
            fault = RESET
        if fault is not None and fault.kind == "reset":
            handler.reset()
            return
        if fault is not None and fault.kind == "refuse":
            request.status = fault.status
            answer = fault.body if fault.body is not None else self.error_body(fault.status, fault.words)
            handler.send(fault.status, answer, fault.headers)
            return
        request.status, answer = self.answer(body, fault)
        handler.send(request.status, answer, cut=fault.kind if fault else "")

    def _over_quota(self, request: Recorded) -> float | None:
        """Seconds until there is room, or None where there is."""
        if self.quota is None:
            return None
        since = request.at - self.quota.window_s
        counted = [r for r in self.requests if r.at > since and r.status != 429]
        requests, tokens = len(counted) + 1, sum(r.tokens for r in counted) + request.tokens
        for earlier in [None, *counted]:
            if earlier is not None:
                requests, tokens = requests - 1, tokens - earlier.tokens
            if requests <= self.quota.requests and tokens <= self.quota.tokens:
                break
        else:
            request.status = 429
            return self.quota.window_s
        if earlier is None:
            return None
        request.status = 429
        return earlier.at + self.quota.window_s - request.at


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    stub: HttpStub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.server.stub._serve(self)

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None, cut: str = "") -> None:
        kind = "text/html" if isinstance(body, str) else "application/json"
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        if cut == "truncated":
            data = data[: len(data) // 2]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if cut == "cut off":
            self.wfile.write(data[: len(data) // 2])
            self.reset()
            return
        self.wfile.write(data)

    def reset(self) -> None:
        """Closes the connection with RST."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        os.close(self.connection.detach())

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""
