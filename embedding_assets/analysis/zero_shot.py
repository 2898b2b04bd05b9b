"""Zero-shot classification: the value whose prompts lie nearest to the image in the encoder's space."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedding_assets.analysis.vocabulary import Vocabulary
from embedding_assets.encoders.protocol import TextEncoder, Vectors

TEMPERATURE = 0.01
"""Softmax temperature for cosines: logit scale 100, at which CLIP's training clips (Radford et al. 2021, 2.5);
SigLIP2 base ends near 112, so its probabilities here are a little flatter than its own."""


@dataclass(frozen=True)
class Guess:
    """The nearest value of an attribute.

    Attributes:
        value: its name in the vocabulary.
        probability: softmax share among the attribute's values, 0..1. Not calibrated: values that the vocabulary
            does not have share nothing, so one of those it has always wins.
        margin: by how much it leads the second, 0..1.
    """

    value: str
    probability: float
    margin: float


class ZeroShotClassifier:
    """Classifies image vectors over a vocabulary. The prompts are embedded once, when first needed.

    Args:
        encoder: the text tower of the space in which the image vectors lie.
        vocabulary: attributes with their prompts. A value's prototype is the mean of its prompts' unit vectors,
            scaled to unit length (prompt ensembling, Radford et al. 2021, 3.1.4).
        temperature: of the softmax over cosines.
    """

    def __init__(
        self, encoder: TextEncoder, vocabulary: Vocabulary, temperature: float = TEMPERATURE
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be more than 0, got {temperature}")
        self._encoder = encoder
        self._vocabulary = vocabulary
        self._temperature = temperature
        self._prototypes: dict[str, Vectors] | None = None
        self._lock = threading.Lock()

    def classify(self, vectors: Vectors) -> list[dict[str, Guess]]:
        """For each image its guess by attribute name.

        Args:
            vectors: float32, shape (n, dimension), unit rows of the encoder's space.

        Raises:
            What `encode_texts` raises, on the first call.
        """
        prototypes = self._loaded()
        results: list[dict[str, Guess]] = [{} for _ in range(len(vectors))]
        for name, rows in prototypes.items():
            values = list(self._vocabulary.attributes[name].values)
            logits = (vectors.astype(np.float64) @ rows.T.astype(np.float64)) / self._temperature
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            for result, row in zip(results, shares, strict=True):
                first, second = np.argsort(-row, kind="stable")[:2]
                result[name] = Guess(values[first], float(row[first]), float(row[first] - row[second]))
        return results

    def _loaded(self) -> dict[str, Vectors]:
        with self._lock:
            if self._prototypes is None:
                attributes = self._vocabulary.attributes
                prompts = [
                    prompt
                    for attribute in attributes.values()
                    for value in attribute.values
                    for prompt in attribute.prompts(value)
                ]
                vectors = iter(self._encoder.encode_texts(prompts))
                self._prototypes = {
                    name: np.stack(
                        [_mean([next(vectors) for _ in attribute.templates]) for _ in attribute.values]
                    )
                    for name, attribute in attributes.items()
                }
            return self._prototypes


def _mean(vectors: Sequence[Vectors]) -> Vectors:
    mean = np.mean(vectors, axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)
