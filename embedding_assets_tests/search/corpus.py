"""A workspace full of images with vectors in all seven collections, and query encoders whose answers are planted."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import text

from embedding_assets.encoders.aspects import ASPECTS, SubspaceMethod, aspect_space
from embedding_assets.encoders.protocol import EmbeddingSpace, Prepared, Vectors
from embedding_assets.search.arms import ARMS, COLLECTION_OF_ARM
from embedding_assets.search.engine import SearchEngine
from embedding_assets.search.queries import QueryEncoder
from embedding_assets.search.result import SearchResult
from embedding_assets.store.database import Database
from embedding_assets.store.spaces import Collection, ensure_collection
from embedding_assets.store.stages import SLIG
from embedding_assets.store.vectors import write_embeddings
from embedding_assets_tests.factories import make_document, random_vectors, space

LOOKS = 24
TEXTS = 16


def planted(text: str, dimension: int) -> Vectors:
    """The vector of a text: drawn from its hash, unit length, shape (dimension,)."""
    seed = int(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16], 16)
    return random_vectors(1, dimension, seed)[0]


@dataclass
class LooksEncoder:
    """SLIG's stand-in: texts and images are hashed, unless an answer is planted for them."""

    space: EmbeddingSpace = field(default_factory=lambda: space(LOOKS, model="looks"))
    answers: dict[str | bytes, Vectors] = field(default_factory=dict)
    failure: Exception | None = None
    asked: list[str] = field(default_factory=list)

    def prepare(self, data: bytes) -> Prepared:
        return data

    def encode_images(self, batch: Sequence[Prepared]) -> Vectors:
        return np.stack([self.answers.get(data, planted(repr(data), LOOKS)) for data in batch])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        if self.failure:
            raise self.failure
        return np.stack([self.answers.get(text, planted(text, LOOKS)) for text in texts])


@dataclass
class TextsEmbedder:
    """The text provider's stand-in."""

    template: str
    provider: str = "planted"
    failure: Exception | None = None
    asked: list[str] = field(default_factory=list)

    @property
    def space(self) -> EmbeddingSpace:
        return space(TEXTS, model="texts", template=self.template)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        if self.failure:
            raise self.failure
        return np.stack([planted(text, TEXTS) for text in texts])

    embed_documents = embed_queries

    def pack(self, texts: Sequence[str], batch_size: int) -> list[list[int]]:
        return [list(range(len(texts)))]

    def count_tokens(self, text: str) -> int:
        return len(text.split())


@dataclass
class Corpus:
    """A database to search, and the engine that searches it."""

    database: Database
    looks: LooksEncoder = field(default_factory=LooksEncoder)
    texts: dict[str, TextsEmbedder] = field(
        default_factory=lambda: {"text": TextsEmbedder("nearby"), "understanding": TextsEmbedder("analysis")}
    )
    method: SubspaceMethod = field(default_factory=SubspaceMethod)

    def engine(self, **options: Any) -> SearchEngine:
        return SearchEngine(self.database, QueryEncoder(self.looks, self.texts, self.method), **options)

    def collection(self, arm: str) -> Collection:
        """The arm's collection, made where it is missing."""
        if arm in self.texts:
            of, fitted = self.texts[arm].space, None
        elif arm == "visual":
            of, fitted = self.looks.space, None
        else:
            of = aspect_space(self.looks.space, self.method, arm)
            fitted = self.method.fit(LooksEncoder(), arm)
        with self.database.transaction() as connection:
            return ensure_collection(connection, COLLECTION_OF_ARM[arm], of, fitted)

    def fill(
        self, key: str, count: int, *, seed: int = 0, arms: Sequence[str] = ARMS, **changes: Any
    ) -> tuple[list[uuid.UUID], dict[str, Vectors]]:
        """Makes a document with images and their vectors.

        Returns:
            Image ids, and by arm their vectors, shape (count, dimension).
        """
        ids = make_document(self.database, key, count, **changes)
        visual = random_vectors(count, LOOKS, seed)
        vectors: dict[str, Vectors] = {}
        for arm in arms:
            collection = self.collection(arm)
            if arm in self.texts:
                vectors[arm] = random_vectors(count, TEXTS, seed + 1 + len(arm))
            elif arm in ASPECTS:
                assert collection.projection is not None
                vectors[arm] = self.method.of_images(collection.projection, visual)
            else:
                vectors[arm] = visual
            with self.database.transaction() as connection:
                write_embeddings(connection, key.split("/")[0], ids, [(collection, vectors[arm])], stage=SLIG)
        return ids, vectors


def arms_of(result: SearchResult) -> dict[str, str]:
    """Arm -> why it was left out."""
    return {report.arm: report.left_out for report in result.arms if report.left_out}


def found(result: SearchResult) -> list[uuid.UUID]:
    return [hit.image_id for hit in result.hits]


def only(arm: str) -> dict[str, float]:
    return {arm: 1.0}


def build_index(corpus: Corpus, arm: str, kind: str) -> None:
    collection = corpus.collection(arm)
    operand = "vec" if kind == "vector" else f"(vec::halfvec({collection.dimension}))"
    with corpus.database.transaction() as connection:
        connection.execute(
            text(f"CREATE INDEX ON {collection.qualified} USING hnsw ({operand} {kind}_cosine_ops)")
        )
