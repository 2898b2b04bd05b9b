"""Queries become vectors, each in the space of the arm that it asks; vectors of texts are kept for the next time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from embedding_assets.encoders.aspects import AspectMethod, aspect_space
from embedding_assets.encoders.protocol import EmbeddingSpace, Encoder, Vectors
from embedding_assets.encoders.text import TextEmbedder
from embedding_assets.search.arms import TEXT_ARMS
from embedding_assets.store.spaces import Collection, check_space


class QueryEncoder:
    """Embeds queries for every arm.

    Args:
        encoder: the SLIG model, for the visual arm and the aspects.
        text_embedders: the text provider as made for each of `arms.TEXT_ARMS`.
        aspect_method: how aspects are made from visual vectors.
        cache_size: vectors of texts that are kept; the ones asked for longest ago go first.
    """

    def __init__(
        self,
        encoder: Encoder,
        text_embedders: Mapping[str, TextEmbedder],
        aspect_method: AspectMethod,
        cache_size: int = 1_000,
    ) -> None:
        self.encoder = encoder
        self.text_embedders = text_embedders
        self.aspect_method = aspect_method
        self._cache: OrderedDict[tuple[str, str], Vectors] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()

    def check(self, arm: str, collection: Collection) -> None:
        """Raises SpaceMismatch where the configured model or provider did not make the arm's vectors."""
        check_space(collection, self.space_of(arm))

    def space_of(self, arm: str) -> EmbeddingSpace:
        """The space that queries of an arm are embedded in. May load a model."""
        if arm in TEXT_ARMS:
            return self.text_embedders[arm].space
        if arm == "visual":
            return self.encoder.space
        return aspect_space(self.encoder.space, self.aspect_method, arm)

    def of_text(self, arm: str, collection: Collection, text: str) -> Vectors:
        """The vector of a text for an arm, float32, shape (dimension,), unit length.

        Raises errors of the classes of `embedding_assets.errors` where the model or provider can't embed it.
        """
        return row(self.of_texts(arm, collection, [text]), 0)

    def of_texts(self, arm: str, collection: Collection, texts: Sequence[str]) -> Vectors:
        """Vectors of texts for an arm, float32, shape (len(texts), dimension), unit rows; else like `of_text`."""
        if arm in TEXT_ARMS:
            embedder = self.text_embedders[arm]
            # A query's vector does not depend on the template of the documents' texts: both arms share it.
            return self._cached(replace(embedder.space, template=""), texts, embedder.embed_queries)
        visual = self._cached(self.encoder.space, texts, self.encoder.encode_texts)
        if arm == "visual":
            return visual
        assert collection.projection is not None
        return self.aspect_method.of_texts(collection.projection, visual)

    def of_image(self, data: bytes) -> Vectors:
        """The visual vector of an image file, float32, shape (dimension,); raises ImageRejected."""
        return row(self.encoder.encode_images([self.encoder.prepare(data)]), 0)

    def aspect_of_image(self, collection: Collection, visual: Vectors) -> Vectors:
        """An image's vector for an aspect's collection, from its visual one."""
        assert collection.projection is not None
        return row(self.aspect_method.of_images(collection.projection, visual[None]), 0)

    def _cached(
        self, space: EmbeddingSpace, texts: Sequence[str], embed: Callable[[Sequence[str]], Vectors]
    ) -> Vectors:
        vectors: dict[str, Vectors] = {}
        with self._lock:
            for text in texts:
                kept = self._kept(space.space_id, text)
                if kept is not None:
                    vectors[text] = kept
        missing = [text for text in dict.fromkeys(texts) if text not in vectors]
        if missing:
            vectors.update(zip(missing, embed(missing), strict=True))
            with self._lock:
                for text in missing:
                    self._keep(space.space_id, text, vectors[text])
        return np.stack([vectors[text] for text in texts])

    def _kept(self, space_id: str, text: str) -> Vectors | None:
        vector = self._cache.get((space_id, text))
        if vector is not None:
            self._cache.move_to_end((space_id, text))
        return vector

    def _keep(self, space_id: str, text: str, vector: Vectors) -> None:
        self._cache[space_id, text] = vector
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


def row(vectors: Vectors, number: int) -> Vectors:
    """One row, shape (dimension,)."""
    return np.asarray(vectors[number], dtype=np.float32)
