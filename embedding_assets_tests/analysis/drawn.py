"""Drawn pictures and a small two-tower encoder that knows them: real protocol, no model."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from embedding_assets.encoders.protocol import EmbeddingSpace, Prepared, Vectors
from embedding_assets.errors import ImageRejected

DIMENSION = 8192
"""So many that unrelated words are all but orthogonal: cosines of 0.01, one unit of a logit."""


def decode(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except OSError as error:
        raise ImageRejected(str(error)) from error


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def swatch(color: str | tuple[int, int, int], text: str = "", size: int = 400) -> bytes:
    """A plain surface with dark text on it, 32 pixels high."""
    image = Image.new("RGB", (size, size), color)
    for number, line in enumerate(text.splitlines()):
        ImageDraw.Draw(image).text(
            (24, 24 + 48 * number), line, font=ImageFont.load_default(32), fill=(20, 20, 20)
        )
    return png(image)


class WordEncoder:
    """A space in which an image lies near the words that it is told to show.

    A text's vector is the mean of its words' (one random direction each, by hash); an image's vector is that of
    the text that `shows` holds for its bytes, or a direction of its own.
    """

    space = EmbeddingSpace("words", "none", "none", DIMENSION)

    def __init__(self, shows: dict[bytes, str] | None = None) -> None:
        self.shows = shows or {}
        self.text_calls = 0

    def prepare(self, data: bytes) -> Prepared:
        return data

    def encode_images(self, batch: Sequence[Prepared]) -> Vectors:
        return self._vectors([self.shows.get(data, hashlib.sha256(data).hexdigest()) for data in batch])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.text_calls += 1
        return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        rows = np.stack([np.mean([_direction(word) for word in text.split()], axis=0) for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=2048)
def _direction(word: str) -> Vectors:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
