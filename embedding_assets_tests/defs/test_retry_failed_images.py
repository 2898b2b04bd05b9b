"""Sensor retry_failed_images: what may pass is tried again when due, and nothing else is."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import text

from embedding_assets.errors import FatalError, PermanentError, TransientError
from embedding_assets.keys import DocumentKey
from embedding_assets_tests.defs.dagster_project import DagsterProject
from embedding_assets_tests.pipeline.project import png

NAME = "retry_failed_images"


def fault(dagster: DagsterProject, seed: int, times: int) -> None:
    content = hashlib.sha256(png(seed)).hexdigest()
    dagster.project.encoder.prepare_faults[content] = [TransientError("reset") for _ in range(times)]


def make_due(dagster: DagsterProject) -> None:
    with dagster.project.database.transaction() as connection:
        connection.execute(
            text("UPDATE embedding_failures SET next_retry_at = now() WHERE next_retry_at IS NOT NULL")
        )


def postpone(dagster: DagsterProject) -> None:
    with dagster.project.database.transaction() as connection:
        connection.execute(text("UPDATE embedding_failures SET next_retry_at = now() + interval '1 minute'"))


@pytest.fixture
def failed(dagster: DagsterProject) -> DocumentKey:
    """A document with an image that failed for a passing reason, in a run of the sensor's kind."""
    key = dagster.project.ingested("shop/doc", [1, 2])
    fault(dagster, 1, times=4)
    dagster.embed(key)
    assert len(dagster.project.failures(key)) == 1
    return key


def test_a_failure_is_tried_again_when_its_time_has_come_and_not_before(
    dagster: DagsterProject, failed: DocumentKey
) -> None:
    postpone(dagster)
    tick = dagster.tick(NAME)
    assert not tick.run_requests
    assert tick.skip_message == "no failure is due"
    make_due(dagster)
    (request,) = dagster.tick(NAME).run_requests or ()
    assert [key.to_user_string() for key in request.asset_selection or ()] == ["slig_embeddings"]
    assert dagster.launch([request])[0].success
    assert dagster.materialized("slig_embeddings") == {str(failed)}
    assert dagster.project.failures(failed) == []


def test_what_was_requested_is_left_alone_while_its_run_waits(
    dagster: DagsterProject, failed: DocumentKey
) -> None:
    make_due(dagster)
    assert len(dagster.tick(NAME).run_requests or ()) == 1
    assert not dagster.tick(NAME).run_requests


def test_a_retry_whose_run_died_is_requested_anew_with_another_key(
    dagster: DagsterProject, failed: DocumentKey
) -> None:
    keys = set()
    for _ in range(2):
        make_due(dagster)
        (request,) = dagster.tick(NAME).run_requests or ()
        keys.add(request.run_key)
    assert len(keys) == 2


def test_each_run_that_fails_makes_the_wait_longer_until_the_attempts_are_used_up(
    dagster: DagsterProject, failed: DocumentKey
) -> None:
    dagster.configure(retry_max_attempts=12)
    waits = []
    for _ in range(2):
        make_due(dagster)
        fault(dagster, 1, times=4)
        dagster.launch(dagster.tick(NAME).run_requests or ())
        with dagster.project.database.transaction() as connection:
            # by the fake clock, an image's first wait is 5 minutes from its own present
            row = connection.execute(text("SELECT attempts, next_retry_at FROM embedding_failures")).one()
        waits.append(row.next_retry_at.timestamp() - dagster.project.clock.now().timestamp() - 300)
    assert row.attempts == 12
    assert 300 * 0.75 <= waits[0] <= 300 * 1.25
    assert 900 * 0.75 <= waits[1] <= 900 * 1.25
    make_due(dagster)
    assert not dagster.tick(NAME).run_requests


def test_permanent_failures_wait_until_somebody_asks(dagster: DagsterProject) -> None:
    key = dagster.project.ingested("shop/doc", [1])
    dagster.project.encoder.poison[hashlib.sha256(png(1)).hexdigest()] = PermanentError(
        "no such colour space"
    )
    dagster.embed(key)
    make_due(dagster)
    assert not dagster.tick(NAME).run_requests


def test_documents_are_requested_in_chunks_and_no_more_than_so_many_a_tick(dagster: DagsterProject) -> None:
    dagster.configure(documents_per_run=2, documents_per_tick=5)
    keys = [dagster.project.ingested(f"shop/doc{n}", [n]) for n in range(6)]
    for n in range(6):
        fault(dagster, n, times=4)
    dagster.run("embed_document", keys)
    make_due(dagster)
    counts = [
        [int(request.tags["embedding_assets/documents"]) for request in dagster.tick(NAME).run_requests or ()]
        for _ in range(3)
    ]
    assert counts == [[2, 2, 1], [1], []]


def test_an_analysis_that_failed_is_followed_by_its_understanding(dagster: DagsterProject) -> None:
    key = dagster.project.ingested("shop/doc", [1])
    dagster.project.analyzer.faults[hashlib.sha256(png(1)).hexdigest()] = [  # type: ignore[attr-defined]
        TransientError("no answer") for _ in range(4)
    ]
    dagster.run("process_document", [key])
    assert dagster.materialized("understanding_embeddings") == set()
    make_due(dagster)
    (request,) = dagster.tick(NAME).run_requests or ()
    assert dagster.launch([request])[0].success
    assert dagster.materialized("understanding_embeddings") == {str(key)}


def test_after_a_fatal_error_nothing_is_requested_until_the_asset_was_materialized_again(
    dagster: DagsterProject, failed: DocumentKey
) -> None:
    other = dagster.project.ingested("shop/other", [7])
    content = hashlib.sha256(png(7)).hexdigest()
    dagster.project.encoder.poison[content] = FatalError("bad key", hint="get a new one")
    outcome = dagster.embed(other)
    run = dagster.instance.get_run_by_id(outcome.run_id)
    assert run is not None
    assert run.tags["embedding_assets/fatal.slig_embeddings"] == "true"
    for _ in range(3):
        make_due(dagster)
        tick = dagster.tick(NAME)
        assert not tick.run_requests
        assert tick.skip_message == "no failure is due; left alone after a fatal error: slig"
    dagster.project.encoder.poison.clear()
    assert dagster.embed(other).success
    assert len(dagster.tick(NAME).run_requests or ()) == 1


def test_an_image_that_could_not_be_fetched_is_ingested_again_and_goes_the_whole_way(
    dagster: DagsterProject,
) -> None:
    key = dagster.project.ingested("shop/doc", [1])
    with dagster.project.database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO embedding_failures (workspace_id, document_id, stage, error_class, error_type, message, "
                "attempts, next_retry_at) VALUES ('shop', 'doc', 'ingest', 'transient', 'TransientError', "
                "'the folder does not answer', 4, now())"
            )
        )
    (request,) = dagster.tick(NAME).run_requests or ()
    assert len(request.asset_selection or ()) == 5
    assert dagster.launch([request])[0].success
    assert dagster.materialized("understanding_embeddings") == {str(key)}
