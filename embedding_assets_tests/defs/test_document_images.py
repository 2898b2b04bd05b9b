"""Asset document_images: what it materializes, and what fails it."""

from __future__ import annotations

import dagster as dg

from embedding_assets.defs.execution import RunOutcome
from embedding_assets.keys import DocumentKey
from embedding_assets_tests.defs.dagster_project import DagsterProject, UnreliableDatabase
from embedding_assets_tests.pipeline.project import pdf, png

ASSET = "document_images"
BROKEN_PDF = b"%PDF-1.7\nnothing but this line"


def ingest(dagster: DagsterProject, *keys: DocumentKey, **config: object) -> RunOutcome:
    (outcome,) = dagster.run("ingest_document", keys, config, ASSET)
    return outcome


def test_a_document_is_ingested_and_its_partition_says_what_it_holds(dagster: DagsterProject) -> None:
    whole = png(1)
    key = dagster.project.land(
        "shop/mixed", {"a.png": whole, "b.png": png(2), "c.png": whole[:-40], "d.png": png(3, side=16)}
    )
    outcome = ingest(dagster, key)
    assert outcome.success
    assert dagster.materialized(ASSET) == {"shop/mixed"}
    metadata = dagster.metadata(ASSET, key)
    counts = {
        "images": 4,
        "ready": 2,
        "skipped": 1,
        "rejected": 1,
        "pending": 0,
        "new": 4,
        "unchanged": False,
    }
    assert counts.items() <= metadata.items()
    assert "c.png" in metadata["failed_images"]
    assert metadata["failed_images"].startswith("|   index | page")


def test_a_chunk_of_documents_is_one_run_with_metadata_for_each(dagster: DagsterProject) -> None:
    keys = [dagster.project.land_images(f"shop/doc{n}", range(n + 1)) for n in range(3)]
    keys.append(dagster.project.land("shop/oak.pdf", pdf([7, 8])))
    assert ingest(dagster, *keys).success
    assert [dagster.metadata(ASSET, key)["images"] for key in keys] == [1, 2, 3, 2]
    assert dagster.metadata(ASSET, keys[3])["pages"] == 2


def test_an_unchanged_document_is_materialized_again_without_being_read(dagster: DagsterProject) -> None:
    key = dagster.project.land_images("shop/doc", [1, 2])
    ingest(dagster, key)
    rows = dagster.project.rows(key)
    assert ingest(dagster, key).success
    assert dagster.metadata(ASSET, key)["unchanged"] is True
    assert dagster.project.rows(key) == rows
    assert ingest(dagster, key, force=True).success
    assert dagster.metadata(ASSET, key)["unchanged"] is False


def test_a_bad_document_in_a_chunk_leaves_the_others_materialized_and_says_why(
    dagster: DagsterProject,
) -> None:
    good = [dagster.project.land_images(f"shop/doc{n}", [n]) for n in range(3)]
    bad = dagster.project.land("shop/broken.pdf", BROKEN_PDF)
    keys = [good[0], bad, *good[1:]]
    outcome = ingest(dagster, *keys)
    assert not outcome.success
    assert dagster.materialized(ASSET) == set(map(str, good))
    assert "1 of 4 documents could not be read" in outcome.reason
    assert "shop/broken.pdf: " in outcome.reason
    assert dagster.metadata(ASSET, good[2])["images"] == 1
    assert dagster.waits(outcome.run_id) == []


def test_a_bad_document_alone_fails_with_its_own_reason_and_is_not_tried_again(
    dagster: DagsterProject,
) -> None:
    key = dagster.project.land("shop/broken.pdf", BROKEN_PDF)
    outcome = ingest(dagster, key)
    assert not outcome.success
    assert outcome.reason == dagster.project.failures(key)[0].message or outcome.reason.startswith(
        dagster.project.failures(key)[0].message
    )
    assert dagster.materialized(ASSET) == set()
    assert dagster.waits(outcome.run_id) == []


def test_a_partition_whose_name_is_no_document_key_fails_alone(dagster: DagsterProject) -> None:
    good = dagster.project.land_images("shop/doc", [1])
    dagster.instance.add_dynamic_partitions("documents", ["no-slash", str(good)])
    result = dagster.defs.resolve_job_def("ingest_document").execute_in_process(
        instance=dagster.instance,
        tags={
            "dagster/asset_partition_range_start": "no-slash",
            "dagster/asset_partition_range_end": str(good),
        },
        raise_on_error=False,
    )
    assert not result.success
    assert dagster.materialized(ASSET) == {str(good)}


def test_a_database_that_comes_back_is_waited_for_2_and_4_seconds(dagster: DagsterProject) -> None:
    key = dagster.project.land_images("shop/doc", [1])
    database = dagster.project.database
    assert isinstance(database, UnreliableDatabase)
    database.outages = 2
    outcome = ingest(dagster, key)
    assert outcome.success
    assert dagster.waits(outcome.run_id) == [("read_documents", 2), ("read_documents", 4)]
    assert dagster.materialized(ASSET) == {str(key)}


def test_a_database_that_stays_away_fails_the_step_after_2_4_8_seconds(dagster: DagsterProject) -> None:
    key = dagster.project.land_images("shop/doc", [1])
    database = dagster.project.database
    assert isinstance(database, UnreliableDatabase)
    database.outages = 1000
    outcome = ingest(dagster, key)
    database.outages = 0
    assert not outcome.success
    assert "the database is not available" in outcome.reason
    assert dagster.waits(outcome.run_id) == [("read_documents", wait) for wait in (2, 4, 8)]


def test_the_config_says_what_it_is_for(dagster: DagsterProject) -> None:
    job = dagster.defs.resolve_job_def("ingest_document")
    fields = job.graph.node_dict[ASSET].definition.config_schema.config_type.fields  # type: ignore[union-attr]
    assert fields["force"].description
    assert isinstance(job, dg.JobDefinition)
