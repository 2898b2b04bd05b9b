"""A webhook's receiver on loopback: takes any JSON."""

from __future__ import annotations

from typing import Any

from embedding_assets_tests.providers.http_stub import Fault, HttpStub


class WebhookStub(HttpStub):
    """Answers 200 to every POST; `requests` holds the bodies."""

    def __init__(self) -> None:
        super().__init__(key=None)

    def tokens_of(self, body: dict[str, Any]) -> int:
        return 0

    def error_body(self, status: int, words: str) -> Any:
        return {"error": words}

    def answer(self, body: dict[str, Any], fault: Fault | None) -> tuple[int, Any]:
        return 200, {"ok": True}
