"""Vectors, flags and failure records: written together or not at all, and counted from the rows."""

from __future__ import annotations

import struct
import threading
import uuid
from collections.abc import Sequence

import numpy as np
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError

from embedding_assets.encoders.protocol import Vectors
from embedding_assets.errors import ErrorClass, SpaceMismatch, StoreUnavailable
from embedding_assets.keys import DocumentKey
from embedding_assets.store.database import Database
from embedding_assets.store.failures import Failure, record_failures
from embedding_assets.store.images import remove_images_not_in
from embedding_assets.store.spaces import SLIG, Collection, ensure_collection
from embedding_assets.store.vectors import (
    WriteCounts,
    copy_known_vectors,
    encode_copy,
    refresh_metadata,
    write_embeddings,
)
from embedding_assets_tests.factories import make_document, nearest, random_vectors, scalar, space

COLOR = "image_color_embeddings"


@pytest.fixture
def slig(database: Database) -> Collection:
    with database.transaction() as connection:
        return ensure_collection(connection, SLIG, space(8))


@pytest.fixture
def color(database: Database) -> Collection:
    with database.transaction() as connection:
        return ensure_collection(connection, COLOR, space(4))


def stored(connection: Connection, collection: Collection) -> dict[uuid.UUID, list[float]]:
    rows = connection.execute(text(f"SELECT id, vec::real[] AS vec FROM {collection.qualified}"))
    return {uuid.UUID(row.id): np.array(row.vec, dtype=np.float32).tolist() for row in rows}


def flagged(connection: Connection, collection: Collection) -> set[uuid.UUID]:
    return set(connection.execute(text(f"SELECT id FROM document_images WHERE {collection.flag}")).scalars())


def fail(connection: Connection, key: str, ids: Sequence[uuid.UUID], stage: str = "slig") -> None:
    record_failures(
        connection,
        [
            Failure(DocumentKey.parse(key), i, stage, ErrorClass.TRANSIENT, "TimeoutError", "late", 4)
            for i in ids
        ],
    )


def write(
    database: Database,
    collection: Collection,
    ids: Sequence[uuid.UUID],
    vectors: Vectors,
    workspace: str = "shop",
) -> WriteCounts:
    with database.transaction() as connection:
        return write_embeddings(connection, workspace, ids, [(collection, vectors)], stage="slig")


def test_a_write_stores_vectors_sets_flags_and_closes_failures(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 5)
    vectors = random_vectors(5)
    with database.transaction() as connection:
        fail(connection, "shop/doc", ids[:2])
    assert write(database, slig, ids, vectors) == WriteCounts(vectors=5, images=5, resolved=2)
    with database.transaction() as connection:
        found = stored(connection, slig)
        assert flagged(connection, slig) == set(ids)
        assert scalar(connection, "SELECT count(*) FROM embedding_failures WHERE resolved_at IS NULL") == 0
    assert [found[i] for i in ids] == vectors.tolist()


def test_metadata_says_where_a_vector_belongs(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 1, page_number=7, quality_score=0.25)
    write(database, slig, ids, random_vectors(1))
    with database.transaction() as connection:
        assert scalar(connection, f"SELECT metadata FROM {slig.qualified}") == {
            "workspace_id": "shop",
            "document_id": "doc",
            "page_number": 7,
            "quality_score": 0.25,
        }


def test_other_flags_and_failures_of_other_stages_stay(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 2)
    with database.transaction() as connection:
        fail(connection, "shop/doc", ids, stage="understanding")
    assert write(database, slig, ids, random_vectors(2)).resolved == 0
    with database.transaction() as connection:
        assert scalar(connection, "SELECT count(*) FROM document_images WHERE has_color_slig") == 0


def test_a_second_write_of_the_same_images_counts_none_as_new(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 4)
    write(database, slig, ids[:3], random_vectors(3))
    second = random_vectors(4, seed=1)
    assert write(database, slig, ids, second) == WriteCounts(vectors=4, images=1, resolved=0)
    with database.transaction() as connection:
        found = stored(connection, slig)
    assert [found[i] for i in ids] == [v.tolist() for v in second]


def test_several_collections_are_written_together(
    database: Database, slig: Collection, color: Collection
) -> None:
    ids = make_document(database, "shop/doc", 3)
    with database.transaction() as connection:
        counts = write_embeddings(
            connection,
            "shop",
            ids,
            [(slig, random_vectors(3, 8)), (color, random_vectors(3, 4))],
            stage="slig",
        )
    assert counts == WriteCounts(vectors=6, images=3, resolved=0)
    with database.transaction() as connection:
        assert flagged(connection, slig) == flagged(connection, color) == set(ids)
        assert set(stored(connection, slig)) == set(stored(connection, color)) == set(ids)


