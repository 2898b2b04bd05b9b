"""One database for many tests, emptied before each: making one from the template takes half a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from embedding_assets.store.database import Database
from embedding_assets_tests.conftest import Server


def empty(database: Database) -> None:
    """Removes every document, image, failure, space, collection and all history."""
    with database.transaction() as connection:
        connection.execute(
            text(
                "TRUNCATE documents, embedding_spaces, coverage_history, landed_documents, jobs, api_keys CASCADE"
            )
        )
        tables = connection.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'vecs'")
        ).scalars()
        for table in tables.all():
            connection.execute(text(f'DROP TABLE vecs."{table}"'))


@pytest.fixture(scope="session")
def reused_database(postgres: Server) -> Iterator[Database]:
    """The database that the tests of one folder share."""
    url = postgres.make_database(postgres.template)
    database = Database(url)
    yield database
    database.dispose()
    postgres.drop_database(url)


@pytest.fixture
def database(reused_database: Database) -> Database:
    """The shared database, empty."""
    empty(reused_database)
    return reused_database


@pytest.fixture
def database_url(database: Database) -> str:
    """URL of the shared database, which is empty."""
    return database.url
