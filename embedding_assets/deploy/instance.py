"""Dagster's instance for processes that this package starts: DAGSTER_HOME and its storage."""

from __future__ import annotations

import logging
import os
import re
from importlib.resources import files
from pathlib import Path

import psycopg2
import psycopg2.errors
from psycopg2 import sql
from sqlalchemy.engine import make_url

from embedding_assets.errors import FatalError
from embedding_assets.settings import PREFIX, Settings
from embedding_assets.store.database import open_database, redact_url
from embedding_assets.store.embedded import start_embedded_postgres

logger = logging.getLogger(__name__)

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def dagster_environment(settings: Settings) -> dict[str, str]:
    """The variables that a Dagster process needs; prepares DAGSTER_HOME and the storage's database.

    Returns:
        DAGSTER_HOME, DAGSTER_POSTGRES_URL, DAGSTER_STORAGE_DIR, the profile, and DATABASE_URL: the processes
        share the server that the caller holds open. A DAGSTER_HOME that is set already is left alone.

    Raises:
        FatalError: the storage's database can't be made.
    """
    database = open_database(settings)
    environment = {"DATABASE_URL": database.url}
    if settings.demo:
        environment[f"{PREFIX}DEMO"] = "true"
    if os.environ.get("DAGSTER_HOME"):
        return environment
    home = settings.dagster_home
    _write_if_changed(
        home / "dagster.yaml", files("embedding_assets.deploy").joinpath("dagster.yaml").read_text()
    )
    storage = home / "storage"
    storage.mkdir(exist_ok=True)
    return {
        **environment,
        "DAGSTER_HOME": str(home),
        "DAGSTER_STORAGE_DIR": str(storage),
        "DAGSTER_POSTGRES_URL": _storage_url(settings),
    }


def _write_if_changed(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != content:
        path.write_text(content)


def _storage_url(settings: Settings) -> str:
    """URL of Dagster's own database on the same server; made where it is missing."""
    if settings.dagster_database_url is not None:
        return _with_schema(settings.dagster_database_url.get_secret_value())
    if settings.database_url is None:
        url = start_embedded_postgres(settings.embedded_data, f"{settings.database_name}_dagster")
        return url.replace("postgresql+psycopg2", "postgresql", 1)
    data = make_url(settings.database_url.get_secret_value()).set(drivername="postgresql")
    own = data.set(database=f"{data.database}_dagster")
    try:
        connection = psycopg2.connect(data.render_as_string(hide_password=False), connect_timeout=10)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (own.database,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(own.database or "")))
        finally:
            connection.close()
    except (psycopg2.errors.DuplicateDatabase, psycopg2.errors.UniqueViolation):
        logger.debug("another process made the database %s at the same moment", own.database)
    except psycopg2.Error as error:
        raise FatalError(
            f"can't make Dagster's database {own.database} beside {redact_url(str(data))}: {error}".strip(),
            hint=f"make it by hand, or set {PREFIX}DAGSTER_DATABASE_URL to one that Dagster may use",
        ) from error
    return own.render_as_string(hide_password=False)


def _with_schema(url: str) -> str:
    """The URL of Dagster's storage as given; where it names a schema, that is made if it is missing.

    `?options=-csearch_path%3Ddagster` keeps Dagster's tables in the schema `dagster`, for servers on which only one
    database is to be had: dagster-postgres has no setting for it, but hands the whole URL to libpq.

    Raises:
        FatalError: the schema can't be made, or is one that holds the data.
    """
    parts = make_url(url).set(drivername="postgresql")
    schema = _search_path(str(parts.query.get("options", "")))
    plain = parts.render_as_string(hide_password=False)
    if schema is None:
        return plain
    if not _SCHEMA.fullmatch(schema) or schema in {"public", "vecs"}:
        raise FatalError(
            f"{PREFIX}DAGSTER_DATABASE_URL: search_path={schema!r} is not usable; expected one schema of its own, in "
            "lower case, neither public nor vecs",
            hint="?options=-csearch_path%3Ddagster",
        )
    try:
        connection = psycopg2.connect(plain, connect_timeout=10)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        finally:
            connection.close()
    except (psycopg2.errors.DuplicateSchema, psycopg2.errors.UniqueViolation):
        logger.debug("another process made the schema %s at the same moment", schema)
    except psycopg2.Error as error:
        raise FatalError(
            f"can't make the schema {schema} for Dagster in {redact_url(plain)}: {error}".strip(),
            hint="make it by hand: CREATE SCHEMA " + schema,
        ) from error
    return plain


def _search_path(options: str) -> str | None:
    """The search path that libpq's `options` set; None where they set none."""
    match = re.search(r"(?:-c\s*|--)search_path=(\S+)", options)
    return match.group(1) if match else None


def apply_dagster_environment(settings: Settings) -> None:
    """Sets those variables for this process, so that `DagsterInstance.get()` finds its instance."""
    os.environ.update(dagster_environment(settings))
