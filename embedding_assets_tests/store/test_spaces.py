"""Embedding spaces: one collection a space, made once, and never mixed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from embedding_assets.errors import SpaceMismatch
from embedding_assets.store.database import Database
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import (
    SLIG,
    Collection,
    active_collection,
    all_collections,
    ensure_collection,
    record_speed,
)
from embedding_assets_tests.factories import scalar, space


def test_the_first_space_of_a_name_takes_the_plain_name(database: Database) -> None:
    with database.transaction() as connection:
        assert active_collection(connection, SLIG) is None
        collection = ensure_collection(connection, SLIG, space(8, label="tiny"))
    assert (collection.table, collection.dimension, collection.flag) == (SLIG, 8, "has_slig_embedding")
    assert collection.description["label"] == "tiny"
    with database.transaction() as connection:
        assert active_collection(connection, SLIG) == collection
        assert all_collections(connection) == [collection]


def test_the_same_space_again_gives_the_same_collection(database: Database) -> None:
    with database.transaction() as connection:
        first = ensure_collection(connection, SLIG, space(8, label="one name"))
        again = ensure_collection(connection, SLIG, space(8, label="another name"))
    assert first == again


@pytest.mark.parametrize("name", FLAGS)
def test_every_logical_name_has_a_collection_of_its_own(database: Database, name: str) -> None:
    with database.transaction() as connection:
        collection = ensure_collection(connection, name, space(8))
    assert (collection.logical_name, collection.table, collection.flag) == (name, name, FLAGS[name])


@pytest.mark.slow
def test_many_threads_make_one_collection(database: Database) -> None:
    together = threading.Barrier(8)

    def make(_: int) -> Collection:
        together.wait(timeout=30)
        with database.transaction() as connection:
            return ensure_collection(connection, SLIG, space(8))

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert len({c.table for c in made}) == 1
    with database.transaction() as connection:
        assert scalar(connection, "SELECT count(*) FROM embedding_spaces") == 1


def test_a_refused_space_is_told_by_both_spaces_numbers(database: Database) -> None:
    there, here = space(768, model="big", weights="webli"), space(512, model="small", weights="openai")
    with database.transaction() as connection:
        ensure_collection(connection, SLIG, there)
    with pytest.raises(SpaceMismatch) as raised, database.transaction() as connection:
        ensure_collection(connection, SLIG, here)
    message = raised.value.message
    for part in ("768-D", "512-D", there.space_id, here.space_id, "big", "small", "weights 'webli' there"):
        assert part in message
    assert "preprocessing" not in message, "what is the same in both is no reason"
    assert raised.value.hint


@pytest.mark.parametrize(
    "change", [{"weights": "other"}, {"preprocessing": "crop"}, {"template": "v2"}, {"model": "m2"}]
)
def test_spaces_of_one_dimension_are_not_mixed_either(database: Database, change: dict[str, str]) -> None:
    with database.transaction() as connection:
        ensure_collection(connection, SLIG, space(8))
    with pytest.raises(SpaceMismatch, match=next(iter(change))), database.transaction() as connection:
        ensure_collection(connection, SLIG, space(8, **change))


def test_a_second_space_of_a_name_gets_a_table_named_after_it(database: Database) -> None:
    old, new = space(8), space(16, model="newer")
    with database.transaction() as connection:
        ensure_collection(connection, SLIG, old)
        connection.execute(text("UPDATE embedding_spaces SET active = false"))
        second = ensure_collection(connection, SLIG, new)
    assert second.table == f"{SLIG}_{new.space_id[:8]}"
    with database.transaction() as connection:
        assert active_collection(connection, SLIG) == second
        assert [c.table for c in all_collections(connection)] == [SLIG, second.table]


def test_a_known_space_that_was_retired_is_taken_into_use_again(database: Database) -> None:
    with database.transaction() as connection:
        first = ensure_collection(connection, SLIG, space(8))
        connection.execute(text("UPDATE embedding_spaces SET active = false"))
        again = ensure_collection(connection, SLIG, space(8))
    assert again.table == first.table
    with database.transaction() as connection:
        assert active_collection(connection, SLIG) == again


@pytest.mark.parametrize("dimension", [0, 16_001])
def test_dimensions_that_pgvector_can_not_hold_are_refused(database: Database, dimension: int) -> None:
    with (
        pytest.raises(SpaceMismatch, match="pgvector takes 1 to 16000"),
        database.transaction() as connection,
    ):
        ensure_collection(connection, SLIG, space(dimension))


def test_a_collection_name_that_is_no_identifier_is_refused(database: Database) -> None:
    with database.transaction() as connection:
        ensure_collection(connection, SLIG, space(8))
        connection.execute(
            text("""UPDATE embedding_spaces SET collection = 'x"; DROP TABLE documents; --'""")
        )
    with pytest.raises(SpaceMismatch, match="not valid"), database.transaction() as connection:
        active_collection(connection, SLIG)


def test_the_measured_speed_is_smoothed_over_runs(database: Database) -> None:
    with database.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space(8))
        assert collection.images_per_second is None
        record_speed(connection, collection, 10.0)
        record_speed(connection, collection, 20.0)
        again = active_collection(connection, SLIG)
    assert again is not None
    assert again.images_per_second == pytest.approx(15.0)
