"""Scores of several arms become one score; nothing here knows of databases or models."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Scores: TypeAlias = NDArray[np.float64]

RRF_K = 60
"""Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009."""

CODE_SHARE = 0.7
"""Share of the text arm's score that goes by the query's codes, where it has any. This and `CODE_SCORE` were chosen on
the tuning half of the judged set (docs/search-quality.md)."""

CODE_SCORE = 2.0
"""What holding all codes counts, on the scale where 1 is the best match of a typical query: that a text holds "R10" is
certain, and an embedding hardly tells it from "R11"."""


def with_codes(text_scores: Scores | None, found: NDArray[np.int64], codes: int) -> Scores:
    """The text arm's scores where the query holds codes: mostly, the share of them that an image's texts hold.

    Args:
        text_scores: calibrated scores of the text vectors, shape (n,), NaN where there is none; None where the arm
            has no vectors to ask, and codes decide alone.
        found: shape (n,), how many of the codes each image holds.
        codes: how many the query holds, at least 1.
    """
    held = CODE_SCORE * found.astype(np.float64) / codes
    if text_scores is None:
        return held
    return (1 - CODE_SHARE) * np.nan_to_num(text_scores, nan=0.0) + CODE_SHARE * held


def convex(scores: Scores, weights: Sequence[float]) -> Scores:
    """The weighted sum of calibrated scores.

    Args:
        scores: shape (n, arms), NaN where an image has no vector in an arm: it counts there like an average image,
            which is what 0 means.
        weights: shape (arms,), summing to 1.

    Returns:
        Shape (n,).
    """
    return np.asarray(np.nan_to_num(scores, nan=0.0) @ np.asarray(weights, dtype=np.float64))


def reciprocal_ranks(scores: Scores, weights: Sequence[float], ids: Sequence[uuid.UUID]) -> Scores:
    """Weighted reciprocal rank fusion: sum of weight / (60 + rank), rank 1 for the best; no vector, no term.

    Args:
        scores: shape (n, arms), NaN where an image has no vector in an arm.
        weights: shape (arms,).
        ids: n ids, which break ties.

    Returns:
        Shape (n,).
    """
    total = np.zeros(len(ids))
    by_id = np.argsort([str(i) for i in ids], kind="stable")
    for column, weight in enumerate(weights):
        order = by_id[np.argsort(-scores[by_id, column], kind="stable")]  # NaN sorts last
        ranked = order[~np.isnan(scores[order, column])]
        total[ranked] += weight / (RRF_K + 1 + np.arange(len(ranked)))
    return total


def ranking(fused: Scores, ids: Sequence[uuid.UUID]) -> list[int]:
    """Positions from best to worst; equal scores in the order of ids."""
    return sorted(range(len(ids)), key=lambda n: (-fused[n], str(ids[n])))


def fold_duplicates(
    order: Sequence[int],
    hashes: Sequence[str],
    vectors: Sequence[NDArray[np.float32] | None],
    most_alike: float,
) -> list[tuple[int, list[int]]]:
    """Folds near-duplicates into the best-ranked of them.

    Args:
        order: positions from best to worst.
        hashes: content hash of each position.
        vectors: unit visual vector of each position; None where there is none.
        most_alike: cosine above which two images are near-duplicates.

    Returns:
        (position, positions folded into it), from best to worst.
    """
    kept: list[tuple[int, list[int]]] = []
    by_hash: dict[str, int] = {}
    known = [vector for vector in vectors if vector is not None]
    rows = np.zeros((len(order), len(known[0]) if known else 0), dtype=np.float32)
    for position in order:
        vector = vectors[position]
        twin = by_hash.get(hashes[position])
        if twin is None and vector is not None:
            alike = np.flatnonzero(rows[: len(kept)] @ vector > most_alike)
            twin = int(alike[0]) if len(alike) else None
        if twin is not None:
            kept[twin][1].append(position)
            continue
        by_hash[hashes[position]] = len(kept)
        if vector is not None:
            rows[len(kept)] = vector
        kept.append((position, []))
    return kept
