"""Indexes come to what the settings want, whatever was there before, and say what was done."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import vecs
from sqlalchemy import text

from embedding_assets.errors import IndexBuildRunning, SettingsError, SpaceMismatch
from embedding_assets.pipeline.index_report import IndexReport, index_table
from embedding_assets.pipeline.indexing import IndexBuilder, IndexOptions
from embedding_assets.settings import load_settings
from embedding_assets.store.database import Database
from embedding_assets.store.index_builds import BuildLimits, only_builder
from embedding_assets.store.indexes import VectorIndex, find_indexes, usable_hnsw
from embedding_assets.store.spaces import SLIG, TEXT, UNDERSTANDING, Collection, ensure_collection
from embedding_assets_tests.conftest import Server
from embedding_assets_tests.factories import fill_collection, scalar, space

ROWS = 60


def builder(database: Database, **changes: Any) -> IndexBuilder:
    wanted: dict[str, Any] = {
        "min_rows": 10,
        "halfvec": True,
        "m": 8,
        "ef_construction": 32,
        "limits": BuildLimits(64, 0),
    }
    return IndexBuilder(database, IndexOptions(**{**wanted, **changes}))


def build(database: Database, rebuild: bool = False, **changes: Any) -> IndexReport:
    (report,) = builder(database, **changes).build(rebuild=rebuild)
    return report


def names(database: Database, collection: Collection) -> set[str]:
    with database.transaction() as connection:
        found = find_indexes(connection, collection)
    return {index.name for index in found if not index.name.endswith("_pkey")}


def usable(database: Database, collection: Collection) -> VectorIndex | None:
    with database.transaction() as connection:
        return usable_hnsw(connection, [collection]).get(collection.table)


def file_of(database: Database, name: str | None) -> int:
    with database.transaction() as connection:
        number: int = scalar(connection, "SELECT relfilenode FROM pg_class WHERE relname = :name", name=name)
    return number


@pytest.fixture
def collection(database: Database) -> Collection:
    return fill_collection(database, ROWS)


def test_what_is_missing_is_built_and_kept_the_next_time(database: Database, collection: Collection) -> None:
    report = build(database)
    assert (report.table, report.rows, report.dimension, report.kind) == (SLIG, ROWS, 16, "halfvec")
    assert report.vector.action == report.metadata.action == "built"
    assert report.vector.seconds > 0
    assert report.vector.size_bytes > 0
    assert report.metadata.size_bytes > 0
    assert report.recall is not None
    assert report.recall.value > 0.9
    assert report.recall.queries == ROWS
    assert report.remarks == ""
    assert usable(database, collection) == VectorIndex("halfvec", str(report.vector.name))
    assert names(database, collection) == {report.vector.name, report.metadata.name}
    before = file_of(database, report.vector.name)
    again = build(database)
    assert again.vector.action == again.metadata.action == "kept"
    assert (again.vector.name, again.vector.seconds) == (report.vector.name, 0)
    assert again.recall == report.recall
    assert file_of(database, report.vector.name) == before


def test_asked_to_rebuild_it_builds_valid_ones_anew_under_their_names(
    database: Database, collection: Collection
) -> None:
    first = build(database)
    files = [file_of(database, name) for name in (first.vector.name, first.metadata.name)]
    again = build(database, rebuild=True)
    assert again.vector.action == again.metadata.action == "rebuilt"
    assert names(database, collection) == {first.vector.name, first.metadata.name}
    assert not set(files) & {file_of(database, name) for name in (first.vector.name, first.metadata.name)}


@pytest.mark.parametrize("change", [{"m": 6}, {"ef_construction": 40}, {"halfvec": False}])
def test_an_index_of_other_settings_is_replaced(
    database: Database, collection: Collection, change: dict[str, Any]
) -> None:
    first = build(database)
    second = build(database, **change)
    assert second.vector.action == "rebuilt"
    assert f"settings changed: was {first.vector.name}" in second.remarks
    assert second.metadata.action == "kept"
    assert names(database, collection) == {second.vector.name, second.metadata.name}
    found = usable(database, collection)
    assert found is not None
    assert found.name == second.vector.name != first.vector.name
    assert found.kind == ("vector" if "halfvec" in change else "halfvec")


def test_the_old_index_serves_until_the_new_one_is_valid(
    database: Database, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding_assets.store import index_builds

    first = build(database)
    seen: list[tuple[str, VectorIndex | None]] = []
    run = index_builds._run

    def look(connection: Any, statement: str) -> None:
        seen.append((statement.split('"')[0].strip(), usable(database, collection)))
        run(connection, statement)

    monkeypatch.setattr(index_builds, "_run", look)
    second = build(database, m=6)
    assert [statement for statement, _ in seen] == [
        "CREATE INDEX CONCURRENTLY",
        "DROP INDEX CONCURRENTLY IF EXISTS vecs.",
    ]
    assert [index.name for _, index in seen if index] == [first.vector.name, first.vector.name]
    assert usable(database, collection) == VectorIndex("halfvec", str(second.vector.name))


@pytest.mark.parametrize("rows", [0, 9])
def test_a_small_collection_is_skipped_and_the_report_says_why(database: Database, rows: int) -> None:
    collection = fill_collection(database, rows)
    report = build(database)
    assert report.vector.action == report.metadata.action == "skipped"
    assert report.vector.name is report.kind is report.recall is None
    assert report.remarks == (
        "9 rows: below index_min_rows (10), scanning them is fast" if rows else "no vectors yet"
    )
    assert names(database, collection) == set()
    assert usable(database, collection) is None


def test_a_collection_that_shrank_keeps_its_index_whatever_the_settings(
    database: Database, collection: Collection
) -> None:
    first = build(database)
    with database.transaction() as connection:
        connection.execute(
            text(
                f"DELETE FROM {collection.qualified} WHERE id IN "
                f"(SELECT id FROM {collection.qualified} LIMIT {ROWS - 5})"
            )
        )
    assert build(database).vector.action == "kept"
    other = build(database, m=6)
    assert (other.vector.action, other.vector.name) == ("kept", first.vector.name)
    assert "of other settings, but 5 rows: below index_min_rows" in other.remarks
    assert other.recall is not None


@pytest.mark.parametrize("which", ["vector", "metadata"])
def test_an_invalid_leftover_is_found_dropped_and_rebuilt(
    database: Database, collection: Collection, which: str
) -> None:
    first = build(database)
    outcome = getattr(first, which)
    with database.transaction() as connection:
        connection.execute(
            text(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vecs.{outcome.name}'::regclass")
        )
    before = file_of(database, outcome.name)
    again = getattr(build(database), which)
    assert (again.action, again.name) == ("rebuilt", outcome.name)
    assert "broken off" in again.reason
    assert file_of(database, outcome.name) != before
    assert usable(database, collection) == VectorIndex("halfvec", str(first.vector.name))


def test_leftovers_of_a_rebuild_and_of_other_settings_are_dropped_and_the_valid_one_kept(
    database: Database, collection: Collection
) -> None:
    first = build(database)
    with database.transaction() as connection:
        for name in (f"{first.vector.name}_ccnew", str(first.vector.name).replace("_m8_", "_m9_")):
            connection.execute(
                text(f"CREATE INDEX {name} ON {collection.qualified} USING hnsw (vec vector_cosine_ops)")
            )
            connection.execute(
                text(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vecs.{name}'::regclass")
            )
    assert build(database).vector.action == "kept"
    assert names(database, collection) == {first.vector.name, first.metadata.name}


@pytest.mark.parametrize(
    ("dimension", "halfvec", "kind", "remark"),
    [
        (2000, False, "vector", ""),
        (2001, False, "halfvec", "2,000 dimensions at most"),
        (4000, True, "halfvec", ""),
        (4001, True, None, "4,001 dimensions; pgvector's HNSW takes 4,000 at most"),
    ],
)
def test_long_vectors_are_indexed_as_far_as_pgvector_can(
    database: Database, dimension: int, halfvec: bool, kind: str | None, remark: str
) -> None:
    fill_collection(database, 12, dimension)
    report = build(database, halfvec=halfvec)
    assert report.kind == kind
    assert report.vector.action == ("built" if kind else "skipped")
    assert remark in report.remarks
    assert bool(report.remarks) == bool(remark)
    assert report.metadata.action == "built"


def test_every_registered_collection_is_looked_after_active_or_not(database: Database) -> None:
    fill_collection(database, ROWS, name=SLIG)
    with database.transaction() as connection:
        connection.execute(text("UPDATE embedding_spaces SET active = false"))
        other = ensure_collection(connection, SLIG, space(8, model="another"))
        ensure_collection(connection, TEXT, space(8))
    fill_collection(database, ROWS, name=UNDERSTANDING)
    seen: list[str] = []
    reports = builder(database).build(progress=lambda report: seen.append(report.table))
    actions = {report.table: report.vector.action.value for report in reports}
    assert actions == {SLIG: "built", other.table: "skipped", TEXT: "skipped", UNDERSTANDING: "built"}
    assert seen == list(actions)
    with pytest.raises(SpaceMismatch):
        fill_collection(database, 1, 8)


def test_a_database_without_collections_has_nothing_to_index(database: Database) -> None:
    assert builder(database).build() == []


def test_the_planner_knows_a_just_filled_table(database: Database, collection: Collection) -> None:
    build(database)
    with database.transaction() as connection:
        assert scalar(connection, f"SELECT reltuples FROM pg_class WHERE relname = '{SLIG}'") == ROWS


# -- others in the same database -------------------------------------------------------------------------------


def test_a_second_builder_is_told_so(database: Database, collection: Collection) -> None:
    with only_builder(database), pytest.raises(IndexBuildRunning, match="being built by another process"):
        build(database)
    assert names(database, collection) == set()


def test_an_index_that_a_vecs_client_made_is_as_good_and_left_alone(
    database: Database, collection: Collection
) -> None:
    client = vecs.create_client(database.url)
    opened = client.get_or_create_collection(SLIG, dimension=16)
    opened.create_index(measure=vecs.IndexMeasure.cosine_distance)
    theirs = opened.index
    for rebuild in (False, True):
        report = build(database, rebuild)
        assert (report.vector.action, report.vector.name, report.kind) == ("kept", theirs, "vector")
        assert "another client" in report.remarks
        assert report.recall is not None
    assert usable(database, collection) == VectorIndex("vector", theirs)
    client.disconnect()


def test_an_index_of_another_measure_does_not_count(database: Database, collection: Collection) -> None:
    client = vecs.create_client(database.url)
    opened = client.get_or_create_collection(SLIG, dimension=16)
    opened.create_index(measure=vecs.IndexMeasure.l2_distance)
    assert build(database).vector.action == "built"
    assert opened.index in names(database, collection), "it is another client's, whatever it is good for"
    client.disconnect()


def test_a_vecs_client_finds_and_uses_our_index(database: Database, collection: Collection) -> None:
    report = build(database, halfvec=False)
    client = vecs.create_client(database.url)
    opened = client.get_or_create_collection(SLIG, dimension=16)
    assert opened.index == report.vector.name
    assert opened.is_indexed_for_measure(vecs.IndexMeasure.cosine_distance)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # vecs warns where it finds no index
        assert len(opened.query([1.0] * 16, limit=5)) == 5
    client.disconnect()


# -- settings --------------------------------------------------------------------------------------------------


def test_settings_become_options(database: Database) -> None:
    local = load_settings(database_url=database.url, index_m=10, index_ef_construction=50, index_memory_mb=99)
    made = IndexBuilder.from_settings(local, database).options
    assert (made.m, made.ef_construction, made.limits.memory_mb) == (10, 50, 99)
    assert made.limits.workers is not None, "the server is on this machine: its cores are known"
    given = IndexBuilder.from_settings(local.model_copy(update={"index_workers": 3}), database)
    assert given.options.limits.workers == 3
    far = Database("postgresql://someone@db.example/shop")
    assert IndexBuilder.from_settings(local, far).options.limits.workers is None


def test_a_direct_url_to_another_database_is_refused(
    postgres: Server, database: Database, collection: Collection
) -> None:
    url = postgres.make_database(postgres.template)
    settings = load_settings(database_url=database.url, direct_database_url=url, index_min_rows=1)
    with pytest.raises(SettingsError, match="direct_database_url leads to another database"):
        IndexBuilder.from_settings(settings, database).build()
    assert names(database, collection) == set()
    postgres.drop_database(url)


# -- the report ------------------------------------------------------------------------------------------------


def test_reports_are_plain_values_and_rows_for_people(database: Database, collection: Collection) -> None:
    fill_collection(database, 3, name=TEXT)
    reports = builder(database).build()
    values = json.loads(json.dumps([report.as_dict() for report in reports]))
    assert values[0]["vector"]["action"] == "built"
    assert 0 < values[0]["recall"]["value"] <= 1
    assert values[1]["recall"] is None
    first, second = index_table(reports)
    assert first["index"] == reports[0].vector.name
    assert first["recall@10"] == pytest.approx(values[0]["recall"]["value"], abs=1e-4)
    assert second["action"] == "skipped"
    assert second["MiB"] == second["recall@10"] == second["built in s"] == ""
