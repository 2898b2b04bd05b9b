"""Documents become rows, and follow their content: real files, real database, real HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from embedding_assets.errors import DocumentError
from embedding_assets.ingest.records import ImageStatus
from embedding_assets.keys import DocumentKey, image_id
from embedding_assets.pipeline.checkpoint import read_checkpoint
from embedding_assets.pipeline.retry import LATER
from embedding_assets.pipeline.slig import FLAG, STAGE
from embedding_assets_tests.pipeline.posted_images import LOOPBACK, ImageServer
from embedding_assets_tests.pipeline.project import Project, pdf, png

POSTED = DocumentKey("shop", "posted")


def embed(project: Project, key: DocumentKey) -> None:
    embedder = project.embedder()
    embedder.run(key.workspace_id, embedder.pending(key))


@pytest.fixture
def server(project: Project) -> Iterator[ImageServer]:
    project.fetch = LOOPBACK
    with ImageServer().running() as server:
        yield server


# -- sources become rows ---------------------------------------------------------------------------------------


def test_the_images_of_a_pdf_become_rows_with_their_pages(project: Project) -> None:
    key = project.land("shop/oak.pdf", pdf([1, 2, 3]))
    report = project.ingestor().ingest(key)
    rows = project.rows(key)
    assert [(row.status, row.page_number, row.image_index) for row in rows] == [
        ("ready", 1, 0),
        ("ready", 2, 1),
        ("ready", 3, 2),
    ]
    assert (report.images, report.ready, report.inserted, report.page_count) == (3, 3, 3, 3)
    for row in rows:
        assert hashlib.sha256(project.image_store.get(row.store_key)).hexdigest() == row.content_hash
        assert not row.has_slig_embedding


def test_the_images_of_a_folder_become_rows_with_derived_ids(project: Project) -> None:
    key = project.land_images("shop/swatches", [1, 2])
    project.ingestor().ingest(key)
    contents = [hashlib.sha256(png(seed)).hexdigest() for seed in (1, 2)]
    assert project.ids(key) == [image_id(key, content, 0) for content in contents]
    assert [row.reference for row in project.rows(key)] == ["0000.png", "0001.png"]


def test_a_single_image_is_a_document(project: Project) -> None:
    key = project.land("shop/lobby.png", png(5))
    assert project.ingestor().ingest(key).ready == 1


def test_the_images_of_a_posted_list_become_rows_with_what_the_poster_knows(project: Project) -> None:
    project.land_images("shop/files", [1, 2])
    ingestor = project.ingestor()
    ingestor.register_posted(
        POSTED,
        [
            {
                "path": "files/0000.png",
                "page_number": 7,
                "caption": "Oak",
                "quality_score": 0.5,
                "sku": "A-1",
            },
            {"path": "files/0001.png", "bbox": (1, 2, 3, 4)},
        ],
    )
    assert ingestor.ingest(POSTED).ready == 2
    first, second = project.rows(POSTED)
    assert (first.page_number, first.caption, first.quality_score, first.extra) == (
        7,
        "Oak",
        0.5,
        {"sku": "A-1"},
    )
    assert second.bbox == [1, 2, 3, 4]


def test_the_same_bytes_twice_are_two_images_told_apart_by_occurrence(project: Project) -> None:
    key = project.ingested("shop/twins", [1, 2, 1, 1])
    rows = project.rows(key)
    assert [row.occurrence for row in rows] == [0, 0, 1, 2]
    assert len({row.id for row in rows}) == 4
    assert len({row.store_key for row in rows}) == 2


def test_images_that_cannot_be_used_are_rows_and_failures_and_skipped_ones_are_no_failures(
    project: Project,
) -> None:
    whole = png(1)
    key = project.land(
        "shop/mixed",
        {"a.png": whole, "b.png": whole[:-40], "c.png": png(3, side=16), "d.png": b"not an image at all"},
    )
    report = project.ingestor().ingest(key, run_id="run-1")
    assert (report.ready, report.skipped, report.rejected, report.pending) == (1, 1, 2, 0)
    assert [row.status for row in project.rows(key)] == ["ready", "rejected", "skipped", "rejected"]
    assert all(row.status_reason for row in project.rows(key)[1:])
    failures = project.failures(key)
    assert [(f.index, f.path, f.stage, f.error_class, f.run_id) for f in failures] == [
        (1, "b.png", "ingest", "permanent", "run-1"),
        (3, "d.png", "ingest", "permanent", "run-1"),
    ]


# -- and follow their content ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pdf", "folder", "posted"])
def test_ingesting_an_unchanged_document_again_touches_nothing(project: Project, kind: str) -> None:
    project.land_images("shop/files", [1, 2])
    ingestor = project.ingestor()
    if kind == "posted":
        key = POSTED
        entries = [{"path": "files/0000.png", "bbox": (1.5, 2, 3, 4)}]
        ingestor.register_posted(key, entries)
    else:
        key = project.land("shop/oak.pdf", pdf([1])) if kind == "pdf" else DocumentKey("shop", "files")
    ingestor.ingest(key)
    embed(project, key)
    rows, vectors = project.rows(key), project.vectors(key)
    if kind == "posted":
        ingestor.register_posted(key, entries)
    report = ingestor.ingest(key)
    assert report.unchanged
    assert report.images == report.ready == len(rows)
    assert (report.inserted, report.updated, report.removed) == (0, 0, 0)
    assert project.rows(key) == rows  # updated_at and xmin among the columns
    assert project.vectors(key).keys() == vectors.keys()
    assert ingestor.is_current(key)


def test_a_forced_reading_of_an_unchanged_document_changes_no_row(project: Project) -> None:
    key = project.ingested("shop/files", [1, 2, 1])
    embed(project, key)
    rows = project.rows(key)
    report = project.ingestor().ingest(key, force=True)
    assert not report.unchanged
    assert (report.images, report.inserted, report.updated, report.removed) == (3, 0, 0, 0)
    assert project.rows(key) == rows


def test_a_changed_folder_embeds_what_is_new_and_removes_rows_and_vectors_of_what_left(
    project: Project,
) -> None:
    key = project.land("shop/files", {f"{n}.png": png(n) for n in range(5)})
    other = project.ingested("shop/other", [100])
    project.ingestor().ingest(key)
    embed(project, key)
    embed(project, other)
    before = {row.reference: row for row in project.rows(key)}
    vectors = project.vectors(key)
    # 1 is replaced, 2 is removed, 9 is new
    project.land(
        "shop/files",
        {"0.png": png(0), "1.png": png(50), "3.png": png(3), "4.png": png(4), "9.png": png(9)},
    )
    report = project.ingestor().ingest(key)
    assert (report.inserted, report.removed) == (2, 2)
    after = {row.reference: row for row in project.rows(key)}
    assert list(after) == ["0.png", "1.png", "3.png", "4.png", "9.png"]
    for name in ("0.png", "3.png", "4.png"):
        assert after[name].id == before[name].id
        assert after[name].has_slig_embedding
    gone = {before["1.png"].id, before["2.png"].id}
    assert not gone & set(project.ids(key))
    assert set(project.vectors(key)) == set(vectors) - gone
    project.encoder.calls.clear()
    embed(project, key)
    new = {hashlib.sha256(png(seed)).hexdigest() for seed in (50, 9)}
    assert set(project.encoder.encoded) == new
    assert set(project.vectors(key)) == set(project.ids(key))
    assert len(project.vectors(other)) == 1
    project.check_flags_equal_vectors()


def test_a_renamed_image_keeps_its_id_and_vector(project: Project) -> None:
    key = project.land("shop/files", {"a.png": png(1), "b.png": png(2)})
    project.ingestor().ingest(key)
    embed(project, key)
    ids = project.ids(key)
    project.land("shop/files", {"a.png": png(1), "z.png": png(2)})
    report = project.ingestor().ingest(key)
    assert (report.inserted, report.updated, report.removed) == (0, 1, 0)
    assert project.ids(key) == ids
    assert len(project.vectors(key)) == 2


def test_one_of_two_twins_that_leaves_takes_only_its_own_vector(project: Project) -> None:
    key = project.ingested("shop/files", [1, 1])
    embed(project, key)
    (project.landing / "shop/files/0001.png").unlink()
    assert project.ingestor().ingest(key).removed == 1
    assert project.vectors(key).keys() == {image_id(key, hashlib.sha256(png(1)).hexdigest(), 0)}
    project.check_flags_equal_vectors()


# -- documents that cannot be read -----------------------------------------------------------------------------


def test_a_document_that_broke_keeps_its_rows_and_vectors_and_recovers_when_mended(project: Project) -> None:
    key = project.land("shop/oak.pdf", pdf([1, 2]))
    ingestor = project.ingestor()
    ingestor.ingest(key)
    embed(project, key)
    rows = project.rows(key)
    project.land("shop/oak.pdf", b"%PDF-1.7\nnothing but this line")
    with pytest.raises(DocumentError):
        ingestor.ingest(key, run_id="run-2")
    assert project.rows(key) == rows
    assert len(project.vectors(key)) == 2
    (failure,) = project.failures(key)
    assert (failure.image_id, failure.stage, failure.error_class, failure.run_id) == (
        None,
        "ingest",
        "permanent",
        "run-2",
    )
    assert not ingestor.is_current(key)
    project.land("shop/oak.pdf", pdf([1, 2, 3]))
    report = ingestor.ingest(key)
    assert (report.images, report.inserted, report.removed) == (3, 1, 0)
    assert project.failures(key) == []
    assert ingestor.is_current(key)


def test_a_document_that_was_broken_at_first_is_listed_and_has_no_rows(project: Project) -> None:
    key = project.land("shop/oak.pdf", b"%PDF-1.7\nnothing but this line")
    with pytest.raises(DocumentError):
        project.ingestor().ingest(key)
    assert project.rows(key) == []
    assert len(project.failures(key)) == 1


def test_a_document_that_left_the_landing_folder_is_a_failure_and_keeps_what_it_had(project: Project) -> None:
    key = project.land("shop/oak.pdf", pdf([1]))
    project.ingestor().ingest(key)
    (project.landing / "shop/oak.pdf").unlink()
    with pytest.raises(DocumentError, match="not in the landing folder"):
        project.ingestor().ingest(key)
    assert len(project.rows(key)) == 1
    assert len(project.failures(key)) == 1


def test_an_emptied_folder_is_taken_for_a_mishap(project: Project) -> None:
    key = project.ingested("shop/files", [1, 2])
    project.land("shop/files", {})
    with pytest.raises(DocumentError, match="holds no image file"):
        project.ingestor().ingest(key)
    assert len(project.rows(key)) == 2


def test_a_document_that_is_being_written_is_read_again_after_2_4_8_seconds(project: Project) -> None:
    key = project.land("shop/oak.pdf", pdf([1, 2]))
    path = project.landing / "shop/oak.pdf"
    ingestor = project.ingestor()
    growing = {0: pdf([1, 2, 3]), 1: pdf([1, 2, 3, 4])}  # during the first reading, and during the second
    put = project.image_store.put

    def put_while_the_file_grows(data: bytes, image_format: str) -> str:
        content = growing.pop(len(project.clock.sleeps), None)
        if content is not None:
            path.write_bytes(content)
        return put(data, image_format)

    project.image_store.put = put_while_the_file_grows  # type: ignore[method-assign]
    assert ingestor.ingest(key).images == 4
    assert project.clock.sleeps == [2, 4]
    assert project.failures(key) == []


def test_a_document_that_never_stops_changing_is_a_transient_failure(project: Project) -> None:
    key = project.ingested("shop/oak", [1])
    (project.landing / "shop/oak/0000.png").unlink()
    (project.landing / "shop/oak").rmdir()
    key = project.land("shop/oak.pdf", pdf([1, 2]))
    path = project.landing / "shop/oak.pdf"
    put = project.image_store.put
    versions = iter(range(2, 100))

    def put_while_the_file_grows(data: bytes, image_format: str) -> str:
        path.write_bytes(pdf([1, 2] * next(versions)))
        return put(data, image_format)

    project.image_store.put = put_while_the_file_grows  # type: ignore[method-assign]
    with pytest.raises(DocumentError, match="after 3 retries"):
        project.ingestor().ingest(key)
    assert project.clock.sleeps == [2, 4, 8]
    (failure,) = project.failures(key)
    assert (failure.error_class, failure.attempts) == ("transient", 4)
    assert failure.next_retry_at == project.clock.now() + LATER
    assert project.rows(key) == []


# -- posted lists: retries, single images, refusals ------------------------------------------------------------


def test_posted_images_that_fail_for_a_passing_reason_wait_together_2_4_8_seconds(
    project: Project, server: ImageServer
) -> None:
    for n in range(4):
        server.files[f"/{n}.png"] = png(n)
    server.answers = {"/1.png": [503], "/2.png": [500, 502, 504]}
    ingestor = project.ingestor()
    ingestor.register_posted(POSTED, [{"url": server.url(f"/{n}.png")} for n in range(4)])
    report = ingestor.ingest(POSTED)
    assert project.clock.sleeps == [2, 4, 8]
    assert (report.ready, report.pending) == (4, 0)
    assert [row.image_index for row in project.rows(POSTED)] == [0, 1, 2, 3]
    assert server.asked == {"/0.png": 1, "/1.png": 2, "/2.png": 4, "/3.png": 1}
    assert project.failures(POSTED) == []


def test_a_posted_image_whose_server_stays_down_is_pending_and_fetched_by_the_next_ingest(
    project: Project, server: ImageServer
) -> None:
    server.files = {"/0.png": png(0), "/1.png": png(1)}
    server.answers = {"/1.png": [503] * 4}
    ingestor = project.ingestor()
    ingestor.register_posted(POSTED, [{"url": server.url("/0.png")}, {"url": server.url("/1.png")}])
    report = ingestor.ingest(POSTED, run_id="run-1")
    assert project.clock.sleeps == [2, 4, 8]
    assert (report.ready, report.pending) == (1, 1)
    (failure,) = project.failures(POSTED)
    assert (failure.index, failure.error_class, failure.attempts) == (1, "transient", 4)
    assert failure.message.endswith("HTTP 503 after 3 retries")
    assert failure.next_retry_at == project.clock.now() + timedelta(minutes=5)
    assert not ingestor.is_current(POSTED)

    kept = project.ids(POSTED)[0]
    report = ingestor.ingest(POSTED)
    assert (report.images, report.ready, report.pending) == (2, 2, 0)
    assert project.ids(POSTED)[0] == kept
    assert project.failures(POSTED) == []
    assert ingestor.is_current(POSTED)


def test_what_a_server_refuses_for_good_is_rejected_without_a_wait(
    project: Project, server: ImageServer
) -> None:
    ingestor = project.ingestor()
    ingestor.register_posted(POSTED, [{"url": server.url("/missing.png")}])
    assert ingestor.ingest(POSTED).rejected == 1
    assert project.clock.sleeps == []
    assert "404" in project.failures(POSTED)[0].message


def test_throttled_fetches_wait_as_told_and_cost_no_attempt(project: Project, server: ImageServer) -> None:
    server.files["/0.png"] = png(0)
    server.retry_after = "7"
    server.answers["/0.png"] = [429] * 5
    ingestor = project.ingestor(max_retries=1)
    ingestor.register_posted(POSTED, [{"url": server.url("/0.png")}])
    assert ingestor.ingest(POSTED).ready == 1
    assert project.clock.sleeps == [7] * 5


def test_a_server_that_asks_for_more_patience_than_allowed_leaves_the_image_pending(
    project: Project, server: ImageServer
) -> None:
    server.files["/0.png"] = png(0)
    server.retry_after = "86400"
    server.answers["/0.png"] = [429]
    ingestor = project.ingestor()
    ingestor.register_posted(POSTED, [{"url": server.url("/0.png")}])
    assert ingestor.ingest(POSTED).pending == 1
    assert project.clock.sleeps == []
    assert project.failures(POSTED)[0].error_class == "throttled"


def test_an_added_image_joins_a_posted_document_and_leaves_the_others_alone(project: Project) -> None:
    project.land_images("shop/files", [1, 2, 1])
    ingestor = project.ingestor()
    ids = []
    for n in range(3):
        added, found = ingestor.add_posted_image(POSTED, {"path": f"files/{n:04d}.png", "bbox": (1, 2, 3, 4)})
        assert found.status is ImageStatus.READY
        ids.append(added)
    assert project.ids(POSTED) == ids
    assert [row.occurrence for row in project.rows(POSTED)] == [0, 0, 1]
    # adding one again changes nothing, whatever sequence type its bbox has
    for bbox in ((1, 2, 3, 4), [1, 2, 3, 4]):
        again, _ = ingestor.add_posted_image(POSTED, {"path": "files/0001.png", "bbox": bbox})
        assert again == ids[1]
    assert project.ids(POSTED) == ids
    # and the ids are those that ingesting the whole list gives
    ingestor.ingest(POSTED)
    assert project.ids(POSTED) == ids


def test_an_added_image_that_was_pending_leaves_no_row_of_its_pending_self(
    project: Project, server: ImageServer
) -> None:
    server.files["/0.png"] = png(0)
    server.answers["/0.png"] = [503] * 4
    ingestor = project.ingestor()
    posted = {"url": server.url("/0.png")}
    _, found = ingestor.add_posted_image(POSTED, posted)
    assert found.status is ImageStatus.PENDING
    assert [row.status for row in project.rows(POSTED)] == ["pending"]
    image, found = ingestor.add_posted_image(POSTED, posted)
    assert found.status is ImageStatus.READY
    assert [(row.id, row.status) for row in project.rows(POSTED)] == [(image, "ready")]
    assert project.failures(POSTED) == []


def test_an_embedded_image_that_is_added_again_while_its_server_is_down_keeps_its_vector(
    project: Project, server: ImageServer
) -> None:
    server.files["/0.png"] = png(0)
    ingestor = project.ingestor()
    posted = {"url": server.url("/0.png")}
    image, _ = ingestor.add_posted_image(POSTED, posted)
    embed(project, POSTED)
    server.answers["/0.png"] = [503] * 4
    _, found = ingestor.add_posted_image(POSTED, posted)
    assert found.status is ImageStatus.PENDING
    assert project.vectors(POSTED).keys() == {image}
    # and once the server is back, the pending row is gone again
    assert ingestor.add_posted_image(POSTED, posted)[0] == image
    assert project.ids(POSTED) == [image]
    assert project.failures(POSTED) == []


def test_an_added_image_that_is_broken_is_listed(project: Project) -> None:
    project.land("shop/files", {"a.png": png(1)[:-40]})
    _, found = project.ingestor().add_posted_image(POSTED, {"path": "files/a.png"})
    assert found.status is ImageStatus.REJECTED
    assert [f.index for f in project.failures(POSTED)] == [0]


def test_a_list_cannot_be_posted_over_a_document_of_the_landing_folder(project: Project) -> None:
    key = project.ingested("shop/files", [1])
    with pytest.raises(DocumentError, match="a posted list can't replace it"):
        project.ingestor().register_posted(key, [{"path": "x.png"}])
    with pytest.raises(DocumentError, match="a posted list can't replace it"):
        project.ingestor().add_posted_image(key, {"path": "x.png"})
    assert len(project.rows(key)) == 1


def test_entries_that_are_no_dicts_or_out_of_range_do_not_sink_the_list(project: Project) -> None:
    project.land_images("shop/files", [1, 2])
    ingestor = project.ingestor()
    path = project.landing / "shop/files/0001.png"
    ingestor.register_posted(POSTED, [{"path": "files/0000.png"}, "no dict", {"path": path}])  # type: ignore[list-item]
    report = ingestor.ingest(POSTED)
    assert (report.ready, report.rejected) == (2, 1)
    assert "expected a dict" in project.failures(POSTED)[0].message


def test_a_value_out_of_range_rejects_only_its_entry(project: Project) -> None:
    project.land_images("shop/files", [1, 2])
    ingestor = project.ingestor()
    ingestor.register_posted(
        POSTED, [{"path": "files/0000.png", "page_number": 2**40}, {"path": "files/0001.png"}]
    )
    report = ingestor.ingest(POSTED)
    assert (report.ready, report.rejected) == (1, 1)
    (failure,) = project.failures(POSTED)
    assert "page_number" in failure.message


def test_an_emptied_list_removes_rows_and_vectors(project: Project) -> None:
    project.land_images("shop/files", [1, 2])
    ingestor = project.ingestor()
    ingestor.register_posted(POSTED, [{"path": "files/0000.png"}, {"path": "files/0001.png"}])
    ingestor.ingest(POSTED)
    embed(project, POSTED)
    ingestor.register_posted(POSTED, [])
    assert ingestor.ingest(POSTED).removed == 2
    assert project.vectors(POSTED) == {}


def test_a_checkpoint_is_a_set(project: Project) -> None:
    key = project.ingested("shop/files", [1, 2, 3])
    ids = project.ids(key)
    project.embedder().run("shop", [ids[1]])
    checkpoint = read_checkpoint(project.database, key, FLAG, STAGE)
    assert (checkpoint.done, checkpoint.total, checkpoint.missing) == (1, 3, (ids[0], ids[2]))


def test_images_are_stored_once_however_many_documents_hold_them(project: Project, tmp_path: Path) -> None:
    project.ingested("shop/a", [1, 2])
    project.ingested("shop/b", [2, 3])
    stored = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert len(stored) == 3
    assert json.dumps(sorted(path.stem for path in stored)) == json.dumps(
        sorted(hashlib.sha256(png(seed)).hexdigest() for seed in (1, 2, 3))
    )


def test_a_document_that_is_ingested_twice_at_once_has_each_image_once(project: Project) -> None:
    seeds = [*range(30), 3, 3]
    key = project.land_images("shop/files", seeds)
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda _: project.ingestor().ingest(key, force=True), range(3)))
    assert [report.images for report in reports] == [len(seeds)] * 3
    assert sum(report.inserted for report in reports) == len(seeds)
    assert [row.image_index for row in project.rows(key)] == list(range(len(seeds)))
    embed(project, key)
    assert len(project.vectors(key)) == len(seeds)
