"""The code location that these tests run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from embedding_assets.settings import Settings
from embedding_assets_tests.defs.dagster_project import DagsterProject, SkippedWaits, UnreliableDatabase
from embedding_assets_tests.pipeline.project import Project
from embedding_assets_tests.pipeline.reused_database import database, database_url, reused_database

__all__ = ["dagster", "database", "database_url", "project", "reused_database"]


@pytest.fixture
def project(database_url: str, tmp_path: Path) -> Iterator[Project]:
    """An empty project, on a database that can be made to fail."""
    database = UnreliableDatabase(database_url)
    yield Project(database, tmp_path)
    database.dispose()


@pytest.fixture
def dagster(
    project: Project, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DagsterProject]:
    """The project's code location, with an instance of its own; waits of step retries pass at once."""
    monkeypatch.setattr("dagster._core.execution.plan.active.time", SkippedWaits())
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield DagsterProject(project, settings, instance)
