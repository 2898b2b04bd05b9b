"""Asset slig_embeddings: materialized means done, and nothing is retried that can't get better."""

from __future__ import annotations

import hashlib

import dagster as dg
import pytest

from embedding_assets.errors import FatalError, InfrastructureError, PermanentError, TransientError
from embedding_assets.pipeline.slig import FLAG
from embedding_assets_tests.defs.dagster_project import DagsterProject
from embedding_assets_tests.pipeline.fake_encoder import FakeEncoder
from embedding_assets_tests.pipeline.project import png

ASSET = "slig_embeddings"


def content(seed: int) -> str:
    return hashlib.sha256(png(seed)).hexdigest()


def reset(times: int) -> list[Exception]:
    return [TransientError("connection reset") for _ in range(times)]


# -- what is materialized --------------------------------------------------------------------------------------


def test_a_complete_document_is_materialized_with_its_numbers(dagster: DagsterProject) -> None:
    project = dagster.project
    files = {f"{n:02d}.png": png(n) for n in range(24)}
    files["30.png"] = png(30, side=16)
    files["31.png"] = png(31)[:-40]
    key = project.land("shop/doc", files)
    project.encoder.before_encode = lambda contents: setattr(project.clock, "time", project.clock.time + 0.5)
    (outcome,) = dagster.run("process_document", [key])
    assert outcome.success
    metadata = dagster.metadata(ASSET, key)
    counts = {
        "images": 26,
        "embedded": 24,
        "skipped": 1,
        "rejected": 1,
        "missing": 0,
        "failed": 1,
        "coverage": 0.96,
    }
    assert counts.items() <= metadata.items()
    assert metadata["images_per_second"] == pytest.approx(24 / 1.0)
    assert metadata["encode_seconds"] == 1
    table = metadata["failed_images"]
    assert table.startswith("| ")
    assert "31.png" in table
    assert "30.png" not in table
    assert project.encoder.space.space_id in metadata["model"]
    project.check_flags_equal_vectors()


def test_a_chunk_of_documents_shares_full_batches_and_has_metadata_for_each(dagster: DagsterProject) -> None:
    keys = [dagster.project.ingested(f"shop/doc{n}", range(8 * n, 8 * n + 8)) for n in range(5)]
    outcome = dagster.embed(*keys)
    assert outcome.success
    assert outcome.keys == tuple(keys)
    assert [len(call) for call in dagster.project.encoder.calls] == [20, 20]
    assert dagster.materialized(ASSET) == set(map(str, keys))
    assert [dagster.metadata(ASSET, key)["embedded"] for key in keys] == [8] * 5


def test_a_chunk_may_span_workspaces(dagster: DagsterProject) -> None:
    keys = [dagster.project.ingested(f"{workspace}/doc", [1, 2]) for workspace in ("shop", "museum")]
    assert dagster.embed(*keys).success
    dagster.project.check_flags_equal_vectors()


def test_running_again_encodes_nothing_and_materializes(dagster: DagsterProject) -> None:
    key = dagster.project.ingested("shop/doc", range(5))
    dagster.embed(key)
    dagster.project.encoder.calls.clear()
    assert dagster.embed(key).success
    assert dagster.project.encoder.calls == []
    assert dagster.metadata(ASSET, key)["embedded"] == 5


def test_a_document_without_images_to_embed_is_complete(dagster: DagsterProject) -> None:
    key = dagster.project.land("shop/icons", {"a.png": png(1, side=16)})
    (outcome,) = dagster.run("process_document", [key])
    assert outcome.success
    assert dagster.metadata(ASSET, key)["coverage"] == 1


def test_the_work_is_cut_into_steps_of_several_batches(dagster: DagsterProject) -> None:
    dagster.configure(batch_size=4, batches_per_step=2)
    key = dagster.project.ingested("shop/doc", range(20))
    outcome = dagster.embed(key)
    starts = [str(e.step_key) for e in dagster.events(outcome.run_id, dg.DagsterEventType.STEP_SUCCESS)]
    assert len([step for step in starts if "embed_slig" in step]) == 3
    assert [len(call) for call in dagster.project.encoder.calls] == [4] * 5


# -- what is not -----------------------------------------------------------------------------------------------


def test_a_document_with_images_that_may_still_come_is_not_materialized_and_keeps_what_was_saved(
    dagster: DagsterProject,
) -> None:
    project = dagster.project
    key = project.ingested("shop/doc", range(25))
    project.encoder.prepare_faults[content(3)] = reset(4)
    outcome = dagster.embed(key)
    assert not outcome.success
    assert dagster.materialized(ASSET) == set()
    assert "24 of 25 images embedded, 0 skipped, 0 rejected, 1 missing" in outcome.reason
    assert len(project.vectors(key)) == 24
    assert project.clock.sleeps == [2, 4, 8]
    assert dagster.waits(outcome.run_id) == []
    # the next run does the rest
    project.encoder.calls.clear()
    assert dagster.embed(key).success
    assert project.encoder.calls == [[content(3)]]
    assert dagster.metadata(ASSET, key)["embedded"] == 25


