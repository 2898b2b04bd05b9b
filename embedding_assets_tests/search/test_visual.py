"""The visual arm, on real rows and vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from embedding_assets.encoders.protocol import EmbeddingSpace, Prepared, Vectors
from embedding_assets.errors import PermanentError, SpaceMismatch
from embedding_assets.search.visual import VisualSearch
from embedding_assets.store.database import Database
from embedding_assets.store.spaces import SLIG, ensure_collection
from embedding_assets.store.vectors import write_embeddings
from embedding_assets_tests.factories import make_document, random_vectors, space


class FixedEncoder:
    """Answers every query with one vector."""

    def __init__(self, answer: Vectors, of: EmbeddingSpace) -> None:
        self.answer = answer
        self.space = of

    def prepare(self, data: bytes) -> Prepared:
        return data

    def encode_images(self, batch: Sequence[Prepared]) -> Vectors:
        return np.stack([self.answer] * len(batch))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.answer] * len(texts))


def fill(database: Database, key: str, seed: int) -> tuple[list[str], Vectors]:
    ids = make_document(database, key, 12)
    vectors = random_vectors(12, 8, seed)
    with database.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space(8))
        write_embeddings(connection, key.split("/")[0], ids, [(collection, vectors)], stage="slig")
    return [str(i) for i in ids], vectors


def test_hits_are_ranked_by_cosine_and_stay_in_the_workspace(database: Database) -> None:
    ids, vectors = fill(database, "shop/a.pdf", seed=1)
    fill(database, "rival/b.pdf", seed=1)
    search = VisualSearch(database, FixedEncoder(vectors[3], space(8)))
    hits = search.by_text("shop", "anything", top_k=5)
    expected = np.argsort(-(vectors @ vectors[3]))[:5]
    assert [str(hit.image_id) for hit in hits] == [ids[n] for n in expected]
    assert hits[0].score == pytest.approx(1.0, abs=1e-6)
    assert {hit.document.workspace_id for hit in hits} == {"shop"}
    assert [hit.image_id for hit in search.by_image("shop", b"picture", top_k=5)] == [
        h.image_id for h in hits
    ]


def test_a_query_by_another_model_is_refused(database: Database) -> None:
    _, vectors = fill(database, "shop/a.pdf", seed=1)
    with pytest.raises(SpaceMismatch):
        VisualSearch(database, FixedEncoder(vectors[0], space(8, model="other"))).by_text("shop", "blue")


@pytest.mark.parametrize(
    ("text", "top_k"), [("", 5), ("  ", 5), ("x" * 10_000, 5), ("blue", 0), ("blue", 201)]
)
def test_odd_queries_get_a_clear_error(database: Database, text: str, top_k: int) -> None:
    with pytest.raises(PermanentError):
        VisualSearch(database, FixedEncoder(random_vectors(1)[0], space(8))).by_text("shop", text, top_k)


@pytest.mark.parametrize("text", ["'; DROP TABLE documents; --", "🟦🟦", "a & | ! <-> b"])
def test_strange_texts_are_searched_like_any_other(database: Database, text: str) -> None:
    _, vectors = fill(database, "shop/a.pdf", seed=1)
    assert len(VisualSearch(database, FixedEncoder(vectors[0], space(8))).by_text("shop", text)) == 10


def test_an_empty_database_has_no_hits(database: Database) -> None:
    assert VisualSearch(database, FixedEncoder(random_vectors(1)[0], space(8))).by_text("shop", "blue") == []
