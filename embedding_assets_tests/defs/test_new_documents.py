"""Sensor new_documents, tick by tick, on a real landing folder and instance."""

from __future__ import annotations

import hashlib
import os

import pytest
from sqlalchemy import text

from embedding_assets.pipeline.asset_stages import assets_in_use
from embedding_assets_tests.defs.dagster_project import DagsterProject
from embedding_assets_tests.pipeline.project import png

NAME = "new_documents"
BROKEN_PDF = b"%PDF-1.7\nnothing but this line"


@pytest.fixture
def dagster(dagster: DagsterProject) -> DagsterProject:
    dagster.configure(landing_settle_s=30.0)
    return dagster


def later(dagster: DagsterProject, seconds: float = 60) -> None:
    """Lets time pass for what has landed."""
    with dagster.project.database.transaction() as connection:
        connection.execute(
            text("UPDATE landed_documents SET seen_at = seen_at - make_interval(secs => :s)"), {"s": seconds}
        )


def settled_tick(dagster: DagsterProject, *, launch: bool = True) -> list[str]:
    """Ticks until what lies there is settled, and launches what is requested; returns the run keys."""
    dagster.tick(NAME)
    later(dagster)
    requests = dagster.tick(NAME).run_requests or ()
    if launch:
        dagster.launch(requests)
    return [str(request.run_key) for request in requests]


def test_a_document_is_taken_on_the_tick_after_it_has_settled_and_goes_the_whole_way(
    dagster: DagsterProject,
) -> None:
    key = dagster.project.land_images("shop/doc", [1, 2])
    first = dagster.tick(NAME)
    assert not first.run_requests
    assert "1 perhaps still being written" in str(first.skip_message)
    later(dagster)
    (request,) = dagster.tick(NAME).run_requests or ()
    assert request.job_name == "process_document"
    assert request.tags["dagster/partition"] == "shop/doc"
    (result,) = dagster.launch([request])
    assert result.success
    for asset in assets_in_use(dagster.settings):
        assert dagster.materialized(asset) == {str(key)}
    # Checks over the whole corpus run by the clock, not with every document.
    assert {evaluation.check_name for evaluation in result.get_asset_check_evaluations()} == {
        "documents_done"
    }
    later(dagster)
    assert not dagster.tick(NAME).run_requests


def test_the_run_key_holds_the_document_and_its_content(dagster: DagsterProject) -> None:
    dagster.project.land("shop/a.png", png(1))
    (run_key,) = settled_tick(dagster)
    content = hashlib.sha256(png(1)).hexdigest()
    assert run_key.startswith("shop/a.png:")
    with dagster.project.database.transaction() as connection:
        row = connection.execute(text("SELECT content_hash FROM landed_documents")).one()
    assert row.content_hash in run_key
    dagster.project.land("shop/a.png", png(2))
    (changed,) = settled_tick(dagster)
    assert changed != run_key
    assert content != row.content_hash  # the limits of ingest are part of it


def test_a_file_that_grows_is_left_alone_until_it_stays_the_same(dagster: DagsterProject) -> None:
    whole = png(1)
    for end in (20, 40, 60):
        dagster.project.land("shop/a.png", whole[:end])
        assert not dagster.tick(NAME).run_requests
        later(dagster)
    dagster.project.land("shop/a.png", whole)
    os.utime(dagster.project.landing / "shop/a.png", (1, 1))  # as a copy that keeps the original's time
    assert not dagster.tick(NAME).run_requests
    later(dagster)
    assert len(dagster.tick(NAME).run_requests or ()) == 1


def test_unfinished_names_and_empty_folders_are_not_taken(dagster: DagsterProject) -> None:
    dagster.project.land("shop/a.pdf.part", b"x")
    dagster.project.land("shop/.b.pdf.copying", b"x")
    (dagster.project.landing / "shop/soon").mkdir()
    assert settled_tick(dagster) == []
    assert dagster.instance.get_dynamic_partitions("documents") == []


def test_a_touched_document_is_read_but_not_run_again(dagster: DagsterProject) -> None:
    dagster.project.land_images("shop/doc", [1])
    settled_tick(dagster)
    os.utime(dagster.project.landing / "shop/doc/0000.png", (1, 1))
    dagster.tick(NAME)
    later(dagster)
    tick = dagster.tick(NAME)
    assert not tick.run_requests
    assert "1 touched but unchanged" in str(tick.skip_message)


