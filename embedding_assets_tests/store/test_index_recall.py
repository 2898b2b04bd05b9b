"""Recall of an index, against the same figure by numpy."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import text

from embedding_assets.encoders.protocol import Vectors
from embedding_assets.store.database import Database
from embedding_assets.store.index_recall import Recall, measure_recall
from embedding_assets.store.indexes import VectorIndex
from embedding_assets.store.spaces import Collection
from embedding_assets_tests.factories import fill_collection, random_vectors

DIMENSION = 24


def index(database: Database, collection: Collection, kind: str, parameters: str = "") -> VectorIndex:
    found = VectorIndex("vector" if kind == "vector" else "halfvec", "i")
    expression = f"({found.operand(DIMENSION)})"
    with database.transaction() as connection:
        connection.execute(
            text(
                f"CREATE INDEX i ON {collection.qualified} USING hnsw ({expression} {kind}_cosine_ops) {parameters}"
            )
        )
    return found


def measure(
    database: Database, collection: Collection, found: VectorIndex, ef_search: int, k: int = 10
) -> Recall | None:
    with database.transaction() as connection:
        return measure_recall(connection, collection, found, k=k, queries=50, ef_search=ef_search)


def recall_by_numpy(
    database: Database, collection: Collection, found: VectorIndex, ef_search: int, k: int
) -> float:
    """The same, with truth from a matrix product over the vectors as they are stored."""
    with database.transaction() as connection:
        rows = connection.execute(
            text(f"SELECT id, CAST(vec AS float4[]) AS vec FROM {collection.qualified} ORDER BY id")
        ).all()
        vectors = np.array([row.vec for row in rows], dtype=np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        similarity = vectors[:50] @ vectors.T
        np.fill_diagonal(similarity, -2)
        place = {row.id: n for n, row in enumerate(rows)}
        connection.execute(text(f"SET LOCAL hnsw.ef_search = {ef_search}"))
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        hits = 0
        for n in range(50):
            ids = connection.execute(
                text(
                    f"SELECT id FROM {collection.qualified} ORDER BY {found.operand(DIMENSION)} <=> "
                    f"CAST(:q AS {found.type_name(DIMENSION)}) LIMIT {k + 1}"
                ),
                {"q": str(rows[n].vec)},
            ).scalars()
            got = [place[i] for i in ids if place[i] != n][:k]
            least = np.sort(similarity[n])[-k]
            hits += sum(similarity[n, other] >= least - 1e-9 for other in got)
        return hits / (50 * k)


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
@pytest.mark.parametrize("ef_search", [5, 12, 40])
def test_a_poor_index_gets_the_recall_that_it_has(database: Database, kind: str, ef_search: int) -> None:
    collection = fill_collection(database, 1500, DIMENSION)
    found = index(database, collection, kind, "WITH (m = 2, ef_construction = 4)")
    expected = recall_by_numpy(database, collection, found, ef_search, 10)
    assert 0.01 < expected < 0.97, "else this would prove nothing"
    assert measure(database, collection, found, ef_search) == Recall(pytest.approx(expected), 50)


def twins(rows: int) -> Vectors:
    """Each vector three times."""
    return np.repeat(random_vectors(rows // 3, DIMENSION), 3, axis=0)


def test_of_equally_near_neighbours_any_will_do(database: Database) -> None:
    collection = fill_collection(database, 300, DIMENSION, vectors=twins(300))
    found = index(database, collection, "vector")
    assert measure(database, collection, found, 300, k=4) == Recall(1.0, 50)


@pytest.mark.parametrize(
    ("rows", "expected"), [(2, Recall(1.0, 2)), (7, Recall(1.0, 7)), (1, None), (0, None)]
)
def test_small_collections(database: Database, rows: int, expected: Recall | None) -> None:
    collection = fill_collection(database, rows, DIMENSION)
    assert measure(database, collection, index(database, collection, "vector"), 40) == expected


def test_an_index_that_is_not_used_has_no_recall(database: Database) -> None:
    collection = fill_collection(database, 50, DIMENSION)
    index(database, collection, "vector")
    assert measure(database, collection, VectorIndex("halfvec", "i"), 40) is None


def test_settings_are_those_of_the_transaction(database: Database) -> None:
    collection = fill_collection(database, 50, DIMENSION)
    found = index(database, collection, "vector")
    measure(database, collection, found, 77)
    with database.transaction() as connection:
        left = connection.execute(
            text("SELECT current_setting('hnsw.ef_search', true), current_setting('enable_seqscan')")
        ).one()
    assert left[0] in (None, "", "40")
    assert left[1] == "on"