def test_two_spaces_of_one_name_can_be_written_in_one_transaction(
    database: Database, slig: Collection
) -> None:
    ids = make_document(database, "shop/doc", 2)
    with database.transaction() as connection:
        for number in range(3):  # the temporary table's name is free again after each call
            write_embeddings(connection, "shop", ids, [(slig, random_vectors(2, seed=number))], stage="slig")


def nothing_was_written(database: Database, *collections: Collection) -> None:
    with database.transaction() as connection:
        for collection in collections:
            assert stored(connection, collection) == {}
            assert flagged(connection, collection) == set()
        assert (
            scalar(connection, "SELECT count(*) FROM embedding_failures WHERE resolved_at IS NOT NULL") == 0
        )


def test_a_wrong_dimension_in_the_second_collection_leaves_nothing_of_the_first(
    database: Database, slig: Collection, color: Collection
) -> None:
    ids = make_document(database, "shop/doc", 3)
    pairs = [(slig, random_vectors(3, 8)), (color, random_vectors(3, 5))]
    expected = r"of 4 numbers, got an array of shape \(3, 5\)"
    with pytest.raises(SpaceMismatch, match=expected), database.transaction() as connection:
        write_embeddings(connection, "shop", ids, pairs, stage="slig")
    nothing_was_written(database, slig, color)


@pytest.mark.parametrize(
    "broken",
    [
        'BEFORE INSERT ON vecs."image_color_embeddings"',
        "BEFORE UPDATE ON document_images",
        "BEFORE UPDATE ON embedding_failures",
    ],
)
def test_an_error_at_any_step_leaves_nothing(
    database: Database, slig: Collection, color: Collection, broken: str
) -> None:
    ids = make_document(database, "shop/doc", 3)
    with database.transaction() as connection:
        fail(connection, "shop/doc", ids)
        connection.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'data_exception'; END $$"
            )
        )
        connection.execute(text(f"CREATE TRIGGER refuse {broken} FOR EACH ROW EXECUTE FUNCTION refuse()"))
    pairs = [(slig, random_vectors(3, 8)), (color, random_vectors(3, 4))]
    with pytest.raises(DataError, match="refused"), database.transaction() as connection:
        write_embeddings(connection, "shop", ids, pairs, stage="slig")
    nothing_was_written(database, slig, color)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_by_the_database(
    database: Database, slig: Collection, bad: float
) -> None:
    ids = make_document(database, "shop/doc", 3)
    vectors = random_vectors(3)
    vectors[1, 4] = bad
    with pytest.raises(DataError, match="not allowed in vector"):
        write(database, slig, ids, vectors)
    nothing_was_written(database, slig)


def test_images_that_left_their_document_meanwhile_are_left_out(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 5)
    with database.transaction() as connection:
        remove_images_not_in(connection, DocumentKey("shop", "doc"), ids[1:4], [slig])
    vectors = random_vectors(5)
    assert write(database, slig, ids, vectors) == WriteCounts(vectors=3, images=3, resolved=0)
    with database.transaction() as connection:
        assert stored(connection, slig) == {ids[n]: vectors[n].tolist() for n in (1, 2, 3)}


def test_images_of_another_workspace_are_left_out(database: Database, slig: Collection) -> None:
    ours, theirs = make_document(database, "shop/doc", 2), make_document(database, "rival/doc", 2)
    counts = write(database, slig, [theirs[0], *ours, theirs[1]], random_vectors(4))
    assert counts == WriteCounts(vectors=2, images=2, resolved=0)
    with database.transaction() as connection:
        assert flagged(connection, slig) == set(stored(connection, slig)) == set(ours)


def test_an_id_that_another_client_writes_meanwhile_is_transient(
    database: Database, slig: Collection
) -> None:
    """A vecs client takes no locks on image rows: its upsert can come between our delete and our copy."""
    ids = make_document(database, "shop/doc", 1)
    with database.transaction() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION meanwhile() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "RAISE EXCEPTION 'duplicate key' USING ERRCODE = 'unique_violation'; END $$"
            )
        )
        connection.execute(
            text(
                f"CREATE TRIGGER meanwhile BEFORE INSERT ON {slig.qualified} "
                "FOR EACH ROW EXECUTE FUNCTION meanwhile()"
            )
        )
    with pytest.raises(StoreUnavailable, match="another client"):
        write(database, slig, ids, random_vectors(1))


