"""A real HTTP server on loopback that hands out images, and fails as told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from embedding_assets.ingest.fetch import FetchPolicy

LOOPBACK = FetchPolicy(enabled=True, allowed_hosts=("127.0.0.1",), address_allowed=lambda address: True)


class ImageServer:
    """`files` by path ("/oak.png"); `answers` are statuses still to be given for a path before its file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, list[int]] = {}
        self.retry_after: str | None = None
        self.asked: Counter[str] = Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked[self.path] += 1
                waiting = outer.answers.get(self.path)
                status = waiting.pop(0) if waiting else 200 if self.path in outer.files else 404
                body = outer.files[self.path] if status == 200 else b""
                self.send_response(status)
                if status == 429 and outer.retry_after is not None:
                    self.send_header("Retry-After", outer.retry_after)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    @contextmanager
    def running(self) -> Iterator[ImageServer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
