"""What is removed of the files that ended runs leave behind, and what stays."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import dagster as dg

from embedding_assets.deploy.retention import Pruned, prune_run_files
from embedding_assets_tests.defs.conftest import dagster, database, database_url, project, reused_database
from embedding_assets_tests.defs.dagster_project import DagsterProject

__all__ = ["dagster", "database", "database_url", "project", "reused_database"]

CUTOFF = 1_000_000.0


def write(path: Path, at: float, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (at, at))
    os.utime(path.parent, (at, at))
    return path


def test_files_of_runs_that_ended_long_ago_go_and_all_others_stay(tmp_path: Path) -> None:
    old, new, running, unknown = (str(uuid.uuid4()) for _ in range(4))
    ended = {old: CUTOFF - 1, new: CUTOFF + 1, running: None, unknown: None}
    gone = [
        write(tmp_path / "storage" / old / "step" / "result", 0),
        write(tmp_path / old / "compute_logs" / "a.out", 0),
        write(tmp_path / "repository" / "new_documents" / "17.err", 0),
    ]
    unknown_file = write(tmp_path / "storage" / unknown / "result", 0)
    os.utime(unknown_file.parent, (0, 0))
    kept = [
        write(tmp_path / "storage" / new / "step" / "result", 0),
        write(tmp_path / "storage" / running / "step" / "result", 0),
        write(tmp_path / new / "compute_logs" / "a.out", 0),
        write(tmp_path / "repository" / "new_documents" / "18.err", CUTOFF + 5),
        write(tmp_path / "history" / "runs.db", 0),
        write(tmp_path / "storage" / "not-a-run" / "file", 0),
    ]
    pruned = prune_run_files(tmp_path, CUTOFF, lambda run: ended[run], lambda run: run == running)
    assert pruned == Pruned(runs=3, logs=1, bytes_freed=40)
    assert not [path for path in (*gone, unknown_file) if path.exists()]
    assert [path for path in kept if not path.exists()] == []
    assert prune_run_files(tmp_path, CUTOFF, lambda run: ended[run], lambda run: run == running) == Pruned()


def test_the_job_removes_what_real_runs_left_and_keeps_what_is_young(dagster: DagsterProject) -> None:
    key = dagster.project.ingested("shop/doc", [1])
    run_id = dagster.embed(key).run_id
    folder = Path(dagster.instance.storage_directory()) / run_id
    assert list(folder.rglob("*"))

    def clean_up() -> dg.ExecuteInProcessResult:
        return dagster.defs.resolve_job_def("clean_up").execute_in_process(instance=dagster.instance)

    assert clean_up().success
    assert folder.is_dir()
    dagster.configure(keep_run_files_days=1e-9)
    assert clean_up().success
    assert not folder.exists()
    assert dagster.instance.get_run_by_id(run_id) is not None
