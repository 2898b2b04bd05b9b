"""Bringing a database to the schema of this version, and refusing to work on another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from embedding_assets.errors import FatalError, SchemaError
from embedding_assets.store.database import Database
from embedding_assets.store.models import Base

VERSION_TABLE = "embedding_assets_version"
"""Alembic's version table; a name of its own, so that it can share a database with another application."""

SCHEMA_LOCK = 0x656D6265  # "embe"
"""Key of the advisory lock under which schema and collections are made."""

MIN_POSTGRES = 15
MIN_PGVECTOR = (0, 8, 0)
GOOD_PGVECTOR = (0, 8, 4)
"""0.8.4 mended faults of HNSW vacuum and of parallel index builds."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def head_revision() -> str:
    """The revision that this version of the package needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def _current_revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def is_ours(obj: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    """Whether Alembic may look at this object: tables of other applications are none of our business."""
    return kind != "table" or name in Base.metadata.tables


def parse_version(version: str) -> tuple[int, ...]:
    """`"0.8.5"` as `(0, 8, 5)`."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check_server(connection: Connection) -> list[str]:
    """Checks the versions of Postgres and pgvector.

    Returns:
        Warnings; empty where all is well.

    Raises:
        FatalError: a version is too old, or pgvector is not installed on the server.
    """
    number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    if number < MIN_POSTGRES * 10_000:
        raise FatalError(f"Postgres {number // 10_000} is too old: {MIN_POSTGRES} or newer is needed")
    found = connection.execute(
        text(
            "SELECT coalesce(installed_version, default_version) FROM pg_available_extensions WHERE name = 'vector'"
        )
    ).scalar()
    if found is None:
        raise FatalError(
            "pgvector is not installed on this Postgres server", hint="https://github.com/pgvector/pgvector"
        )
    version = parse_version(found)
    if version < MIN_PGVECTOR:
        raise FatalError(
            f"pgvector {found} is too old: 0.8.0 or newer is needed",
            hint="update the package, then run ALTER EXTENSION vector UPDATE",
        )
    if version < GOOD_PGVECTOR:
        return [
            f"pgvector {found}: 0.8.4 mended faults in HNSW vacuum and parallel index builds; update when you can"
        ]
    return []


def upgrade_schema(database: Database) -> bool:
    """Brings the schema to this version. Safe to call from many processes at once on an empty database.

    Returns:
        Whether anything was changed.

    Raises:
        FatalError: Postgres or pgvector is too old.
        SchemaError: the database was migrated by a newer version of this package.
    """
    with database.transaction() as connection:
        if _current_revision(connection) == head_revision():
            return False
    with database.transaction() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
        check_server(connection)
        current = _current_revision(connection)
        if current == head_revision():
            return False
        _refuse_unknown(current, database)
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS vecs"))
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
        command.upgrade(_config(connection), "head")
        return True


def _refuse_unknown(current: str | None, database: Database) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current is not None and current not in known:
        raise SchemaError(
            f"{database} is at revision {current}, which this version does not know (it needs {head_revision()})",
            hint="install the version of embedding-assets that migrated it, or a newer one",
        )


def require_schema(database: Database) -> None:
    """Raises SchemaError where the schema is not at this version's revision."""
    with database.transaction() as connection:
        current = _current_revision(connection)
    if current != head_revision():
        _refuse_unknown(current, database)
        raise SchemaError(
            f"{database} is at revision {current or 'none'}, and this version needs {head_revision()}",
            hint="run `embedding-assets db upgrade`",
        )


def schema_differences(connection: Connection) -> list[Any]:
    """What Alembic would change to make the database agree with the models; empty where they agree."""
    context = MigrationContext.configure(
        connection,
        opts={"version_table": VERSION_TABLE, "include_object": is_ours, "compare_server_default": True},
    )
    return list(compare_metadata(context, Base.metadata))


def write_migration(database: Database, message: str, revision: str) -> None:
    """Writes a migration file for what the models have and the database lacks (for developers)."""
    with database.transaction() as connection:
        command.revision(_config(connection), message=message, rev_id=revision, autogenerate=True)