def test_nothing_to_write_is_no_work(database: Database, slig: Collection) -> None:
    ids = make_document(database, "rival/doc", 1)
    assert write(database, slig, [], random_vectors(0)) == WriteCounts()
    assert write(database, slig, ids, random_vectors(1)) == WriteCounts()
    with database.transaction() as connection:
        assert write_embeddings(connection, "shop", ids, [], stage="slig") == WriteCounts()


def test_an_id_given_twice_is_refused(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 1)
    with pytest.raises(ValueError, match="once"):
        write(database, slig, ids * 2, random_vectors(2))


def test_vectors_in_any_memory_order_arrive_as_they_are(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 3)
    whole = random_vectors(6, 16)
    view = np.asfortranarray(whole)[::2, ::2]
    write(database, slig, ids, view)
    with database.transaction() as connection:
        assert [stored(connection, slig)[i] for i in ids] == view.tolist()


def test_the_copy_format_is_postgres_own() -> None:
    number = uuid.UUID(int=1)
    data = encode_copy([number], np.array([[1.0, -2.0]], dtype=np.float32), ['{"é": 1}'])
    head, row, tail = data[:19], data[19:-2], data[-2:]
    assert head == b"PGCOPY\n\xff\r\n\0" + bytes(8)
    fixed = struct.pack(">hi36sihhff", 3, 36, str(number).encode(), 12, 2, 0, 1.0, -2.0)
    assert row == fixed + struct.pack(">i", 10) + b"\1" + '{"é": 1}'.encode()
    assert tail == b"\xff\xff"


