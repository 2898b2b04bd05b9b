"""How high scores are in a collection, measured once and stored, so that scores of different arms can be added.

Cosines of different arms mean different things: 0.12 is a good match of a SigLIP text and image, 0.6 a poor one of two
texts. Each arm's cosine is therefore scaled by two fixed numbers of its collection,

    score = (cosine - low) / (high - low)

    low   the mean cosine of typical queries and images: 0 is an image like any other
    high  the typical best cosine of a query: 1 is as good as the best image of most queries

and not by the hits of the query at hand, whose shortest list would then decide (Bruch et al., arXiv 2210.11934). The
scaling is linear: it changes no order within an arm, and knows no threshold. Text and image queries have numbers of
their own, since a text and an image are farther apart than two images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np

from embedding_assets.analysis.vocabulary import load_vocabulary
from embedding_assets.encoders.protocol import Vectors
from embedding_assets.search.profiles import read_query
from embedding_assets.store.calibrations import Calibration

SAMPLE = 2_000
"""Vectors that a collection is measured on."""

QUERIES = 64
"""Queries that it is measured with."""

BEST = 3
"""A query's best cosine is the mean of its best three: one odd image does not decide."""

TYPICAL = 0.75
"""Of the queries' best cosines, the quantile that counts as a good match: some words fit nothing in a catalogue."""

_SAME = 0.9999
_MIN_RANGE = 0.02


@dataclass(frozen=True)
class Scale:
    """A calibration as fusion uses it: score = (cosine - low) / (high - low)."""

    low: float
    high: float

    @property
    def span(self) -> float:
        """high - low, never so small that noise would be blown up."""
        return max(self.high - self.low, _MIN_RANGE)


@lru_cache(maxsize=1)
def typical_queries() -> tuple[str, ...]:
    """Texts like those that people search catalogues with, made of the vocabulary; always the same."""
    vocabulary = load_vocabulary()
    colors = [value for value in vocabulary.colors if value != "any"]
    materials, patterns, finishes, styles = (
        list(vocabulary.attributes[name].values) for name in ("material", "pattern", "finish", "style")
    )
    texts: list[str] = []
    for n in range(QUERIES):
        color, material = colors[n * 7 % len(colors)], materials[n * 5 % len(materials)]
        pattern, finish = patterns[n * 3 % len(patterns)], finishes[n % len(finishes)]
        style = styles[n * 5 % len(styles)]
        texts += [
            f"{color} {pattern}",
            f"{finish} {color} {material}",
            f"{pattern} pattern in {material}",
            f"{style} style {material} in {color}",
        ]
    return tuple(islice(dict.fromkeys(texts), 4 * QUERIES))


def queries_for(arm: str) -> list[str]:
    """The typical queries for an arm; for an aspect, those that speak of it."""
    fitting = [text for text in typical_queries() if arm not in _ASPECTS or arm in read_query(text).aspects]
    step = max(1, len(fitting) // QUERIES)
    return fitting[::step][:QUERIES]


_ASPECTS = frozenset({"color", "texture", "style", "material"})


def measure(
    sample: Vectors, queries: Vectors, rows: int, *, kind: str, same: Sequence[int | None] | None = None
) -> Calibration:
    """Measures a collection.

    Args:
        sample: vectors of the collection, float32, shape (n, dimension), n >= 1, unit rows.
        queries: query vectors, shape (m, dimension), m >= 1, unit rows.
        rows: vectors in the collection.
        kind: "text" or "image".
        same: for each query its own row in `sample`, which does not count; None where it has none.
    """
    cosines = queries.astype(np.float64) @ sample.astype(np.float64).T
    counted = np.ones_like(cosines, dtype=bool)
    for number, own in enumerate(same or ()):
        if own is not None:
            counted[number, own] = False
            counted[number] &= cosines[number] < _SAME  # nor do its twins
    low = float(cosines[counted].mean()) if counted.any() else 0.0
    best = [
        np.sort(row[mask])[-BEST:].mean() for row, mask in zip(cosines, counted, strict=True) if mask.any()
    ]
    high = float(np.quantile(best, TYPICAL)) if best else 1.0
    return Calibration(kind, low, max(high, low), len(queries), len(sample), rows)
