"""Which indexes a collection has, by the catalogue: their kinds, and whether queries can use them."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from embedding_assets.store.database import Database
from embedding_assets.store.indexes import (
    VectorIndex,
    find_indexes,
    metadata_index_name,
    usable_hnsw,
    vector_index_name,
)
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import SLIG, TEXT, UNDERSTANDING, Collection
from embedding_assets_tests.factories import fill_collection


def run(database: Database, statement: str) -> None:
    with database.transaction() as connection:
        connection.execute(text(statement))


def usable(database: Database, *collections: Collection) -> dict[str, VectorIndex]:
    with database.transaction() as connection:
        return usable_hnsw(connection, collections)


def make_invalid(database: Database, name: str) -> None:
    """What a build leaves that is broken off."""
    run(database, f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vecs.\"{name}\"'::regclass")


@pytest.fixture
def collection(database: Database) -> Collection:
    return fill_collection(database, 20)


def test_one_question_tells_the_kinds_of_all_collections(database: Database) -> None:
    plain = fill_collection(database, 5, name=SLIG)
    half = fill_collection(database, 5, 8, name=TEXT)
    bare = fill_collection(database, 5, name=UNDERSTANDING)
    run(database, f"CREATE INDEX plain ON {plain.qualified} USING hnsw (vec vector_cosine_ops)")
    run(database, f"CREATE INDEX half ON {half.qualified} USING hnsw ((vec::halfvec(8)) halfvec_cosine_ops)")
    assert usable(database, plain, half, bare) == {
        SLIG: VectorIndex("vector", "plain"),
        TEXT: VectorIndex("halfvec", "half"),
    }
    assert usable(database, half) == {TEXT: VectorIndex("halfvec", "half")}
    assert usable(database) == {}


@pytest.mark.parametrize(
    "definition",
    [
        "USING hnsw (vec vector_l2_ops)",
        "USING hnsw (vec vector_ip_ops)",
        "USING hnsw ((vec::halfvec(16)) halfvec_l2_ops)",
        "USING hnsw ((subvector(vec, 1, 8)::vector(8)) vector_cosine_ops)",
        "USING hnsw ((subvector(vec, 1, 8)::halfvec(8)) halfvec_cosine_ops)",
        'USING hnsw (vec vector_cosine_ops) WHERE metadata @> \'{"workspace_id": "shop"}\'',
        "USING ivfflat (vec vector_cosine_ops) WITH (lists = 1)",
        "USING gin (metadata jsonb_path_ops)",
    ],
)
def test_an_index_that_cosine_queries_over_all_rows_can_not_use_is_not_usable(
    database: Database, collection: Collection, definition: str
) -> None:
    run(database, f"CREATE INDEX other ON {collection.qualified} {definition}")
    assert usable(database, collection) == {}
    with database.transaction() as connection:
        (found,) = [index for index in find_indexes(connection, collection) if index.name == "other"]
    assert (found.cosine_kind, found.valid, found.is_ours, found.is_leftover) == (None, True, False, False)


def test_an_invalid_index_is_not_usable_and_a_leftover_only_where_it_is_ours(
    database: Database, collection: Collection
) -> None:
    ours = vector_index_name(collection.table, "vector", 16, 64)
    for name in (ours, "theirs", f"{ours}_ccnew", f"{ours}_ccold1"):
        run(database, f'CREATE INDEX "{name}" ON {collection.qualified} USING hnsw (vec vector_cosine_ops)')
        make_invalid(database, name)
    assert usable(database, collection) == {}
    with database.transaction() as connection:
        found = {index.name: index for index in find_indexes(connection, collection)}
    assert {name for name, index in found.items() if index.is_leftover} == {
        ours,
        f"{ours}_ccnew",
        f"{ours}_ccold1",
    }
    assert found["theirs"].cosine_kind == "vector"
    assert not found["theirs"].valid


def test_where_both_kinds_are_there_the_smaller_one_is_taken(
    database: Database, collection: Collection
) -> None:
    run(database, f"CREATE INDEX a ON {collection.qualified} USING hnsw (vec vector_cosine_ops)")
    for name, kind in (("b", "halfvec"), ("c", "vector")):
        expression = "vec" if kind == "vector" else "(vec::halfvec(16))"
        run(
            database,
            f"CREATE INDEX {name} ON {collection.qualified} USING hnsw ({expression} {kind}_cosine_ops)",
        )
    assert usable(database, collection) == {SLIG: VectorIndex("halfvec", "b")}


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_a_query_with_the_indexs_operand_is_answered_by_the_index(
    database: Database, collection: Collection, kind: str
) -> None:
    expression = "vec" if kind == "vector" else "(vec::halfvec(16))"
    run(database, f"CREATE INDEX i ON {collection.qualified} USING hnsw ({expression} {kind}_cosine_ops)")
    index = usable(database, collection)[SLIG]
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.execute(
            text(
                f"EXPLAIN SELECT id FROM {collection.qualified} v ORDER BY {index.operand(16, 'v')} <=> "
                f"CAST(:query AS {index.type_name(16)}) LIMIT 3"
            ),
            {"query": str([1] * 16)},
        ).scalars()
        assert any("Index Scan using i " in line for line in plan)


def test_names_tell_collections_kinds_and_parameters_apart_and_fit() -> None:
    tables = [*FLAGS, "a_collection_with_a_very_long_name_of_sixty_two_characters_abc"]
    names = [
        name
        for table in tables
        for name in (
            metadata_index_name(table),
            *(
                vector_index_name(table, kind, m, ef)
                for kind in ("vector", "halfvec")
                for m, ef in ((16, 64), (100, 1000))
            ),
        )
    ]
    assert len(set(names)) == len(names)
    assert max(len(f"{name}_ccnew") for name in names) <= 63, "Postgres would cut the name"


def test_an_index_of_another_collection_is_not_taken_for_ours(
    database: Database, collection: Collection
) -> None:
    name = vector_index_name(TEXT, "vector", 16, 64)
    run(database, f'CREATE INDEX "{name}" ON {collection.qualified} USING hnsw (vec vector_cosine_ops)')
    with database.transaction() as connection:
        (found,) = [index for index in find_indexes(connection, collection) if index.name == name]
    assert not found.is_ours