@pytest.mark.slow
def test_two_writers_of_the_same_images_in_opposite_order_do_not_deadlock(
    database: Database, slig: Collection
) -> None:
    ids = make_document(database, "shop/doc", 60)
    vectors = random_vectors(60)
    rounds = 15
    together = threading.Barrier(2)
    errors: list[Exception] = []

    def run(order: Sequence[uuid.UUID]) -> None:
        for _ in range(rounds):
            together.wait(60)
            try:
                write(database, slig, order, vectors)
            except Exception as error:  # noqa: BLE001 (reported below)
                errors.append(error)

    threads = [threading.Thread(target=run, args=(order,)) for order in (ids, ids[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    with database.transaction() as connection:
        assert len(stored(connection, slig)) == 60


# -- copies of known vectors ---------------------------------------------------------------------------------


def test_the_same_bytes_in_the_workspace_get_a_copy_of_the_vector(
    database: Database, slig: Collection
) -> None:
    known = make_document(database, "shop/old", 2, content="same")[:1]
    new = make_document(database, "shop/new", 1, content="same") + make_document(
        database, "shop/new", 1, first=1, content="unknown"
    )
    vector = random_vectors(1)
    write(database, slig, known, vector)
    with database.transaction() as connection:
        fail(connection, "shop/new", new)
        assert copy_known_vectors(connection, "shop", new, [slig], stage="slig") == [new[0]]
    with database.transaction() as connection:
        assert stored(connection, slig)[new[0]] == vector[0].tolist()
        assert flagged(connection, slig) == {known[0], new[0]}
        assert scalar(
            connection,
            f"SELECT metadata ->> 'document_id' FROM {slig.qualified} WHERE id = :id",
            id=str(new[0]),
        ) == ("new")
        assert scalar(connection, "SELECT count(*) FROM embedding_failures WHERE resolved_at IS NULL") == 1


def test_vectors_are_not_copied_from_another_workspace(database: Database, slig: Collection) -> None:
    theirs = make_document(database, "rival/doc", 1, content="same")
    ours = make_document(database, "shop/doc", 1, content="same")
    write(database, slig, theirs, random_vectors(1), workspace="rival")
    with database.transaction() as connection:
        assert copy_known_vectors(connection, "shop", ours, [slig], stage="slig") == []
        assert copy_known_vectors(connection, "rival", ours, [slig], stage="slig") == []
    with database.transaction() as connection:
        assert set(stored(connection, slig)) == set(theirs)


def test_a_copy_is_of_all_collections_or_of_none(
    database: Database, slig: Collection, color: Collection
) -> None:
    """A donor that lost one of its vectors, against its flag, is no donor."""
    donor = make_document(database, "shop/old", 1, content="same")
    new = make_document(database, "shop/new", 1, content="same")
    with database.transaction() as connection:
        pairs = [(slig, random_vectors(1, 8)), (color, random_vectors(1, 4))]
        write_embeddings(connection, "shop", donor, pairs, stage="slig")
        connection.execute(text(f"DELETE FROM {color.qualified}"))
        assert copy_known_vectors(connection, "shop", new, [slig, color], stage="slig") == []
    with database.transaction() as connection:
        assert set(stored(connection, slig)) == flagged(connection, slig) == set(donor)


def test_a_donor_without_all_flags_is_passed_over(
    database: Database, slig: Collection, color: Collection
) -> None:
    half = make_document(database, "shop/a", 1, content="same")
    full = make_document(database, "shop/b", 1, content="same")
    new = make_document(database, "shop/c", 1, content="same")
    write(database, slig, half, random_vectors(1, 8, seed=1))
    both = (random_vectors(1, 8, seed=2), random_vectors(1, 4))
    with database.transaction() as connection:
        write_embeddings(connection, "shop", full, [(slig, both[0]), (color, both[1])], stage="slig")
        assert copy_known_vectors(connection, "shop", new, [slig, color], stage="slig") == new
        assert stored(connection, slig)[new[0]] == both[0][0].tolist()
        assert stored(connection, color)[new[0]] == both[1][0].tolist()


def test_nothing_known_copies_nothing(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 2)
    with database.transaction() as connection:
        assert copy_known_vectors(connection, "shop", ids, [slig], stage="slig") == []
        assert copy_known_vectors(connection, "shop", [], [slig], stage="slig") == []
        assert copy_known_vectors(connection, "shop", ids, [], stage="slig") == []


# -- metadata and search -------------------------------------------------------------------------------------


def test_metadata_follows_the_image_rows(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 3)
    other = make_document(database, "shop/other", 1)
    write(database, slig, [*ids, *other], random_vectors(4))
    with database.transaction() as connection:
        connection.execute(text("UPDATE document_images SET page_number = 99 WHERE image_index = 0"))
        assert refresh_metadata(connection, "shop", "doc", slig) == 1
        assert refresh_metadata(connection, "shop", "doc", slig) == 0
        pages = connection.execute(
            text(f"SELECT id, (metadata ->> 'page_number')::int FROM {slig.qualified}")
        ).all()
    assert {uuid.UUID(i): page for i, page in pages} == {ids[0]: 99, ids[1]: 1, ids[2]: 1, other[0]: 1}


def test_the_nearest_images_come_first_with_their_cosine(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 50)
    vectors = random_vectors(50)
    write(database, slig, ids, vectors)
    query = random_vectors(1, seed=9)[0]
    with database.transaction() as connection:
        found = nearest(connection, "shop", slig, query, 10)
    cosine = vectors.astype(np.float64) @ query
    expected = [ids[n] for n in np.argsort(-cosine)[:10]]
    assert [i for i, _ in found] == expected
    assert [s for _, s in found] == pytest.approx(sorted(cosine, reverse=True)[:10], abs=1e-6)


def test_search_stays_exact_within_a_small_workspace_of_an_indexed_collection(
    database: Database, slig: Collection
) -> None:
    """An HNSW index gives 40 candidates of all workspaces; ours would be none of them."""
    theirs = make_document(database, "rival/doc", 400)
    ours = make_document(database, "shop/doc", 5)
    query = random_vectors(1, seed=3)[0]
    near = random_vectors(400, seed=4) * 0.01 + query
    write(database, slig, theirs, near / np.linalg.norm(near, axis=1, keepdims=True), workspace="rival")
    write(database, slig, ours, random_vectors(5))
    with database.transaction() as connection:
        connection.execute(text(f"CREATE INDEX ON {slig.qualified} USING hnsw (vec vector_cosine_ops)"))
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        assert {i for i, _ in nearest(connection, "shop", slig, query, 10)} == set(ours)


def test_rows_that_are_no_images_are_not_found(database: Database, slig: Collection) -> None:
    ids = make_document(database, "shop/doc", 1)
    vectors = random_vectors(1)
    write(database, slig, ids, vectors)
    with database.transaction() as connection:
        connection.execute(
            text(f"INSERT INTO {slig.qualified} (id, vec) VALUES ('a foreign id', '[1,0,0,0,0,0,0,0]')")
        )
        assert [i for i, _ in nearest(connection, "shop", slig, vectors[0], 5)] == ids