def test_a_document_that_was_ingested_by_hand_is_not_run_again(dagster: DagsterProject) -> None:
    dagster.project.ingested("shop/doc", [1])
    assert settled_tick(dagster) == []


def test_a_changed_document_is_run_again_and_so_is_one_that_changes_back(dagster: DagsterProject) -> None:
    keys = []
    for seeds in ([1], [1, 2], [1], [1, 2]):
        key = dagster.project.land_images("shop/doc", seeds)
        dagster.tick(NAME)
        later(dagster)
        tick = dagster.tick(NAME)
        (request,) = tick.run_requests or ()
        keys.append(request.run_key)
        assert [result.success for result in dagster.launch([request])] == [True]
        assert len(dagster.project.ids(key)) == len(seeds)
    assert len(set(keys)) == 4


def test_a_document_that_is_in_flight_is_not_requested_again(dagster: DagsterProject) -> None:
    dagster.project.land_images("shop/doc", [1])
    dagster.tick(NAME)
    later(dagster)
    requests = dagster.tick(NAME).run_requests or ()
    dagster.launch(requests)
    for _ in range(3):
        later(dagster)
        assert not dagster.tick(NAME).run_requests


def test_a_request_that_was_lost_with_the_daemon_is_made_again_with_the_same_key(
    dagster: DagsterProject,
) -> None:
    keys = [dagster.project.land_images(f"shop/doc{n}", [n]) for n in range(3)]
    lost = settled_tick(dagster, launch=False)
    (request,) = dagster.tick(NAME).run_requests or ()
    assert [request.run_key] == lost
    dagster.launch([request])
    assert dagster.materialized("slig_embeddings") == set(map(str, keys))
    assert not dagster.tick(NAME).run_requests


def test_a_document_that_cannot_be_read_is_requested_once_so_that_its_run_says_why(
    dagster: DagsterProject,
) -> None:
    key = dagster.project.land("shop/broken.pdf", BROKEN_PDF)
    dagster.tick(NAME)
    later(dagster)
    (result,) = dagster.launch(dagster.tick(NAME).run_requests or ())
    assert not result.success
    assert dagster.project.failures(key)
    later(dagster)
    assert not dagster.tick(NAME).run_requests


def test_a_tick_takes_so_many_documents_and_leaves_the_rest(dagster: DagsterProject) -> None:
    dagster.configure(documents_per_tick=5, documents_per_run=2)
    for n in range(12):
        dagster.project.land(f"shop/{n:02d}.png", png(n))
    dagster.tick(NAME)
    later(dagster)
    counts = []
    for _ in range(4):
        requests = dagster.tick(NAME).run_requests or ()
        dagster.launch(requests)
        counts.append([int(request.tags["embedding_assets/documents"]) for request in requests])
    assert counts == [[2, 2, 1], [2, 2, 1], [2], []]
    assert len(dagster.materialized("slig_embeddings")) == 12


def test_a_burst_of_a_thousand_documents_is_twenty_runs(dagster: DagsterProject) -> None:
    folder = dagster.project.landing / "shop"
    folder.mkdir(parents=True)
    for n in range(1000):
        (folder / f"{n:04d}.png").write_bytes(b"%d" % n)
    dagster.tick(NAME)
    later(dagster)
    requests = dagster.tick(NAME).run_requests or ()
    assert len(requests) == 20
    assert requests[3].tags["dagster/asset_partition_range_start"] == "shop/0150.png"
    assert requests[3].tags["dagster/asset_partition_range_end"] == "shop/0199.png"
    assert len(dagster.instance.get_dynamic_partitions("documents")) == 1000
    assert len({request.run_key for request in requests}) == 20


def test_without_vision_analysis_the_chain_is_that_of_the_other_assets(dagster: DagsterProject) -> None:
    dagster.configure(vision_provider="off")
    dagster.project.land_images("shop/doc", [1])
    dagster.tick(NAME)
    later(dagster)
    (request,) = dagster.tick(NAME).run_requests or ()
    assert {key.to_user_string() for key in request.asset_selection or ()} == {
        "document_images",
        "slig_embeddings",
        "text_embeddings",
    }
    assert dagster.launch([request])[0].success
