"""Aspect vectors: what the methods keep of a visual vector, and which embedding space that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from embedding_assets.encoders.aspects import (
    ASPECT_METHODS,
    ASPECTS,
    AspectMethod,
    BlendMethod,
    SubspaceMethod,
    aspect_method,
    aspect_space,
    aspect_words,
)
from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors
from embedding_assets.errors import PermanentError, SettingsError
from embedding_assets.store.spaces import ASPECT_COLLECTIONS
from embedding_assets_tests.factories import random_vectors, space

DIMENSION = 48


class WordPlanes:
    """A text tower in which the words of each aspect differ in six directions of their own."""

    space: EmbeddingSpace = space(DIMENSION)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        rows = []
        for text in texts:
            number = next(
                n
                for n, aspect in enumerate(ASPECTS)
                if text in {*aspect_words()[aspect].prompts(), aspect_words()[aspect].prompt}
            )
            row = np.full(DIMENSION, 0.2)
            drawn = np.random.default_rng(sum(map(ord, text))).normal(size=6)
            row[6 * number : 6 * number + 6] += drawn
            rows.append(row / np.linalg.norm(row))
        return np.asarray(rows, dtype=np.float32)


@pytest.mark.parametrize("name", ASPECT_METHODS)
@pytest.mark.parametrize("aspect", ASPECTS)
def test_vectors_keep_shape_type_and_unit_length(name: str, aspect: str) -> None:
    method = aspect_method(name)
    fitted = method.fit(WordPlanes(), aspect)
    assert fitted.dtype == np.float32
    assert fitted.shape[1] == DIMENSION
    for made in (
        method.of_images(fitted, random_vectors(5, DIMENSION)),
        method.of_texts(fitted, random_vectors(5, DIMENSION)),
    ):
        assert (made.shape, made.dtype) == ((5, DIMENSION), np.float32)
        assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)


def test_a_subspace_sees_its_own_aspect_and_not_the_others() -> None:
    method = SubspaceMethod()
    fitted = method.fit(WordPlanes(), "texture")
    vector = random_vectors(1, DIMENSION, seed=3)
    other = vector.copy()
    other[:, :6] += 0.3  # color
    other[:, 12:24] -= 0.3  # style, material
    same = vector.copy()
    same[:, 6:12] += 0.3  # texture
    before = method.of_images(fitted, vector)
    assert (before @ method.of_images(fitted, other).T).item() > 0.98
    assert (before @ method.of_images(fitted, same).T).item() < 0.9


def test_what_is_projected_twice_is_projected_once_and_a_raw_query_ranks_as_its_projection() -> None:
    method = SubspaceMethod()
    fitted = method.fit(WordPlanes(), "style")
    images = method.of_images(fitted, random_vectors(50, DIMENSION, seed=1))
    assert np.allclose(method.of_images(fitted, images), images, atol=1e-5)
    query = random_vectors(1, DIMENSION, seed=2)
    projected = method.of_texts(fitted, query)
    assert (np.argsort(images @ query[0]) == np.argsort(images @ projected[0])).all()


def test_blend_moves_images_by_the_recipe_and_leaves_texts() -> None:
    method = BlendMethod()
    prompt = method.fit(WordPlanes(), "color")
    image = random_vectors(1, DIMENSION, seed=4)
    weight = 0.7 + 0.2 * float((image @ prompt.T).item())
    expected = weight * image + (1 - weight) * prompt
    made = method.of_images(prompt, image)
    assert np.allclose(made, expected / np.linalg.norm(expected), atol=1e-6)
    assert method.of_texts(prompt, image) is image


def test_an_image_without_anything_of_the_aspect_is_an_error_of_that_image() -> None:
    fitted = np.eye(4, 8, dtype=np.float32)
    nothing = np.zeros((1, 8), dtype=np.float32)
    nothing[0, 6] = 1
    with pytest.raises(PermanentError, match="aspect 0"):
        SubspaceMethod().of_images(fitted, nothing)


@pytest.mark.parametrize("method", [SubspaceMethod(), BlendMethod()], ids=lambda m: m.name)
def test_each_aspect_and_method_has_a_space_of_its_own(method: AspectMethod) -> None:
    base = space(DIMENSION)
    spaces = {aspect_space(base, method, aspect).space_id for aspect in ASPECTS}
    assert len(spaces) == len(ASPECTS)
    assert base.space_id not in spaces
    other = SubspaceMethod() if isinstance(method, BlendMethod) else BlendMethod()
    assert not spaces & {aspect_space(base, other, aspect).space_id for aspect in ASPECTS}
    assert spaces == {aspect_space(base, method, aspect).space_id for aspect in ASPECTS}


def test_a_method_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="'pca'; expected subspace or blend"):
        aspect_method("pca")


def test_every_aspect_has_words_and_a_collection() -> None:
    assert set(aspect_words()) == set(ASPECTS) == set(ASPECT_COLLECTIONS)
    for words in aspect_words().values():
        assert len(set(words.values)) == len(words.values) >= 10
        assert all(template.count("{}") == 1 for template in words.templates)
