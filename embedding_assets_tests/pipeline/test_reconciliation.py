"""Drift made from outside is found, shown, and repaired: what is proven is kept, the rest is made again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from embedding_assets.errors import ErrorClass
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.reconciliation import CollectionRepair, ReconcileReport, reconcile_vectors
from embedding_assets.store import repair
from embedding_assets.store.consistency import Drift, find_drift, flags_without_collection, usable_collections
from embedding_assets.store.failures import Failure, record_failures
from embedding_assets.store.spaces import ASPECT_COLLECTIONS, SLIG, TEXT, active_collection, ensure_collection
from embedding_assets.store.vectors import write_embeddings
from embedding_assets_tests.factories import random_vectors, space
from embedding_assets_tests.faults.processes import wait_until
from embedding_assets_tests.pipeline.project import Project

IMAGES = 6
SOMEBODY_ELSES = ("their-own-id", {"note": "not ours"})


@pytest.fixture
def key(project: Project) -> DocumentKey:
    """A document with visual and text vectors for all its images."""
    key = project.ingested("shop/doc", range(IMAGES))
    execute(
        project,
        "UPDATE document_images SET caption = 'Oak parquet, herringbone, matt oil finish, no. ' || image_index",
    )
    ids = project.ids(key)
    project.embedder().run("shop", ids)
    project.nearby_text_embedder().run("shop", ids)
    assert len(project.vectors(key, SLIG)) == len(project.vectors(key, TEXT)) == IMAGES
    assert look(project) == clean()
    return key


def execute(project: Project, statement: str, **parameters: Any) -> list[Any]:
    with project.database.transaction() as connection:
        result = connection.execute(text(statement), parameters)
        return list(result.all()) if result.returns_rows else []


def look(project: Project) -> dict[str, Drift]:
    with project.database.transaction() as connection:
        collections, _ = usable_collections(connection)
        drifts = [find_drift(connection, collection, active) for collection, active in collections]
        drifts += flags_without_collection(connection)
    return {drift.collection: drift for drift in drifts}


def clean() -> dict[str, Drift]:
    return {name: Drift(name, name) for name in (SLIG, *ASPECT_COLLECTIONS.values(), TEXT)}


def copy_vector(
    project: Project, source: uuid.UUID, target: str, metadata: dict[str, Any], table: str = SLIG
) -> None:
    execute(
        project,
        f"INSERT INTO vecs.{table} SELECT :target, vec, CAST(:metadata AS jsonb) FROM vecs.{table} WHERE id = :source",
        source=str(source),
        target=target,
        metadata=json.dumps(metadata),
    )


def ours(document: str = "doc") -> dict[str, Any]:
    return {"workspace_id": "shop", "document_id": document, "page_number": 1, "quality_score": None}


def delete_vectors_by_hand(project: Project, ids: list[uuid.UUID]) -> None:
    execute(project, f"DELETE FROM vecs.{SLIG} WHERE id = ANY(:ids)", ids=[str(i) for i in ids[:2]])


def unset_flags_by_hand(project: Project, ids: list[uuid.UUID]) -> None:
    execute(
        project,
        "UPDATE document_images SET has_slig_embedding = false, has_text_embedding = false WHERE id = ANY(:ids)",
        ids=ids[:3],
    )


def set_flags_by_hand(project: Project, ids: list[uuid.UUID]) -> None:
    execute(
        project,
        "UPDATE document_images SET has_understanding_embedding = true WHERE id = ANY(:ids)",
        ids=ids[:2],
    )


def leave_orphans(project: Project, ids: list[uuid.UUID]) -> None:
    copy_vector(project, ids[0], str(uuid.uuid4()), ours("gone"))
    copy_vector(project, ids[0], SOMEBODY_ELSES[0], SOMEBODY_ELSES[1])
    copy_vector(project, ids[0], "not-an-image", ours())
    copy_vector(project, ids[0], str(uuid.uuid4()), {"workspace_id": "shop"})


def edit_metadata(project: Project, ids: list[uuid.UUID]) -> None:
    execute(
        project,
        f"""UPDATE vecs.{SLIG} SET metadata = metadata || '{{"page_number": 999, "tag": "theirs"}}' WHERE id = :id""",
        id=str(ids[0]),
    )


DRIFT: dict[str, tuple[Callable[[Project, list[uuid.UUID]], None], dict[str, CollectionRepair], bool]] = {
    "vectors deleted": (delete_vectors_by_hand, {SLIG: CollectionRepair(flags_lowered=2)}, True),
    "flags unset": (
        unset_flags_by_hand,
        {SLIG: CollectionRepair(flags_raised=3), TEXT: CollectionRepair(vectors_removed=3)},
        False,
    ),
    "flags set without a collection": (
        set_flags_by_hand,
        {"image_understanding_embeddings": CollectionRepair(flags_lowered=2)},
        True,
    ),
    "orphans": (leave_orphans, {SLIG: CollectionRepair(orphans_removed=1)}, False),
    "metadata": (edit_metadata, {SLIG: CollectionRepair(metadata_renewed=1)}, False),
}


@pytest.mark.parametrize("kind", DRIFT)
def test_each_kind_of_drift_is_reported_and_repaired_once(
    project: Project, key: DocumentKey, kind: str
) -> None:
    plant, expected, due = DRIFT[kind]
    plant(project, project.ids(key))
    before = rows(project)
    planned = reconcile_vectors(project.database, dry_run=True)
    assert rows(project) == before
    done = reconcile_vectors(project.database)
    report = ReconcileReport(False, expected, {key} if due else set())
    assert done == report
    assert planned == ReconcileReport(True, expected, report.due)
    assert reconcile_vectors(project.database) == ReconcileReport(False)
    assert all(d.no_vector == d.no_flag == d.orphans == 0 for d in look(project).values())
    # and the pipeline makes what is due again
    project.embedder().run("shop", project.ids(key))
    project.nearby_text_embedder().run("shop", project.ids(key))
    assert len(project.vectors(key, TEXT)) == IMAGES
    flagged = execute(
        project, "SELECT id FROM document_images WHERE has_slig_embedding AND has_text_embedding"
    )
    assert {row.id for row in flagged} == set(project.ids(key))


def rows(project: Project) -> list[Any]:
    return [
        execute(project, f"SELECT xmin::text, t::text FROM {table} t ORDER BY 2")
        for table in ("document_images", f"vecs.{SLIG}", f"vecs.{TEXT}", "embedding_failures")
    ]


def test_drift_is_shown_with_rows_to_look_at(project: Project, key: DocumentKey) -> None:
    ids = project.ids(key)
    delete_vectors_by_hand(project, ids)
    execute(project, "UPDATE document_images SET has_slig_embedding = false WHERE id = :id", id=ids[3])
    leave_orphans(project, ids[4:])
    drift = look(project)[SLIG]
    assert (drift.no_vector, drift.no_flag, drift.orphans, drift.foreign) == (2, 1, 1, 3)
    shown = {(row.kind, row.document, row.reference) for row in drift.examples}
    assert ("no vector", "shop/doc", "0000.png") in shown
    assert ("no flag", "shop/doc", "0003.png") in shown
    assert ("orphan", "shop/gone", "") in shown
    assert len(drift.examples) == 4


def test_vectors_of_other_clients_stay(project: Project, key: DocumentKey) -> None:
    leave_orphans(project, project.ids(key))
    reconcile_vectors(project.database)
    left = execute(project, f"SELECT id, metadata FROM vecs.{SLIG} WHERE NOT metadata ? 'quality_score'")
    assert SOMEBODY_ELSES in [(row.id, row.metadata) for row in left]
    assert len(left) == 2
    assert execute(project, f"SELECT 1 FROM vecs.{SLIG} WHERE id = 'not-an-image'")


def test_keys_that_others_added_to_the_metadata_stay(project: Project, key: DocumentKey) -> None:
    ids = project.ids(key)
    edit_metadata(project, ids)
    reconcile_vectors(project.database)
    (row,) = execute(project, f"SELECT metadata FROM vecs.{SLIG} WHERE id = :id", id=str(ids[0]))
    assert row.metadata == {**ours(), "page_number": None, "tag": "theirs"}


def test_a_vector_under_an_images_id_that_names_another_document_is_not_believed(
    project: Project, key: DocumentKey
) -> None:
    ids = project.ids(key)
    execute(project, f"DELETE FROM vecs.{SLIG} WHERE id = :id", id=str(ids[0]))
    execute(project, "UPDATE document_images SET has_slig_embedding = false WHERE id = :id", id=ids[0])
    copy_vector(project, ids[1], str(ids[0]), ours("another"))
    report = reconcile_vectors(project.database)
    assert report.collections == {SLIG: CollectionRepair(vectors_removed=1)}
    project.embedder().run("shop", ids)
    project.check_flags_equal_vectors()


def test_a_flag_that_comes_back_closes_the_images_failure(project: Project, key: DocumentKey) -> None:
    ids = project.ids(key)
    execute(project, "UPDATE document_images SET has_slig_embedding = false WHERE id = :id", id=ids[0])
    with project.database.transaction() as connection:
        record_failures(
            connection,
            [Failure(key, ids[0], stage, ErrorClass.TRANSIENT, "E", "m", 1) for stage in ("slig", "text")],
        )
    reconcile_vectors(project.database)
    assert [failure.stage for failure in project.failures(key)] == ["text"]


def test_images_that_are_not_ready_get_no_flag(project: Project, key: DocumentKey) -> None:
    ids = project.ids(key)
    execute(
        project,
        "UPDATE document_images SET has_slig_embedding = false, status = 'rejected' WHERE id = :id",
        id=ids[0],
    )
    assert reconcile_vectors(project.database).collections == {SLIG: CollectionRepair(vectors_removed=1)}


def test_where_a_table_is_gone_nothing_is_concluded_from_it(project: Project, key: DocumentKey) -> None:
    execute(project, f"DROP TABLE vecs.{SLIG}")
    report = reconcile_vectors(project.database)
    assert report.total == 0
    assert report.unusable == {SLIG: f'the table vecs."{SLIG}" is gone'}
    assert (
        execute(project, "SELECT count(*) AS n FROM document_images WHERE has_slig_embedding")[0].n == IMAGES
    )


def test_vectors_of_an_inactive_space_are_kept_but_for_orphans(project: Project, key: DocumentKey) -> None:
    leave_orphans(project, project.ids(key))
    execute(project, "UPDATE embedding_spaces SET active = false WHERE logical_name = :name", name=SLIG)
    execute(project, "UPDATE document_images SET has_slig_embedding = false")
    with project.database.transaction() as connection:
        ensure_collection(connection, SLIG, space(4))
    report = reconcile_vectors(project.database)
    assert report.collections == {SLIG: CollectionRepair(orphans_removed=1)}
    assert len(execute(project, f"SELECT FROM vecs.{SLIG}")) == IMAGES + 3


def test_a_name_without_an_active_space_is_left_alone(project: Project, key: DocumentKey) -> None:
    execute(project, "UPDATE embedding_spaces SET active = false WHERE logical_name = :name", name=SLIG)
    report = reconcile_vectors(project.database)
    assert report.total == 0
    assert "no space of this name is active" in report.unusable[SLIG]


def test_ranges_of_keys_hold_every_id_once(
    project: Project, key: DocumentKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = project.ids(key)
    monkeypatch.setattr(repair, "IMAGES_PER_RANGE", 1)
    execute(project, "ANALYZE document_images")
    with project.database.transaction() as connection:
        ranges = repair.key_ranges(connection)
    assert len(ranges) == 16
    leave_orphans(project, ids)
    execute(project, "UPDATE document_images SET has_slig_embedding = false")
    held: list[Any] = []
    for keys in ranges:
        held += execute(project, f"SELECT i.id::text AS id FROM document_images i WHERE {keys.images()}")
        held += execute(project, f"SELECT 'v' || m.id AS id FROM vecs.{SLIG} m WHERE {keys.vectors()}")
    everything = execute(project, "SELECT id::text AS id FROM document_images") + execute(
        project, f"SELECT 'v' || id AS id FROM vecs.{SLIG}"
    )
    assert sorted(row.id for row in held) == sorted(row.id for row in everything)
    report = reconcile_vectors(project.database)
    assert report.collections == {SLIG: CollectionRepair(flags_raised=IMAGES, orphans_removed=1)}


def test_a_batch_that_is_being_committed_is_waited_for_and_then_found_in_order(
    project: Project, key: DocumentKey
) -> None:
    ids = project.ids(key)
    execute(project, f"DELETE FROM vecs.{SLIG} WHERE id = :id", id=str(ids[0]))
    with ThreadPoolExecutor(1) as pool:
        with project.database.transaction() as connection:
            collection = active_collection(connection, SLIG)
            assert collection is not None
            vector = random_vectors(1, collection.dimension)
            write_embeddings(connection, "shop", ids[:1], [(collection, vector)], stage="slig")
            running = pool.submit(reconcile_vectors, project.database)
            wait_until(
                lambda: waits_for_a_lock(project), "reconcile waits for the row", lambda: not running.done()
            )
        report = running.result(timeout=60)
    assert report == ReconcileReport(False)
    assert look(project) == clean()


def waits_for_a_lock(project: Project) -> bool:
    return bool(
        execute(
            project,
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
    )
