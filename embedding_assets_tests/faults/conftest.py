"""The project that these tests work on."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding_assets.store.database import Database
from embedding_assets_tests.pipeline.project import Project
from embedding_assets_tests.pipeline.reused_database import database, database_url, reused_database

__all__ = ["database", "database_url", "project", "reused_database"]


@pytest.fixture
def project(database: Database, tmp_path: Path) -> Project:
    """An empty project on the test's own database."""
    return Project(database, tmp_path)
