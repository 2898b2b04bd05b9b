"""Sensor removed_documents: removes what is gone, and nothing where that looks like a mishap."""

from __future__ import annotations

import shutil

import pytest
from sqlalchemy import text

from embedding_assets.defs.partitions import register_partitions
from embedding_assets.keys import DocumentKey
from embedding_assets.store.models import FLAGS
from embedding_assets_tests.defs.dagster_project import DagsterProject

NAME = "removed_documents"


@pytest.fixture
def dagster(dagster: DagsterProject) -> DagsterProject:
    dagster.configure(landing_settle_s=30.0, landing_root=str(dagster.project.landing), removal_limit_count=2)
    return dagster


@pytest.fixture
def keys(dagster: DagsterProject) -> list[DocumentKey]:
    """Six ingested documents in one workspace, with partitions."""
    landed = [dagster.project.ingested(f"shop/doc{n}", [n, 100]) for n in range(6)]
    register_partitions(dagster.instance, landed)
    return landed


def vanish(dagster: DagsterProject, *keys: DocumentKey) -> None:
    for key in keys:
        shutil.rmtree(dagster.project.landing / str(key))


def caption(dagster: DagsterProject, *keys: DocumentKey) -> None:
    """Gives the documents' images a text, and the text its vectors."""
    project = dagster.project
    for key in keys:
        with project.database.transaction() as connection:
            connection.execute(
                text(
                    "UPDATE document_images SET caption = 'Oak parquet', stage_skips = stage_skips - 'text' "
                    "WHERE workspace_id = :w AND document_id = :d"
                ),
                {"w": key.workspace_id, "d": key.document_id},
            )
        project.nearby_text_embedder().run(key.workspace_id, project.ids(key))


def vectors_of(dagster: DagsterProject, key: DocumentKey) -> dict[str, int]:
    """How many vectors the document has in each collection."""
    return {name: len(dagster.project.vectors(key, name)) for name in FLAGS}


def later(dagster: DagsterProject) -> None:
    with dagster.project.database.transaction() as connection:
        connection.execute(
            text("UPDATE landed_documents SET missing_since = missing_since - interval '1 hour'")
        )


def ticks(dagster: DagsterProject, cursor: str | None = None) -> str:
    """Two ticks with an hour in between; returns what the second says."""
    dagster.tick(NAME, cursor)
    later(dagster)
    return str(dagster.tick(NAME, cursor).skip_message)


def counts(dagster: DagsterProject, key: DocumentKey) -> dict[str, int]:
    with dagster.project.database.transaction() as connection:
        return {
            table: connection.execute(
                text(f"SELECT count(*) FROM {table} WHERE workspace_id = :w AND document_id = :d"),
                {"w": key.workspace_id, "d": key.document_id},
            ).scalar_one()
            for table in ("documents", "document_images", "document_stages", "landed_documents")
        }


def test_a_document_that_is_gone_on_two_looks_loses_everything_and_the_others_nothing(
    dagster: DagsterProject, keys: list[DocumentKey]
) -> None:
    assert dagster.run("process_document", keys)[0].success
    caption(dagster, keys[1], keys[2])
    assert len(FLAGS) == 7
    assert vectors_of(dagster, keys[2]) == dict.fromkeys(FLAGS, 2)
    vanish(dagster, keys[2])
    first = str(dagster.tick(NAME).skip_message)
    assert first.startswith("0 documents removed")
    assert "1 gone since a moment ago" in first
    assert len(dagster.project.ids(keys[2])) == 2
    later(dagster)
    assert str(dagster.tick(NAME).skip_message).startswith("1 documents removed")
    assert set(counts(dagster, keys[2]).values()) == {0}
    assert vectors_of(dagster, keys[2]) == dict.fromkeys(FLAGS, 0)
    assert vectors_of(dagster, keys[1]) == dict.fromkeys(FLAGS, 2)
    assert str(keys[2]) not in dagster.instance.get_dynamic_partitions("documents")
    assert len(dagster.instance.get_dynamic_partitions("documents")) == 5
    dagster.project.check_flags_equal_vectors()


def test_a_document_that_comes_back_in_between_stays(
    dagster: DagsterProject, keys: list[DocumentKey]
) -> None:
    vanish(dagster, keys[0])
    dagster.tick(NAME)
    dagster.project.land_images(str(keys[0]), [0, 100])
    later(dagster)
    dagster.tick(NAME)
    vanish(dagster, keys[0])
    assert "1 gone since a moment ago" in str(dagster.tick(NAME).skip_message)
    assert len(dagster.project.ids(keys[0])) == 2


def test_an_empty_listing_removes_nothing(dagster: DagsterProject, keys: list[DocumentKey]) -> None:
    shutil.rmtree(dagster.project.landing)
    said = ticks(dagster)
    assert "lists no document, and 6 are known: nothing is removed. Is it mounted?" in said
    assert all(dagster.project.ids(key) for key in keys)


def test_a_listing_that_has_shrunk_too_much_removes_nothing_and_says_so_once(
    dagster: DagsterProject, keys: list[DocumentKey], caplog: pytest.LogCaptureFixture
) -> None:
    vanish(dagster, *keys[:3])
    first = dagster.tick(NAME)
    later(dagster)
    second = dagster.tick(NAME, first.cursor)
    for tick in (first, second):
        assert "3 of 6 documents of workspace shop are gone" in str(tick.skip_message)
    assert all(dagster.project.ids(key) for key in keys)
    reported = [r for r in caplog.records if r.name == "embedding_assets.pipeline.notify"]
    assert len(reported) == 1
    dagster.configure(removal_limit_share=0.5)
    assert "3 documents removed" in str(dagster.tick(NAME, second.cursor).skip_message)


def test_a_workspace_that_lists_nothing_keeps_its_documents_and_the_others_are_looked_after(
    dagster: DagsterProject, keys: list[DocumentKey]
) -> None:
    other = dagster.project.ingested("museum/doc", [7])
    vanish(dagster, other, keys[0])
    said = ticks(dagster)
    assert "1 documents removed" in said
    assert "workspace museum lists no document" in said
    assert dagster.project.ids(other)
    assert not dagster.project.ids(keys[0])


def test_posted_documents_are_never_removed(dagster: DagsterProject, keys: list[DocumentKey]) -> None:
    posted = DocumentKey("shop", "posted")
    ingestor = dagster.project.ingestor()
    ingestor.register_posted(posted, [{"path": "doc1/0000.png"}])
    ingestor.ingest(posted)
    vanish(dagster, keys[0])
    assert "1 documents removed" in ticks(dagster)
    assert dagster.project.ids(posted)


def test_a_document_of_a_run_that_has_not_ended_is_left_for_later(
    dagster: DagsterProject, keys: list[DocumentKey]
) -> None:
    job = dagster.defs.resolve_job_def("embed_document")
    run = dagster.instance.create_run_for_job(
        job,
        tags={
            "dagster/asset_partition_range_start": str(keys[0]),
            "dagster/asset_partition_range_end": str(keys[2]),
        },
    )
    vanish(dagster, keys[1])
    assert "0 documents removed; 1 in use by runs" in ticks(dagster)
    dagster.instance.report_run_failed(run, "its process died")
    assert "1 documents removed" in str(dagster.tick(NAME).skip_message)
