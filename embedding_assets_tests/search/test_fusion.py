"""Adding up scores: by hand on small numbers, and what has to hold for any."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedding_assets.search import fusion

NAN = float("nan")


def ids(count: int) -> list[uuid.UUID]:
    return [uuid.UUID(int=n) for n in range(count)]


def test_a_missing_vector_counts_as_an_average_image_not_as_the_worst() -> None:
    scores = np.array([[0.5, NAN], [0.5, -0.4], [0.5, 0.4]])
    assert fusion.convex(scores, [0.5, 0.5]) == pytest.approx([0.25, 0.05, 0.45])


def test_reciprocal_ranks_are_those_of_the_paper_and_leave_out_what_is_missing() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [NAN, 0.3]])
    expected = [0.6 / 61 + 0.4 / 63, 0.6 / 62 + 0.4 / 62, 0.4 / 61]
    assert fusion.reciprocal_ranks(scores, [0.6, 0.4], ids(3)) == pytest.approx(expected)


def test_ties_are_broken_by_id() -> None:
    given_ids = [uuid.UUID(int=n) for n in (3, 1, 2)]
    assert fusion.ranking(np.array([0.5, 0.5, 0.5]), given_ids) == [1, 2, 0]
    ranks = fusion.reciprocal_ranks(np.full((3, 1), 0.5), [1.0], given_ids)
    assert list(np.argsort(-ranks)) == [1, 2, 0]


def test_codes_count_most_of_the_text_arm_and_all_of_it_without_vectors() -> None:
    found = np.array([2, 1, 0])
    vectors = np.array([0.0, 1.0, 1.0])
    with_vectors = fusion.with_codes(vectors, found, 2)
    assert with_vectors == pytest.approx([1.4, 0.3 + 0.7, 0.3])
    assert fusion.with_codes(None, found, 2) == pytest.approx([2, 1, 0])
    assert fusion.with_codes(np.array([NAN]), np.array([0]), 2) == pytest.approx([0])


def test_near_duplicates_are_folded_into_the_best_of_them() -> None:
    vectors = [
        np.array([1, 0], np.float32),
        np.array([0, 1], np.float32),
        np.array([0.9999, 0.01], np.float32),
        None,
    ]
    folded = fusion.fold_duplicates([2, 1, 0, 3], ["a", "b", "c", "b"], vectors, 0.98)
    assert folded == [(2, [0]), (1, [3])]


@given(
    arrays(np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=st.floats(-2, 2)),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    st.floats(-1, 1),
)
def test_an_arm_that_tells_nothing_apart_changes_no_order(
    scores: np.ndarray, weights: list[float], constant: float
) -> None:
    total = sum(weights)
    shares = [weight / total for weight in weights]
    flat = scores.copy()
    flat[:, 2] = constant
    fused = fusion.convex(flat, shares)
    expected = flat[:, :2] @ np.array(shares[:2])
    order = fusion.ranking(np.round(fused, 9), ids(len(scores)))
    assert order == fusion.ranking(np.round(expected + constant * shares[2], 9), ids(len(scores)))
