"""What an encoder is to the rest of the project, and what its vectors belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
"""Float32, shape (n, dimension), every row of unit length (L2)."""

Prepared: TypeAlias = Any
"""One decoded and preprocessed image, in the encoder's own form (a tensor, or a request's bytes)."""


@dataclass(frozen=True)
class EmbeddingSpace:
    """Which vectors can be compared with which: only those of one space.

    Attributes:
        model: the model's name ("ViT-B-16-SigLIP2-512"), or a hash of its configuration where it came as files.
        weights: the weights' revision: a pretrained tag, or "sha256:..." of a file.
        preprocessing: what happens between the image's bytes and the model, in words that change when it does.
        dimension: numbers in a vector.
        template: version of the text template, for spaces of described images; "" where there is none.
        label: a short name for people; not part of the space's identity.
    """

    model: str
    weights: str
    preprocessing: str
    dimension: int
    template: str = ""
    label: str = field(default="", compare=False)

    @property
    def space_id(self) -> str:
        """16 hexadecimal digits: the first of the SHA-256 of the identifying fields as canonical JSON."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def identity(self) -> dict[str, str | int]:
        """The fields that make the space what it is."""
        return {
            "model": self.model,
            "weights": self.weights,
            "preprocessing": self.preprocessing,
            "dimension": self.dimension,
            "template": self.template,
        }

    def __str__(self) -> str:
        weights = f"{self.weights[:19]}..." if self.weights.startswith("sha256:") else self.weights
        return f"{self.label or self.model} ({weights}, {self.dimension}-D, space {self.space_id})"


class ImageEncoder(Protocol):
    """Turns images into vectors of `space`. Loads its model once, when first used."""

    @property
    def space(self) -> EmbeddingSpace:
        """The space of the vectors. May load the model; raises ModelUnavailable."""

    def prepare(self, data: bytes) -> Prepared:
        """Decodes and preprocesses one stored image. Safe to call from several threads at once.

        Raises ImageRejected where the bytes can't be decoded.
        """

    def encode_images(self, batch: Sequence[Prepared]) -> Vectors:
        """Vectors of prepared images, shape (len(batch), space.dimension), in the same order.

        Raises errors of the five classes of `embedding_assets.errors`; one call is one attempt.
        """


class TextEncoder(Protocol):
    """Turns query texts into vectors of the same space as the images'."""

    @property
    def space(self) -> EmbeddingSpace: ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, shape (len(texts), space.dimension), in the same order."""


class Encoder(ImageEncoder, TextEncoder, Protocol):
    """An encoder with both towers."""
