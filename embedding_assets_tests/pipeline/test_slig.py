"""The SLIG stage on real rows and files, with an encoder that fails as told."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from embedding_assets.errors import (
    FatalError,
    ImageRejected,
    InfrastructureError,
    PermanentError,
    SpaceMismatch,
    StoreUnavailable,
    TransientError,
)
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.slig import FLAG, STAGE
from embedding_assets.store.database import Database
from embedding_assets.store.documents import coverage_of_document
from embedding_assets.store.failures import release_for_retry
from embedding_assets_tests.pipeline.fake_encoder import FakeEncoder
from embedding_assets_tests.pipeline.project import Project, png
from embedding_assets_tests.pipeline.reused_database import empty


def content(seed: int) -> str:
    return hashlib.sha256(png(seed)).hexdigest()


def passing(times: int) -> list[Exception]:
    return [TransientError("connection reset") for _ in range(times)]


# -- batches ---------------------------------------------------------------------------------------------------


def test_batches_are_full_across_documents(project: Project) -> None:
    keys = [project.ingested(f"shop/doc{n}", range(10 * n, 10 * n + 5)) for n in range(5)]
    ids = [i for key in keys for i in project.ids(key)]
    report = project.embedder(batch_size=10).run("shop", ids)
    assert [len(call) for call in project.encoder.calls] == [10, 10, 5]
    assert (report.embedded, report.batches, report.calls, report.encoded) == (25, 3, 3, 25)
    project.check_flags_equal_vectors()


def test_embedding_again_does_nothing(project: Project) -> None:
    key = project.ingested("shop/doc", [*range(7), 3])
    embedder = project.embedder(batch_size=3)
    ids = project.ids(key)
    assert embedder.run("shop", ids).embedded == 8
    rows, vectors = project.rows(key), project.vectors(key)
    project.encoder.calls.clear()
    report = embedder.run("shop", ids)
    assert project.encoder.calls == []
    assert (report.embedded, report.copied, report.calls, report.failed) == (0, 0, 0, [])
    assert project.rows(key) == rows
    assert project.vectors(key).keys() == vectors.keys()
    assert embedder.pending(key) == []


def test_images_given_twice_are_embedded_once(project: Project) -> None:
    key = project.ingested("shop/doc", [1, 2])
    ids = project.ids(key)
    report = project.embedder(batch_size=2).run("shop", [*ids, *ids, ids[0]])
    assert (report.embedded, report.encoded) == (2, 2)
    project.check_flags_equal_vectors()


def test_the_same_bytes_in_a_workspace_are_encoded_once_and_copied(project: Project) -> None:
    first = project.ingested("shop/a", [1, 2, 1])
    embedder = project.embedder()
    report = embedder.run("shop", project.ids(first))
    assert (report.embedded, report.copied, report.encoded) == (3, 1, 2)
    second = project.ingested("shop/b", [2, 3])
    report = embedder.run("shop", project.ids(second))
    assert (report.embedded, report.copied, report.encoded) == (2, 1, 1)
    assert project.encoder.encoded == {content(1): 1, content(2): 1, content(3): 1}
    project.check_flags_equal_vectors()


def test_vectors_are_not_copied_from_another_workspace(project: Project) -> None:
    for workspace in ("shop", "museum"):
        key = project.ingested(f"{workspace}/doc", [1])
        report = project.embedder().run(workspace, project.ids(key))
        assert (report.embedded, report.copied, report.encoded) == (1, 0, 1)
    assert project.encoder.encoded == {content(1): 2}


def test_images_of_another_workspace_are_left_alone(project: Project) -> None:
    key = project.ingested("museum/doc", [1])
    report = project.embedder().run("shop", project.ids(key))
    assert report.embedded == 0
    assert project.vectors() == {}


def test_a_twin_is_tried_itself_where_the_first_one_failed(project: Project) -> None:
    key = project.ingested("shop/doc", [1, 1])
    project.encoder.prepare_faults[content(1)] = [ImageRejected("odd"), *passing(1)]
    report = project.embedder().run("shop", project.ids(key), run_id="run-1")
    assert report.embedded == 1
    assert project.clock.sleeps == [2]
    project.check_flags_equal_vectors()


def test_the_last_batch_is_saved_when_a_later_one_raises(project: Project) -> None:
    key = project.ingested("shop/doc", range(9))
    project.encoder.poison[content(7)] = InfrastructureError("the device is gone")
    embedder = project.embedder(batch_size=3)
    with pytest.raises(InfrastructureError):
        embedder.run("shop", project.ids(key), run_id="run-1")
    assert len(project.vectors(key)) == 6
    assert project.failures(key) == []
    project.encoder.poison.clear()
    assert embedder.run("shop", embedder.pending(key, "run-1"), run_id="run-1").embedded == 3
    project.check_flags_equal_vectors()


def test_progress_is_told_after_each_batch(project: Project) -> None:
    key = project.ingested("shop/doc", [*range(5), 0])
    seen: list[int] = []
    project.embedder(batch_size=2).run(
        "shop", project.ids(key), progress=lambda report: seen.append(report.embedded)
    )
    assert seen[:3] == [2, 4, 5]


def test_the_report_says_where_the_time_went(project: Project) -> None:
    key = project.ingested("shop/doc", range(6))
    embedder = project.embedder(batch_size=3)
    clock = project.clock

    class TickingEncoder(FakeEncoder):
        def prepare(self, data: bytes) -> object:  # type: ignore[override]
            clock.time += 0.25
            return super().prepare(data)

    encoder = TickingEncoder()
    encoder.before_encode = lambda contents: setattr(clock, "time", clock.time + 10)
    encoder.encode_faults[content(4)] = passing(2)
    embedder.encoder = encoder
    embedder.decode_threads = 1
    report = embedder.run("shop", project.ids(key))
    assert clock.sleeps == [2, 4]
    assert report.wait_s == 6
    assert report.encode_s >= 10 * report.calls == 40
    assert report.decode_s >= 0.25 * 12
    assert report.write_s >= 0
    assert report.elapsed_s >= report.encode_s + report.wait_s
    assert report.images_per_second == pytest.approx(6 / (report.elapsed_s - 6))
    assert report.retries == 6


# -- failures --------------------------------------------------------------------------------------------------


def test_an_image_whose_attempts_are_used_up_is_not_tried_again_in_the_same_run(project: Project) -> None:
    key = project.ingested("shop/doc", range(5))
    project.encoder.prepare_faults[content(2)] = passing(4)
    embedder = project.embedder()
    report = embedder.run("shop", project.ids(key), run_id="run-1")
    assert project.clock.sleeps == [2, 4, 8]
    (failed,) = report.failed
    assert (failed.index, failed.path, failed.attempts, failed.error_class) == (2, "0002.png", 4, "transient")
    (record,) = project.failures(key)
    assert (record.image_id, record.stage, record.attempts, record.run_id) == (
        project.ids(key)[2],
        STAGE,
        4,
        "run-1",
    )
    assert record.next_retry_at is not None
    assert record.message == "connection reset after 3 retries"

    again = embedder.run("shop", project.ids(key), run_id="run-1")
    assert (again.embedded, again.failed, again.calls) == (0, [], 0)
    assert embedder.pending(key, "run-1") == []

    assert embedder.pending(key, "run-2") == embedder.pending(key) == [project.ids(key)[2]]
    assert embedder.run("shop", project.ids(key), run_id="run-2").embedded == 1
    assert project.failures(key) == []
    project.check_flags_equal_vectors()


def test_attempts_add_up_over_runs(project: Project) -> None:
    key = project.ingested("shop/doc", [1])
    project.encoder.prepare_faults[content(1)] = passing(100)
    for run in ("run-1", "run-2"):
        project.embedder().run("shop", project.ids(key), run_id=run)
    (record,) = project.failures(key)
    assert (record.attempts, record.run_id) == (8, "run-2")


def test_a_permanent_failure_waits_until_somebody_asks(project: Project) -> None:
    key = project.ingested("shop/doc", range(4))
    project.encoder.poison[content(1)] = PermanentError("no such colour space")
    embedder = project.embedder()
    report = embedder.run("shop", project.ids(key), run_id="run-1")
    assert report.embedded == 3
    assert project.clock.sleeps == []
    assert [f.error_class for f in project.failures(key)] == ["permanent"]
    project.encoder.poison.clear()
    tried = project.encoder.tried[content(1)]
    assert embedder.run("shop", project.ids(key), run_id="run-2").embedded == 0
    assert embedder.pending(key) == []
    assert project.encoder.tried[content(1)] == tried

    with project.database.transaction() as connection:
        assert release_for_retry(connection, key, STAGE) == 1
    assert embedder.run("shop", embedder.pending(key), run_id="run-3").embedded == 1
    assert project.failures(key) == []


def test_a_file_that_is_gone_from_the_image_store_fails_alone(project: Project, tmp_path: Path) -> None:
    key = project.ingested("shop/doc", range(4))
    (tmp_path / "images" / project.rows(key)[1].store_key).unlink()
    (tmp_path / "images" / project.rows(key)[2].store_key).write_bytes(b"short")
    report = project.embedder().run("shop", project.ids(key))
    assert report.embedded == 2
    assert [(f.index, f.error_class) for f in report.failed] == [(1, "permanent"), (2, "permanent")]
    assert project.encoder.calls == [[content(0), content(3)]]


def test_a_failure_is_not_booked_against_an_image_that_another_process_has_embedded_meanwhile(
    project: Project,
) -> None:
    key = project.ingested("shop/doc", [1, 2, 3])
    ids = project.ids(key)
    other = project.embedder(encoder=FakeEncoder())
    project.encoder.before_encode = lambda contents: other.run("shop", ids) and None
    project.encoder.poison[content(2)] = PermanentError("broken here, not there")
    report = project.embedder().run("shop", ids)
    assert report.embedded == 0
    assert project.failures(key) == []
    project.check_flags_equal_vectors()


def test_an_image_that_leaves_its_document_while_it_is_encoded_leaves_nothing_behind(
    project: Project,
) -> None:
    key = project.ingested("shop/doc", [1, 2, 3])
    ids = project.ids(key)

    def drop_one(contents: list[str]) -> None:
        (project.landing / "shop/doc/0001.png").unlink(missing_ok=True)
        project.ingestor().ingest(key)

    project.encoder.before_encode = drop_one
    assert project.embedder().run("shop", ids).embedded == 2
    assert len(project.vectors()) == 2
    project.check_flags_equal_vectors()


# -- pre-flight ------------------------------------------------------------------------------------------------


def test_a_model_of_another_space_is_refused_with_the_numbers_of_both(project: Project) -> None:
    key = project.ingested("shop/doc", [1])
    project.embedder().run("shop", project.ids(key))
    other = FakeEncoder(dimension=48, model="other-model")
    embedder = project.embedder(encoder=other)
    for call in (embedder.open_collection, lambda: embedder.run("shop", project.ids(key))):
        with pytest.raises(SpaceMismatch) as caught:
            call()
        message = str(caught.value)
        for part in ("32-D", "48-D", "fake-encoder", "other-model", project.encoder.space.space_id):
            assert part in message
        assert other.space.space_id in message
    assert other.calls == []


def test_a_model_of_the_same_dimension_but_another_space_is_refused(project: Project) -> None:
    project.embedder().open_collection()
    with pytest.raises(SpaceMismatch):
        project.embedder(encoder=FakeEncoder(model="other-model")).open_collection()


@pytest.mark.parametrize("error", [FatalError("bad key"), StoreUnavailable("gone")])
def test_errors_that_concern_no_image_record_nothing(project: Project, error: Exception) -> None:
    key = project.ingested("shop/doc", range(3))
    project.encoder.poison[content(0)] = error
    with pytest.raises(type(error)):
        project.embedder().run("shop", project.ids(key))
    assert project.failures(key) == []
    assert project.clock.sleeps == []


# -- whatever happens ------------------------------------------------------------------------------------------

fates = st.one_of(
    st.just(("fine", 0)),
    st.tuples(st.sampled_from(["read fails", "encoder fails"]), st.integers(1, 5)),
    st.tuples(st.sampled_from(["poison", "bad bytes", "small", "truncated"]), st.just(0)),
)


@hypothesis_settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    images=st.lists(st.tuples(st.integers(0, 11), fates), min_size=1, max_size=24),
    batch_size=st.integers(1, 8),
    max_retries=st.integers(0, 3),
    data=st.data(),
)
def test_afterwards_every_image_is_embedded_or_has_an_open_failure(
    database: Database,
    tmp_path: Path,
    images: list[tuple[int, tuple[str, int]]],
    batch_size: int,
    max_retries: int,
    data: st.DataObject,
) -> None:
    empty(database)
    project = Project(database, tmp_path / uuid.uuid4().hex)
    key = _document_with_fates(project, images)
    embedder = project.embedder(batch_size, max_retries)
    ids = data.draw(st.permutations(embedder.pending(key)))
    report = embedder.run("shop", ids, run_id="run-1")
    _check_all_accounted_for(project, key)
    counts = Counter(row.has_slig_embedding for row in project.rows(key))
    assert report.embedded == counts[True]
    assert set(project.clock.sleeps) <= {2, 4, 8}
    # and again, until nothing changes any more
    for run in ("run-2", "run-3", "run-4", "run-5", "run-6"):
        embedder.run("shop", embedder.pending(key, run), run_id=run)
        _check_all_accounted_for(project, key)
    lasting = {f.error_class for f in project.failures(key)}
    assert lasting <= {"permanent"}


def _document_with_fates(project: Project, images: list[tuple[int, tuple[str, int]]]) -> DocumentKey:
    files = {}
    for n, (seed, (fate, times)) in enumerate(images):
        name = f"{n:04d}.png"
        files[name] = png(seed, side=16) if fate == "small" else png(seed)
        if fate == "truncated":
            files[name] = files[name][:-30]
        elif fate == "read fails":
            project.encoder.prepare_faults[content(seed)] = passing(times)
        elif fate == "encoder fails":
            project.encoder.encode_faults[content(seed)] = passing(times)
        elif fate == "poison":
            project.encoder.poison[content(seed)] = PermanentError("poison")
        elif fate == "bad bytes":
            project.encoder.prepare_faults[content(seed)] = [ImageRejected("bad")] * 100
    key = project.land("shop/doc", files)
    project.ingestor().ingest(key)
    return key


def _check_all_accounted_for(project: Project, key: DocumentKey) -> None:
    failed = {failure.image_id for failure in project.failures(key)}
    for row in project.rows(key):
        if row.status == "ready":
            assert row.has_slig_embedding != (row.id in failed), row.reference
        elif row.status == "rejected":
            assert row.id in failed
    project.check_flags_equal_vectors()
    with project.database.transaction() as connection:
        coverage = coverage_of_document(connection, key, FLAG, STAGE)
    assert coverage.total == coverage.embedded + coverage.skipped + coverage.rejected + coverage.missing
