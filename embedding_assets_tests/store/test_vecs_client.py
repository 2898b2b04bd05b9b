"""The vecs client reads, queries and writes every collection that this package filled."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import vecs

from embedding_assets.encoders.protocol import Vectors
from embedding_assets.store.database import Database
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import SLIG, ensure_collection
from embedding_assets.store.vectors import write_embeddings
from embedding_assets_tests.factories import make_document, nearest, random_vectors, scalar, space

DIMENSION = 32


@pytest.fixture
def filled(database: Database) -> tuple[list[uuid.UUID], Vectors]:
    """Two documents of one workspace and one of another in every collection; ids and vectors of all."""
    ids = make_document(database, "shop/a", 30) + make_document(database, "shop/b", 10, quality_score=0.5)
    theirs = make_document(database, "rival/a", 20)
    vectors = random_vectors(60, DIMENSION)
    with database.transaction() as connection:
        collections = [ensure_collection(connection, name, space(DIMENSION)) for name in FLAGS]
        for workspace, part, values in (("shop", ids, vectors[:40]), ("rival", theirs, vectors[40:])):
            write_embeddings(
                connection, workspace, part, [(collection, values) for collection in collections], stage="all"
            )
    return ids + theirs, vectors


@pytest.fixture
def client(database: Database) -> Iterator[vecs.Client]:
    client = vecs.create_client(database.url)
    yield client
    client.disconnect()


def test_every_collection_is_listed_with_its_dimension(
    client: vecs.Client, filled: tuple[list[uuid.UUID], Vectors]
) -> None:
    assert {c.name: c.dimension for c in client.list_collections()} == dict.fromkeys(FLAGS, DIMENSION)


@pytest.mark.parametrize("name", FLAGS)
def test_every_collection_opens_and_fetches_what_was_written(
    client: vecs.Client, filled: tuple[list[uuid.UUID], Vectors], name: str
) -> None:
    ids, vectors = filled
    collection = client.get_or_create_collection(name, dimension=DIMENSION)
    assert len(collection) == len(ids)
    records = collection.fetch([str(i) for i in ids])
    found = {record[0]: record for record in records}
    assert set(found) == {str(i) for i in ids}
    for number, (image, vector) in enumerate(zip(ids, vectors, strict=True)):
        _, values, metadata = found[str(image)]
        np.testing.assert_array_equal(np.asarray(values, dtype=np.float32), vector)
        workspace, document = ("rival", "a") if number >= 40 else ("shop", "a" if number < 30 else "b")
        index = number if number < 30 else number - 30 if number < 40 else number - 40
        assert metadata == {
            "workspace_id": workspace,
            "document_id": document,
            "page_number": index // 4 + 1,
            "quality_score": 0.5 if document == "b" else None,
        }


@pytest.mark.parametrize("indexed", [False, True])
def test_queries_with_filters_find_what_our_own_search_finds(
    database: Database, client: vecs.Client, filled: tuple[list[uuid.UUID], Vectors], indexed: bool
) -> None:
    ids, vectors = filled
    collection = client.get_or_create_collection(SLIG, dimension=DIMENSION)
    if indexed:
        collection.create_index(measure=vecs.IndexMeasure.cosine_distance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vecs warns where there is no index
        alone = collection.query(vectors[3], limit=1, include_value=True, include_metadata=True)
        within = collection.query(
            vectors[3],
            limit=5,
            filters={"$and": [{"workspace_id": {"$eq": "shop"}}, {"document_id": {"$eq": "b"}}]},
            include_value=True,
        )
    assert alone[0][0] == str(ids[3])
    assert alone[0][1] == pytest.approx(0, abs=1e-6)
    assert alone[0][2]["workspace_id"] == "shop"
    expected = sorted((1 - float(vectors[n] @ vectors[3]), str(ids[n])) for n in range(30, 40))[:5]
    assert [i for i, _ in within] == [i for _, i in expected]
    with database.transaction() as connection:
        ours = ensure_collection(connection, SLIG, space(DIMENSION))
        assert nearest(connection, "shop", ours, vectors[3], 1)[0][0] == ids[3]


def test_vecs_writes_into_our_collection_and_we_over_it(
    database: Database, client: vecs.Client, filled: tuple[list[uuid.UUID], Vectors]
) -> None:
    ids, vectors = filled
    theirs = random_vectors(1, DIMENSION, seed=5)[0]
    collection = client.get_or_create_collection(SLIG, dimension=DIMENSION)
    collection.upsert([(str(ids[0]), theirs, {"workspace_id": "shop"}), ("foreign", theirs, {})])
    with database.transaction() as connection:
        ours = ensure_collection(connection, SLIG, space(DIMENSION))
        assert nearest(connection, "shop", ours, theirs, 1)[0][0] == ids[0]
        write_embeddings(connection, "shop", ids[:1], [(ours, vectors[:1])], stage="slig")
    assert collection.fetch([str(ids[0])])[0][1] == pytest.approx(vectors[0])
    collection.delete(["foreign"])
    assert len(collection) == 60


def test_a_client_that_expects_another_dimension_is_refused_by_vecs(
    client: vecs.Client, filled: tuple[list[uuid.UUID], Vectors]
) -> None:
    with pytest.raises(vecs.exc.MismatchedDimension):
        client.get_or_create_collection(SLIG, dimension=DIMENSION + 1)


def test_the_table_is_the_one_that_vecs_itself_would_make(database: Database, client: vecs.Client) -> None:
    client.get_or_create_collection("made_by_vecs", dimension=8)
    with database.transaction() as connection:
        ensure_collection(connection, SLIG, space(8))
        described = [
            scalar(
                connection,
                "SELECT json_agg((attname, format_type(atttypid, atttypmod), attnotnull, "
                "pg_get_expr(adbin, adrelid)) ORDER BY attnum)::text FROM pg_attribute "
                "LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum "
                "WHERE attrelid = CAST(:table AS regclass) AND attnum > 0",
                table=f'vecs."{table}"',
            )
            for table in (SLIG, "made_by_vecs")
        ]
    assert described[0] == described[1]
