"""Aspect vectors: what of an image's visual vector speaks of its colour, texture, style or material.

An aspect vector is made from the visual vector by a fixed map, so one encoding of an image gives all five. What the
map needs is fitted once, by embedding words, and then stored with the collection's space: every process uses
the very same numbers, whatever its device, and a search need not embed the words again.

What belongs here: methods, pluggable by `aspect_method`. What does not: where the fitted numbers are kept
(`store.spaces`), when they are made (`pipeline.slig`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Protocol

import numpy as np

from embedding_assets.encoders.protocol import EmbeddingSpace, TextEncoder, Vectors
from embedding_assets.encoders.slig import unit_rows
from embedding_assets.errors import SettingsError

ASPECTS = ("color", "texture", "style", "material")
"""The aspects, each with a collection of its own."""

KEPT_VARIANCE = 0.9
"""Share of the words' variance that the subspace keeps. Measured on the judged set: at 0.8 the rarer values fall
out, at 0.99 directions come in that tell nothing of the aspect (docs/search-quality.md)."""

BLEND_BASE = 0.7
BLEND_GAIN = 0.2


@dataclass(frozen=True)
class AspectWords:
    """What stands for an aspect in words.

    Attributes:
        prompt: one sentence that asks for the aspect.
        templates: sentences with one "{}" for a value.
        values: the values that the aspect can have.
    """

    prompt: str
    templates: tuple[str, ...]
    values: tuple[str, ...]

    def prompts(self) -> list[str]:
        """Each value in each template: len(values) x len(templates) texts, a value's templates side by side."""
        return [template.format(value) for value in self.values for template in self.templates]


@lru_cache(maxsize=1)
def aspect_words() -> dict[str, AspectWords]:
    """The words of each aspect. A change of `aspects.json` is a new embedding space of the aspect."""
    text = resources.files("embedding_assets.encoders").joinpath("aspects.json").read_text("utf-8")
    return {
        name: AspectWords(entry["prompt"], tuple(entry["templates"]), tuple(entry["values"]))
        for name, entry in json.loads(text).items()
    }


class AspectMethod(Protocol):
    """Turns visual vectors into vectors of an aspect."""

    @property
    def name(self) -> str:
        """The method's name, as in the setting `aspect_method`."""

    def fit(self, encoder: TextEncoder, aspect: str) -> Vectors:
        """What the map of an aspect needs, made from words only: float32, shape (rows, encoder's dimension).

        Raises what `encode_texts` raises.
        """

    def identity(self, aspect: str) -> str:
        """Words, numbers and version that the map of an aspect comes from; part of the embedding space."""

    def of_images(self, fitted: Vectors, vectors: Vectors) -> Vectors:
        """Aspect vectors of images.

        Args:
            fitted: what `fit` made.
            vectors: visual vectors, float32, shape (n, dimension), unit rows.

        Returns:
            Shape (n, dimension), unit rows.

        Raises:
            PermanentError: an image has nothing of the aspect at all (its part is zero).
        """

    def of_texts(self, fitted: Vectors, vectors: Vectors) -> Vectors:
        """Aspect vectors of query texts; otherwise like `of_images`."""


class SubspaceMethod:
    """Keeps the part of a vector in the directions along which the aspect's words differ.

    The unit vectors of each value's prompts are averaged (prompt ensembling), the mean of all values is taken off,
    and the leading right singular vectors that hold `KEPT_VARIANCE` of the variance are an orthonormal basis B of
    the aspect; an image or text x becomes normalise(B'Bx). Linear, and the dimension stays: the cosine of two
    projections is that of their coordinates in B. A raw text vector ranks the projections as its own projection would.
    """

    name = "subspace"

    def fit(self, encoder: TextEncoder, aspect: str) -> Vectors:
        words = aspect_words()[aspect]
        vectors = encoder.encode_texts(words.prompts()).astype(np.float64)
        values = vectors.reshape(len(words.values), len(words.templates), -1).mean(axis=1)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        _, sizes, directions = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
        share = np.cumsum(sizes**2) / np.sum(sizes**2)
        rank = int(np.searchsorted(share, KEPT_VARIANCE)) + 1
        return np.ascontiguousarray(directions[:rank], dtype=np.float32)

    def identity(self, aspect: str) -> str:
        words = aspect_words()[aspect]
        return f"subspace-1 {KEPT_VARIANCE} {_digest([*words.templates, *words.values])}"

    def of_images(self, fitted: Vectors, vectors: Vectors) -> Vectors:
        return unit_rows((vectors @ fitted.T) @ fitted, fitted.shape[1], "aspect")

    def of_texts(self, fitted: Vectors, vectors: Vectors) -> Vectors:
        return self.of_images(fitted, vectors)


class BlendMethod:
    """Moves an image's vector a little towards one prompt of the aspect; texts stay as they are.

    w = 0.7 + 0.2 cos(image, prompt); v = normalise(w image + (1 - w) prompt). Kept because vectors made this way
    exist: they are nearly the visual ones (mean cosine 0.96), and find an aspect hardly better than those do.
    """

    name = "blend"

    def fit(self, encoder: TextEncoder, aspect: str) -> Vectors:
        return encoder.encode_texts([aspect_words()[aspect].prompt])

    def identity(self, aspect: str) -> str:
        return f"blend-1 {BLEND_BASE} {BLEND_GAIN} {_digest([aspect_words()[aspect].prompt])}"

    def of_images(self, fitted: Vectors, vectors: Vectors) -> Vectors:
        weight = BLEND_BASE + BLEND_GAIN * (vectors @ fitted.T)
        return unit_rows(weight * vectors + (1 - weight) * fitted, fitted.shape[1], "aspect")

    def of_texts(self, fitted: Vectors, vectors: Vectors) -> Vectors:
        return vectors


ASPECT_METHODS: dict[str, Callable[[], AspectMethod]] = {"subspace": SubspaceMethod, "blend": BlendMethod}
"""Methods by the name that the setting `aspect_method` takes."""


def aspect_method(name: str) -> AspectMethod:
    """The method of a name; raises SettingsError where there is none."""
    if name not in ASPECT_METHODS:
        raise SettingsError(f"there is no aspect method {name!r}; expected {' or '.join(ASPECT_METHODS)}")
    return ASPECT_METHODS[name]()


def aspect_space(base: EmbeddingSpace, method: AspectMethod, aspect: str) -> EmbeddingSpace:
    """The space of an aspect's vectors that are made from visual vectors of `base`."""
    label = f"{base.label or base.model}, {aspect} by {method.name}"
    return replace(base, template=f"aspect {aspect}: {method.identity(aspect)}", label=label)


def _digest(words: list[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
