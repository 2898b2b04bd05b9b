"""A Dagster run that is killed in the middle of its mapped steps, and re-executed from failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from embedding_assets.keys import DocumentKey
from embedding_assets_tests.faults.killed_run import BATCH
from embedding_assets_tests.faults.processes import PATIENCE_S, environment, lines_of, wait_until
from embedding_assets_tests.pipeline.project import Project

pytestmark = pytest.mark.slow

IMAGES = 5 * BATCH
ASSET = dg.AssetKey("slig_embeddings")


class Runs:
    """Runs in processes of their own, on one instance that outlives them."""

    def __init__(self, project: Project, key: DocumentKey, home: Path) -> None:
        home.mkdir()
        self.log = home.parent / "encoded.log"
        self.environment = {**environment(), "DAGSTER_HOME": str(home)}
        self.task = {
            "database_url": project.database.url,
            "folder": str(project.folder),
            "key": str(key),
            "log": str(self.log),
        }

    def start(self, from_failure: str | None = None, pause_after: int | None = None) -> subprocess.Popen[str]:
        task = {**self.task, "from_failure": from_failure, "pause_after": pause_after}
        return subprocess.Popen(
            [sys.executable, "-m", "embedding_assets_tests.faults.killed_run", json.dumps(task)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            text=True,
        )

    def kill_after(self, images: int) -> None:
        """Starts a run and kills it once it has encoded so many images; it gets no further than that."""
        with self.start(pause_after=images) as process:
            try:
                wait_until(
                    lambda: len(lines_of(self.log)) >= images,
                    f"{images} images are encoded",
                    lambda: process.poll() is None,
                )
            finally:
                process.kill()

    def finish(self, from_failure: str | None = None) -> dict[str, Any]:
        """Lets a run come to its end."""
        with self.start(from_failure) as process:
            output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        outcome: dict[str, Any] = json.loads(output.splitlines()[-1])
        return outcome


def test_a_killed_run_that_is_reexecuted_from_failure_does_what_dagster_drops(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = project.ingested("shop/doc", range(IMAGES))
    project.embedder().open_collection()
    runs = Runs(project, key, tmp_path / "dagster")
    monkeypatch.setenv("DAGSTER_HOME", runs.environment["DAGSTER_HOME"])
    with dg.DagsterInstance.get() as instance:
        runs.kill_after(2 * BATCH + 7)
        (killed,) = instance.get_runs()
        assert killed.status is dg.DagsterRunStatus.STARTED
        instance.report_run_failed(killed, "its process died")  # as run monitoring does
        assert len(project.vectors(key)) == 2 * BATCH
        project.check_flags_equal_vectors()

        resumed = runs.finish(from_failure=killed.run_id)
        # Dagster runs one of the three steps that are left (#20925); the last op does the rest.
        assert resumed["success"], resumed["reason"]
        assert len(resumed["embedded_in"]) < 3
        assert len(project.vectors(key)) == IMAGES
        assert instance.get_materialized_partitions(ASSET) == {str(key)}
        project.check_flags_equal_vectors()

        again = runs.finish()
        assert again["success"], again["reason"]
        assert instance.get_materialized_partitions(ASSET) == {str(key)}
    assert project.vectors().keys() == set(project.ids(key))
    project.check_flags_equal_vectors()
    assert project.failures(key) == []
    assert len(set(lines_of(runs.log))) == IMAGES
    assert len(lines_of(runs.log)) - IMAGES <= BATCH


def test_a_killed_run_is_completed_by_a_new_run(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = project.ingested("shop/doc", range(IMAGES))
    runs = Runs(project, key, tmp_path / "dagster")
    monkeypatch.setenv("DAGSTER_HOME", runs.environment["DAGSTER_HOME"])
    runs.kill_after(BATCH + 3)
    outcome = runs.finish()
    assert outcome["success"], outcome["reason"]
    assert len(outcome["embedded_in"]) == 4  # the first step's images are done
    with dg.DagsterInstance.get() as instance:
        assert instance.get_materialized_partitions(ASSET) == {str(key)}
    project.check_flags_equal_vectors()
    assert len(lines_of(runs.log)) - IMAGES <= BATCH
