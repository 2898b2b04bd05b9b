"""How documents become partitions and runs."""

from __future__ import annotations

import dagster as dg
import pytest

from embedding_assets.defs.execution import partition_runs, run_job
from embedding_assets.defs.partitions import register_partitions
from embedding_assets.keys import DocumentKey
from embedding_assets_tests.defs.dagster_project import DagsterProject

KEYS = [DocumentKey("shop", f"doc{n}") for n in range(10)]


@pytest.fixture
def instance() -> dg.DagsterInstance:
    instance = dg.DagsterInstance.ephemeral()
    register_partitions(instance, KEYS)
    return instance


def positions(runs: list[list[DocumentKey]]) -> list[list[int]]:
    return [[KEYS.index(key) for key in run] for run in runs]


@pytest.mark.parametrize(
    ("wanted", "size", "expected"),
    [
        ([], 3, []),
        ([4], 3, [[4]]),
        (range(10), 50, [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]),
        (range(10), 4, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        ([0, 1, 3, 4, 5, 9], 4, [[0, 1], [3, 4, 5], [9]]),
        ([9, 8, 0, 8, 9, 1], 4, [[0, 1], [8, 9]]),
        (range(3), 1, [[0], [1], [2]]),
    ],
)
def test_runs_are_ranges_of_neighbours_and_no_larger_than_asked(
    instance: dg.DagsterInstance, wanted: list[int], size: int, expected: list[list[int]]
) -> None:
    assert positions(partition_runs(instance, [KEYS[n] for n in wanted], size)) == expected


def test_partitions_are_added_once_and_in_order(instance: dg.DagsterInstance) -> None:
    new = [DocumentKey("museum", name) for name in ("b", "a", "b")]
    assert register_partitions(instance, [*KEYS, *new]) == 2
    assert register_partitions(instance, new) == 0
    names = [*map(str, KEYS), "museum/b", "museum/a"]
    assert list(instance.get_dynamic_partitions("documents")) == names


def test_documents_of_several_runs_come_out_run_by_run(dagster: DagsterProject) -> None:
    keys = [dagster.project.land_images(f"shop/doc{n}", [n]) for n in range(5)]
    dagster.configure(documents_per_run=2)
    outcomes = dagster.run("process_document", keys)
    assert [len(outcome.keys) for outcome in outcomes] == [2, 2, 1]
    assert all(outcome.success and outcome.reason == "" for outcome in outcomes)
    assert dagster.materialized("slig_embeddings") == set(map(str, keys))


def test_runs_are_recorded_with_their_partitions(dagster: DagsterProject) -> None:
    keys = [dagster.project.ingested(f"shop/doc{n}", [n]) for n in range(2)]
    outcome = dagster.embed(*keys)
    run = dagster.instance.get_run_by_id(outcome.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.tags["dagster/asset_partition_range_start"] == "shop/doc0"
    assert run.tags["dagster/asset_partition_range_end"] == "shop/doc1"
    assert run.tags["dagster/retry_on_asset_or_op_failure"] == "false"
    assert run.tags["dagster/retry_strategy"] == "ALL_STEPS"


def test_the_reason_of_an_error_that_nobody_foresaw_is_its_message(
    dagster: DagsterProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = dagster.project.ingested("shop/doc", [1])

    def broken(*arguments: object) -> None:
        raise KeyError("metadata")

    monkeypatch.setattr("embedding_assets.defs.assets.stage_asset.coverage_metadata", broken)
    outcome = dagster.embed(key)
    assert not outcome.success
    assert "KeyError" in outcome.reason
    assert "metadata" in outcome.reason
    assert "\n" not in outcome.reason


def test_a_run_of_one_asset_of_a_job_leaves_the_checks_of_the_whole_corpus_to_the_clock(
    dagster: DagsterProject,
) -> None:
    key = dagster.project.ingested("shop/doc", [1])
    (outcome,) = run_job(
        dagster.defs,
        "process_document",
        [key],
        dagster.instance,
        documents_per_run=1,
        asset="slig_embeddings",
    )
    assert outcome.success, outcome.reason
    assert dagster.materialized("slig_embeddings") == {str(key)}
    assert dagster.materialized("vision_analysis") == set()
    evaluations = dagster.events(outcome.run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    assert [event.asset_check_evaluation_data.check_name for event in evaluations] == ["documents_done"]
