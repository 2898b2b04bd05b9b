"""Calibration: what is measured, and that it is fixed for all queries."""

from __future__ import annotations

import numpy as np
import pytest

from embedding_assets.search.calibration import QUERIES, Scale, measure, queries_for, typical_queries
from embedding_assets.search.profiles import read_query
from embedding_assets_tests.factories import random_vectors


def test_zero_is_any_image_and_one_a_good_match() -> None:
    sample = random_vectors(500, 32, seed=1)
    queries = sample[:20] * 0.8 + random_vectors(20, 32, seed=2) * 0.6
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    measured = measure(sample, queries, 9_000, kind="text")
    cosines = queries @ sample.T
    assert measured.low == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert cosines.mean() < measured.high < cosines.max()
    assert (measured.queries, measured.vectors, measured.rows) == (20, 500, 9_000)


def test_an_image_that_asks_is_no_match_of_itself_nor_are_its_twins() -> None:
    sample = random_vectors(50, 16, seed=3)
    sample[7] = sample[0]
    measured = measure(sample, sample[:5], 50, kind="image", same=[0, 1, 2, 3, 4])
    assert measured.high < 0.999


def test_a_collection_without_spread_does_not_blow_up_noise() -> None:
    sample = np.tile(random_vectors(1, 8), (10, 1))
    measured = measure(sample, random_vectors(3, 8, seed=5), 10, kind="text")
    assert Scale(measured.low, measured.high).span >= 0.02


def test_typical_queries_are_always_the_same_and_speak_of_each_aspect() -> None:
    assert typical_queries() == typical_queries()
    assert len(set(typical_queries())) == len(typical_queries())
    for aspect in ("color", "texture", "style", "material"):
        asked = queries_for(aspect)
        assert QUERIES // 2 <= len(asked) <= QUERIES
        assert all(aspect in read_query(text).aspects for text in asked)
    assert len(queries_for("visual")) == QUERIES