def test_one_incomplete_document_in_a_chunk_leaves_the_others_materialized(dagster: DagsterProject) -> None:
    project = dagster.project
    keys = [project.ingested(f"shop/doc{n}", range(10 * n, 10 * n + 4)) for n in range(4)]
    project.encoder.prepare_faults[content(11)] = reset(100)
    outcome = dagster.embed(*keys)
    assert not outcome.success
    assert dagster.materialized(ASSET) == {"shop/doc0", "shop/doc2", "shop/doc3"}
    assert "1 of 4 documents are not complete" in outcome.reason
    assert "shop/doc1: 3 of 4 images embedded" in outcome.reason
    assert "shop/doc2" not in outcome.reason
    assert dagster.metadata(ASSET, keys[3])["embedded"] == 4


def test_a_document_that_is_not_ingested_fails_with_what_to_do(dagster: DagsterProject) -> None:
    key = dagster.project.land_images("shop/doc", [1])
    outcome = dagster.embed(key)
    assert not outcome.success
    assert "not ingested yet" in outcome.reason
    assert "document_images" in outcome.reason


def test_a_document_of_a_chunk_that_is_not_ingested_leaves_the_others_materialized(
    dagster: DagsterProject,
) -> None:
    project = dagster.project
    keys = [
        project.ingested("shop/a", [1]),
        project.land_images("shop/b", [2]),
        project.ingested("shop/c", [3]),
    ]
    outcome = dagster.embed(*keys)
    assert not outcome.success
    assert dagster.materialized(ASSET) == {"shop/a", "shop/c"}
    assert "shop/b: its latest content is not ingested" in outcome.reason


def test_a_document_whose_latest_content_could_not_be_read_is_not_materialized(
    dagster: DagsterProject,
) -> None:
    project = dagster.project
    key = project.ingested("shop/doc", [1])
    (project.landing / "shop/doc/0000.png").unlink()
    dagster.run("ingest_document", [key])
    outcome = dagster.embed(key)
    assert not outcome.success
    assert "its latest content is not ingested" in outcome.reason
    assert dagster.materialized(ASSET) == set()


def test_coverage_below_the_minimum_fails_and_the_minimum_is_run_config(dagster: DagsterProject) -> None:
    project = dagster.project
    key = project.ingested("shop/doc", range(10))
    project.encoder.poison[content(7)] = PermanentError("no such colour space")
    outcome = dagster.embed(key)
    assert not outcome.success
    assert "coverage 0.9000 is below the minimum 0.95" in outcome.reason
    assert dagster.materialized(ASSET) == set()
    assert dagster.embed(key, min_coverage=0.9).success
    assert dagster.metadata(ASSET, key)["coverage"] == 0.9
    assert "no such colour space" in dagster.metadata(ASSET, key)["failed_images"]


# -- run config ------------------------------------------------------------------------------------------------


def test_batch_size_and_max_retries_are_run_config(dagster: DagsterProject) -> None:
    project = dagster.project
    key = project.ingested("shop/doc", range(10))
    project.encoder.prepare_faults[content(0)] = reset(100)
    dagster.embed(key, batch_size=3, max_retries=1)
    assert max(len(call) for call in project.encoder.calls) == 3
    assert project.clock.sleeps == [2]


@pytest.mark.parametrize("config", [{"batch_size": 0}, {"max_retries": -1}, {"min_coverage": 1.5}])
def test_config_that_makes_no_sense_is_refused(dagster: DagsterProject, config: dict[str, float]) -> None:
    key = dagster.project.ingested("shop/doc", [1])
    with pytest.raises(dg.DagsterConfigMappingFunctionError) as caught:
        dagster.embed(key, **config)
    assert next(iter(config)) in str(caught.value.__cause__)


def test_the_config_fields_say_what_they_are_for(dagster: DagsterProject) -> None:
    graph = dagster.defs.resolve_job_def("embed_document").graph.node_dict[ASSET].definition
    fields = graph.config_schema.config_type.fields  # type: ignore[union-attr]
    assert {"batch_size", "max_retries", "min_coverage"} <= set(fields)
    for name in ("batch_size", "max_retries", "min_coverage"):
        assert fields[name].description


# -- what is retried, and what is not --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [FatalError("bad key", hint="get a new one"), ValueError("a fault of the program")]
)
def test_what_cannot_get_better_fails_the_step_without_a_retry(
    dagster: DagsterProject, error: Exception
) -> None:
    project = dagster.project
    key = project.ingested("shop/doc", [1, 2])
    project.encoder.poison = {content(1): error, content(2): error}
    outcome = dagster.embed(key)
    assert not outcome.success
    assert str(error) in outcome.reason
    assert len(dagster.events(outcome.run_id, dg.DagsterEventType.STEP_FAILURE)) == 1
    assert (
        sum(project.encoder.tried.values()) <= 6
    )  # one call, and for the unknown error the bisection of two
    assert dagster.waits(outcome.run_id) == []
    assert project.failures(key) == []


