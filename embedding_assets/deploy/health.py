"""The health report of `embedding-assets doctor`: what is wrong, and how to mend it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from embedding_assets.deploy.instance import apply_dagster_environment
from embedding_assets.errors import EmbeddingAssetsError
from embedding_assets.ingest.image_store import local_path
from embedding_assets.pipeline.assembly import open_encoder
from embedding_assets.settings import PREFIX, Settings
from embedding_assets.store.database import Database, open_database, redact_url
from embedding_assets.store.schema import check_server, head_revision
from embedding_assets.store.spaces import SLIG, active_collection, check_space

GIB = 2**30
LOW_DISK = 5 * GIB
"""Bytes free below which a warning is due: a hundred thousand catalogue images take some 20 GiB."""
FULL_DISK = GIB


class Status(str, Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: Status
    message: str
    hint: str = ""


def _error(name: str, error: EmbeddingAssetsError) -> Check:
    return Check(name, Status.ERROR, error.message, error.hint or "")


def examine(settings: Settings) -> Iterator[Check]:
    """Runs the checks, one after another; loads the model, which may download its weights the first time."""
    database: Database | None = None
    try:
        database = open_database(settings)
        yield from _check_database(database)
    except EmbeddingAssetsError as error:
        yield _error("database", error)
    yield from _check_model(settings, database)
    yield _check_disk("disk of var_dir", settings.home)
    store = local_path(settings.image_store)
    if store is not None:
        yield _check_disk("disk of image_store", store)
    yield _check_landing(settings)
    if database is not None:
        yield _check_partitions(settings)


def _check_database(database: Database) -> Iterator[Check]:
    with database.transaction() as connection:
        version = connection.execute(text("SHOW server_version")).scalar_one()
        warnings = check_server(connection)
        extension = connection.execute(
            text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        ).scalar()
    yield Check(
        "database", Status.OK, f"Postgres {version} at {redact_url(database.url)}, schema {head_revision()}"
    )
    if warnings:
        yield Check("pgvector", Status.WARNING, warnings[0])
    else:
        yield Check("pgvector", Status.OK, f"version {extension}")


def _check_model(settings: Settings, database: Database | None) -> Iterator[Check]:
    try:
        encoder = open_encoder(settings)
        space = encoder.space
        yield Check("model", Status.OK, f"{space}; {encoder.precision}")
        if database is not None:
            with database.transaction() as connection:
                collection = active_collection(connection, SLIG)
            if collection is None:
                yield Check("embedding space", Status.OK, "none active yet: the first run makes it")
            else:
                check_space(collection, space)
                yield Check("embedding space", Status.OK, f"{space.space_id} is the active one")
    except EmbeddingAssetsError as error:
        yield _error("model", error)


def _check_disk(name: str, folder: Path) -> Check:
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    message = f"{free / GIB:.1f} GiB free at {folder}"
    if free < FULL_DISK:
        return Check(name, Status.ERROR, message, f"free some space, or set {PREFIX}VAR_DIR to another disk")
    if free < LOW_DISK:
        return Check(name, Status.WARNING, message, "enough to start; free some space soon")
    return Check(name, Status.OK, message)


def _check_landing(settings: Settings) -> Check:
    folder = local_path(settings.landing)
    if folder is None or folder.is_dir():
        return Check("landing root", Status.OK, settings.landing)
    return Check(
        "landing root",
        Status.WARNING,
        f"{settings.landing} does not exist yet",
        "`embedding-assets ingest PATH` makes it, or set " + f"{PREFIX}LANDING_ROOT",
    )


def _check_partitions(settings: Settings) -> Check:
    """How many documents have a partition, in the instance that the other commands use."""
    # Loaded only here: a doctor that finds no database has no use for Dagster.
    import dagster as dg

    from embedding_assets.defs.partitions import capacity_warning, count_partitions

    try:
        apply_dagster_environment(settings)
        with dg.DagsterInstance.get() as instance:
            registered = count_partitions(instance)
    except EmbeddingAssetsError as error:
        return _error("partitions", error)
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        return Check(
            "partitions",
            Status.ERROR,
            f"Dagster's storage can't be read: {reason}",
            f"check {PREFIX}DAGSTER_DATABASE_URL",
        )
    warning = capacity_warning(registered, settings.supported_partitions)
    if warning:
        return Check("partitions", Status.WARNING, warning)
    return Check("partitions", Status.OK, f"{registered:,} of {settings.supported_partitions:,} supported")
