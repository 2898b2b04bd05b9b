"""The servers that the API's tests ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_assets.store.database import Database
from embedding_assets_tests.api.site import Site
from embedding_assets_tests.conftest import Server
from embedding_assets_tests.pipeline.reused_database import database, database_url, reused_database

__all__ = ["database", "database_url", "reused_database"]


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Site:
    """A filled server with keys, of this test alone."""
    return Site(database, tmp_path).fill().with_keys()


@pytest.fixture
def open_site(database: Database, tmp_path: Path) -> Site:
    """A filled server for which no key was ever made."""
    return Site(database, tmp_path, demo=False).fill()


@pytest.fixture(scope="module")
def shared_site(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A filled server with keys, for all tests of a module: they leave documents and images as they are."""
    url = postgres.make_database(postgres.template)
    database = Database(url)
    yield Site(database, tmp_path_factory.mktemp("site")).fill().with_keys()
    database.dispose()
    postgres.drop_database(url)