def test_an_error_that_is_none_of_ours_is_not_retried_by_the_ops_policy(
    dagster: DagsterProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = dagster.project.ingested("shop/doc", [1])
    calls = []

    def broken(*arguments: object) -> None:
        calls.append(arguments)
        raise ZeroDivisionError("a fault of the program")

    monkeypatch.setattr("embedding_assets.defs.assets.stage_asset.plan_steps", broken)
    outcome = dagster.embed(key)
    assert len(calls) == 1
    assert dagster.waits(outcome.run_id) == []
    assert outcome.reason == "ZeroDivisionError: a fault of the program"


def test_a_model_of_another_space_is_refused_before_anything_is_encoded(dagster: DagsterProject) -> None:
    project = dagster.project
    key = project.ingested("shop/doc", [1])
    dagster.embed(key)
    project.encoder = FakeEncoder(dimension=48, model="other-model")
    outcome = dagster.embed(project.ingested("shop/new", [2]))
    assert not outcome.success
    for part in ("32-D", "48-D", "configure the model that made the vectors"):
        assert part in outcome.reason
    assert project.encoder.calls == []
    assert dagster.waits(outcome.run_id) == []


def test_what_fails_every_batch_is_retried_by_the_op_after_2_4_8_seconds(dagster: DagsterProject) -> None:
    project = dagster.project
    dagster.configure(batch_size=4, batches_per_step=2)
    key = project.ingested("shop/doc", range(16))
    outages = [InfrastructureError("the device is gone") for _ in range(3)]

    def fail(contents: list[str]) -> None:
        if content(9) in contents and outages:
            raise outages.pop()

    project.encoder.before_encode = fail
    outcome = dagster.embed(key)
    assert outcome.success
    waits = dagster.waits(outcome.run_id)
    assert [seconds for _, seconds in waits] == [2, 4, 8]
    assert len({step for step, _ in waits}) == 1
    assert project.clock.sleeps == []
    assert project.failures(key) == []
    # each batch is committed by itself: what the step had done before it failed is not done again
    assert project.encoder.encoded.total() == 16
    project.check_flags_equal_vectors()


def test_what_fails_every_batch_for_longer_fails_the_step_and_blames_no_image(
    dagster: DagsterProject,
) -> None:
    project = dagster.project
    key = project.ingested("shop/doc", [1, 2])
    project.encoder.poison[content(1)] = InfrastructureError("the device is gone")
    outcome = dagster.embed(key)
    assert not outcome.success
    assert outcome.reason.startswith("the device is gone")
    assert [seconds for _, seconds in dagster.waits(outcome.run_id)] == [2, 4, 8]
    assert project.encoder.tried[content(1)] == 4
    assert project.failures(key) == []


def test_retries_of_images_and_of_ops_do_not_multiply(dagster: DagsterProject) -> None:
    """An image whose attempts are used up is not tried again when its op is retried for another reason."""
    project = dagster.project
    dagster.configure(batch_size=2, batches_per_step=5)
    key = project.ingested("shop/doc", range(6))
    attempts = []
    prepare = project.encoder.prepare

    def counting(data: bytes) -> object:
        if hashlib.sha256(data).hexdigest() == content(0):
            attempts.append(data)
            raise TransientError("connection reset")
        return prepare(data)

    project.encoder.prepare = counting  # type: ignore[method-assign,assignment]
    outages = [InfrastructureError("the device is gone"), InfrastructureError("the device is gone")]

    def fail(contents: list[str]) -> None:
        if content(5) in contents and outages:
            raise outages.pop()

    project.encoder.before_encode = fail
    outcome = dagster.embed(key)
    assert not outcome.success
    assert [seconds for _, seconds in dagster.waits(outcome.run_id)] == [2, 4]
    assert len(attempts) == 4
    assert project.clock.sleeps == [2, 4, 8]
    assert sum(getattr(row, FLAG) for row in project.rows(key)) == 5
    assert project.failures(key)[0].attempts == 4


@pytest.mark.parametrize("outages", [1, 2])
def test_a_database_that_is_away_while_the_work_is_planned_is_waited_for(
    dagster: DagsterProject, outages: int
) -> None:
    key = dagster.project.ingested("shop/doc", [1])
    dagster.project.database.outages = outages  # type: ignore[attr-defined]
    outcome = dagster.embed(key)
    assert outcome.success
    assert dagster.waits(outcome.run_id) == [("plan_slig", wait) for wait in (2, 4)[:outages]]


def test_a_run_that_is_stopped_stops_and_tries_no_step_again(dagster: DagsterProject) -> None:
    key = dagster.project.ingested("shop/doc", range(8))
    calls: list[int] = []

    def stop_at_the_second_batch(contents: list[str]) -> None:
        calls.append(len(contents))
        if len(calls) == 2:
            raise KeyboardInterrupt  # as the termination of a run arrives in a step

    dagster.project.encoder.before_encode = stop_at_the_second_batch
    assert not dagster.embed(key, batch_size=4).success
    assert calls == [4, 4]
    assert len(dagster.project.vectors(key)) == 4
    assert dagster.materialized("slig_embeddings") == set()
    dagster.project.encoder.before_encode = lambda contents: None
    assert dagster.embed(key, batch_size=4).success
    assert len(dagster.project.vectors(key)) == 8
