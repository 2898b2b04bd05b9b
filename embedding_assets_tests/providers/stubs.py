"""Stand-ins for the two paid services: real HTTP servers on loopback that speak their real protocols.

`VoyageStub` is Voyage AI's embeddings endpoint, `ChatStub` an OpenAI-compatible chat endpoint with a vision
model. Faults, quota and recording: `http_stub`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from embedding_assets_tests.providers.http_stub import (
    CUT_OFF,
    DOUBLE_INDEX,
    ONE_EXTRA,
    ONE_MISSING,
    RESET,
    SWAPPED,
    TRUNCATED,
    WITH_NAN,
    ZEROS,
    Fault,
    HttpStub,
    Quota,
    Recorded,
    envelope,
    hang,
    of_dimension,
    refuse,
)

__all__ = [
    "CUT_OFF",
    "DOUBLE_INDEX",
    "ONE_EXTRA",
    "ONE_MISSING",
    "RESET",
    "SWAPPED",
    "TRUNCATED",
    "WITH_NAN",
    "ZEROS",
    "ChatStub",
    "Fault",
    "Quota",
    "Recorded",
    "VoyageStub",
    "envelope",
    "hang",
    "image_of",
    "of_dimension",
    "refuse",
    "vector_of",
    "words_of",
]


def vector_of(text: str, dimension: int, input_type: str = "document") -> np.ndarray[Any, Any]:
    """The vector that the stub gives a text: unit length, float32, the same every time; texts that share words
    are near to each other."""
    total = np.zeros(dimension)
    for word in text.lower().split() or [""]:
        seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "replace")).digest()[:8], "big")
        total += np.random.default_rng(seed).standard_normal(dimension)
    total += 0.01 * (input_type == "query")
    return np.asarray(total / np.linalg.norm(total), dtype=np.float32)


class VoyageStub(HttpStub):
    """Voyage AI's `POST /v1/embeddings`.

    Args:
        max_texts, max_tokens: of one request; more is a 400 in Voyage AI's words.
        poison: texts that contain this are refused with 400, and their whole request with them.
        count_tokens: what a text is charged for; default: its words.
    """

    path = "/embeddings"

    def __init__(
        self,
        *,
        key: str | None = "stub-key",
        quota: Quota | None = None,
        latency_s: float = 0,
        max_texts: int = 1000,
        max_tokens: int = 320_000,
        poison: str = "",
        count_tokens: Callable[[str], int] = lambda text: len(text.split()),
    ) -> None:
        super().__init__(key=key, quota=quota, latency_s=latency_s)
        self.max_texts = max_texts
        self.max_tokens = max_tokens
        self.poison = poison
        self.count_tokens = count_tokens

    @property
    def texts(self) -> list[list[str]]:
        """Texts of each request that came."""
        return [request.body["input"] for request in self.requests]

    def tokens_of(self, body: dict[str, Any]) -> int:
        return sum(self.count_tokens(text) for text in body.get("input", []))

    def error_body(self, status: int, words: str) -> Any:
        return {"detail": words or f"refused with {status}"}

    def answer(self, body: dict[str, Any], fault: Fault | None) -> tuple[int, Any]:
        texts, tokens = body["input"], self.tokens_of(body)
        if len(texts) > self.max_texts:
            return 400, {
                "detail": f"The batch size limit is {self.max_texts}. Your batch size is {len(texts)}."
            }
        if tokens > self.max_tokens:
            words = (
                f"Request to model '{body['model']}' failed. The max allowed tokens per submitted batch is "
                f"{self.max_tokens}. Your batch has {tokens} tokens after truncation. Please lower the number of "
                "tokens in the batch."
            )
            return 400, {"detail": words}
        if self.poison and any(self.poison in text for text in texts):
            return 400, {"detail": "Your request contains an input that can't be processed."}
        dimension = body.get("output_dimension") or 1024
        vectors = [vector_of(text, dimension, body.get("input_type") or "document") for text in texts]
        vectors, indices = _spoiled(vectors, fault)
        encode = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "embedding": base64.b64encode(vector.tobytes()).decode() if encode else vector.tolist(),
                "index": index,
            }
            for vector, index in zip(vectors, indices, strict=True)
        ]
        return 200, {
            "object": "list",
            "data": data,
            "model": body["model"],
            "usage": {"total_tokens": tokens},
        }


def _spoiled(
    vectors: list[np.ndarray[Any, Any]], fault: Fault | None
) -> tuple[list[np.ndarray[Any, Any]], list[int]]:
    indices = list(range(len(vectors)))
    kind = fault.kind if fault else ""
    if kind == "missing":
        return vectors[:-1], indices[:-1]
    if kind == "extra":
        return [*vectors, vectors[-1]], [*indices, len(vectors)]
    if kind == "swapped":
        return vectors[::-1], indices[::-1]
    if kind == "double index":
        return vectors, [0, *indices[:-1]]
    if kind == "nan":
        return [
            *vectors[:-1],
            np.where(np.arange(len(vectors[-1])) == 3, np.float32("nan"), vectors[-1]),
        ], indices
    if kind == "zeros":
        return [*vectors[:-1], np.zeros_like(vectors[-1])], indices
    if kind == "dimension" and fault:
        return [np.resize(vector, int(fault.value)) for vector in vectors], indices
    return vectors, indices


ANALYSIS: dict[str, Any] = {
    "material_type": "porcelain",
    "category": "tile",
    "colors": ["beige", "warm grey"],
    "primary_color_hex": "#C8B8A0",
    "textures": ["smooth"],
    "finish": "matte",
    "dimensions": "60x120 cm",
    "physical_properties": [{"name": "slip_rating", "value": "R10"}],
    "description": "A beige porcelain tile with a matte finish.",
    "confidence": 0.9,
}
"""What the stub says about an image unless told otherwise."""


class ChatStub(HttpStub):
    """`POST /v1/chat/completions` of an OpenAI-compatible endpoint.

    Args:
        content: makes the model's text from the request's body; default: `ANALYSIS` as JSON.
        models: names that are served; another is a 404. Empty: any.
        takes_format: whether `response_format` is known; else 400, as vLLM or a gateway words it.
        poison: refuses with `poison_status` each request whose body, as JSON, contains this.
        finish_reason: of every answer.
    """

    path = "/chat/completions"

    def __init__(
        self,
        *,
        key: str | None = "stub-key",
        quota: Quota | None = None,
        latency_s: float = 0,
        content: Callable[[dict[str, Any]], str] = lambda body: json.dumps(ANALYSIS),
        models: tuple[str, ...] = (),
        takes_format: bool = True,
        poison: str = "",
        poison_status: int = 400,
        finish_reason: str = "stop",
        tokens: int = 900,
    ) -> None:
        super().__init__(key=key, quota=quota, latency_s=latency_s)
        self.content = content
        self.models = models
        self.takes_format = takes_format
        self.poison = poison
        self.poison_status = poison_status
        self.finish_reason = finish_reason
        self.tokens = tokens

    def tokens_of(self, body: dict[str, Any]) -> int:
        return self.tokens

    def error_body(self, status: int, words: str) -> Any:
        return {"error": {"message": words or f"refused with {status}", "type": "error", "code": None}}

    def answer(self, body: dict[str, Any], fault: Fault | None) -> tuple[int, Any]:
        if self.models and body["model"] not in self.models:
            return 404, self.error_body(404, f"The model `{body['model']}` does not exist.")
        if not self.takes_format and "response_format" in body:
            return 400, self.error_body(400, "response_format of type json_schema is not supported")
        if self.poison and self.poison in json.dumps(body, ensure_ascii=False):
            return self.poison_status, self.error_body(self.poison_status, "the image can't be processed")
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.content(body)},
            "finish_reason": self.finish_reason,
        }
        return 200, {
            "id": "chatcmpl-stub",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [choice],
            "usage": {
                "prompt_tokens": self.tokens - 200,
                "completion_tokens": 200,
                "total_tokens": self.tokens,
            },
        }


def image_of(request: Recorded) -> bytes:
    """The JPEG in a chat request."""
    parts = request.body["messages"][-1]["content"]
    url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    return base64.b64decode(url.split(",", 1)[1])


def words_of(request: Recorded) -> str:
    """All text in a chat request."""
    texts = []
    for message in request.body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts)
