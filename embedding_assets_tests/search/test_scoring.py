"""Bounds of candidates: no image can score more than its bound, so none that is left out could be a hit."""

from __future__ import annotations

import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedding_assets.search.asking import Arm, Choice
from embedding_assets.search.scoring import fuse, shares_of, upper_bounds
from embedding_assets.store.search import ArmQuery, Near, ScoreTable
from embedding_assets.store.spaces import Collection

NAMES = ("text", "visual", "understanding")


def choice_of(weights: list[float], lengths: list[float], offsets: list[float]) -> Choice:
    arms = []
    for name, weight, length, offset in zip(NAMES, weights, lengths, offsets, strict=True):
        query = ArmQuery(
            name, Collection(name, name, "flag", 2, "space", {}), np.array([length, 0], np.float32)
        )
        arms.append(Arm(name, weight, weight, query=query, offset=offset))
    return Choice("balanced", "", arms)


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 40),
    listed=st.integers(1, 12),
    missing=st.floats(0, 0.5),
    weights=st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    lengths=st.lists(st.floats(0.5, 20), min_size=3, max_size=3),
    offsets=st.lists(st.floats(-1, 3), min_size=3, max_size=3),
)
def test_no_image_scores_more_than_its_bound(
    seed: int,
    count: int,
    listed: int,
    missing: float,
    weights: list[float],
    lengths: list[float],
    offsets: list[float],
) -> None:
    generator = np.random.default_rng(seed)
    ids = [uuid.UUID(int=n) for n in range(count)]
    cosines = generator.uniform(-1, 1, size=(count, 3))
    cosines[generator.random((count, 3)) < missing] = np.nan
    cosines[0] = 0.5  # every arm has found something
    choice = choice_of(weights, lengths, offsets)
    near = {}
    for number, name in enumerate(NAMES):
        column = cosines[:, number]
        order = [n for n in np.argsort(-column, kind="stable") if not np.isnan(column[n])][:listed]
        near[name] = Near([(ids[n], float(column[n])) for n in order], float(column[order[-1]]))
    table = ScoreTable(ids, cosines, np.zeros(count, dtype=np.int64))
    fused = fuse(table, choice, (), "convex", candidates=count).fused
    shares = shares_of(choice.asked, near)
    bounds = upper_bounds(ids, near, choice.asked, shares)
    assert (fused <= bounds + 1e-6).all()
    # What an arm tells, once it is read, may only tighten a bound as far as the score (`exact_scores_above`).
    for number, share in enumerate(shares):
        added = np.nan_to_num(share.factor * cosines[:, number] - share.offset, nan=0.0)
        bounds -= np.maximum(share.highest - added, 0.0)
    assert (fused <= bounds + 1e-6).all()
