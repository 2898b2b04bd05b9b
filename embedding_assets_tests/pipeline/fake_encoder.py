"""An image encoder that needs no model: a unit vector drawn from the bytes' hash, and failures as told."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors

DIMENSION = 32


def content_of(data: bytes) -> str:
    """The SHA-256 of an image's bytes: what its vector, its counts and its faults go by."""
    return hashlib.sha256(data).hexdigest()


def vector_of(content: str, dimension: int = DIMENSION) -> Vectors:
    """The vector that the encoder gives to these bytes, shape (dimension,)."""
    vector = np.random.default_rng(int(content[:16], 16)).normal(size=dimension).astype(np.float32)
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True)
class PreparedImage:
    """What `prepare` makes: the encoder needs no pixels."""

    content: str


class FakeEncoder:
    """Implements `encoders.protocol.Encoder`.

    Attributes:
        prepare_faults, encode_faults: errors still to be raised for an image, by its content hash. Each try of
            the image uses one up; a call with several such images uses up one of each, and raises the first.
        poison: images that fail every call that they are in, by content hash.
        calls: the content hashes of each call that succeeded.
        tried: how often each image was in a call, failed ones included.
        before_encode: called with the content hashes of a call, before it is answered.
    """

    def __init__(self, dimension: int = DIMENSION, model: str = "fake-encoder") -> None:
        self._space = EmbeddingSpace(model, "none", "sha256 of the bytes", dimension)
        self.prepare_faults: dict[str, list[Exception]] = {}
        self.encode_faults: dict[str, list[Exception]] = {}
        self.poison: dict[str, Exception] = {}
        self.calls: list[list[str]] = []
        self.tried: Counter[str] = Counter()
        self.before_encode: Callable[[list[str]], None] = lambda contents: None
        self._lock = threading.Lock()

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    def prepare(self, data: bytes) -> PreparedImage:
        content = content_of(data)
        with self._lock:
            fault = _next(self.prepare_faults, content)
        if fault is not None:
            raise fault
        return PreparedImage(content)

    def encode_images(self, batch: Sequence[PreparedImage]) -> Vectors:
        contents = [image.content for image in batch]
        self.tried.update(contents)
        self.before_encode(contents)
        faults = [fault for content in contents if (fault := _next(self.encode_faults, content))]
        faults += [self.poison[content] for content in contents if content in self.poison]
        if faults:
            raise faults[0]
        self.calls.append(contents)
        return np.stack([vector_of(content, self._space.dimension) for content in contents])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """A vector drawn from each text's hash."""
        return np.stack([vector_of(content_of(text.encode()), self._space.dimension) for text in texts])

    @property
    def encoded(self) -> Counter[str]:
        """How often each image was encoded, by content hash."""
        return Counter(content for call in self.calls for content in call)


def _next(faults: dict[str, list[Exception]], content: str) -> Exception | None:
    waiting = faults.get(content)
    return waiting.pop(0) if waiting else None
