"""The way to the database: one engine a process, transactions, and what their errors mean."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from embedding_assets.errors import EmbeddingAssetsError, FatalError, SchemaError, StoreUnavailable
from embedding_assets.settings import Settings
from embedding_assets.store.embedded import start_embedded_postgres

_FATAL_AT_CONNECT = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "could not translate host name",
    "no password supplied",
    "does not support SSL",
    "no such user",  # PgBouncer
    "no such database",  # PgBouncer
    "Tenant or user not found",  # Supavisor
)
"""What the server, a pooler or libpq says where trying again can't help; psycopg2 gives no SQLSTATE here."""
_TEMPORARY_AT_CONNECT = "Temporary failure in name resolution"
_RETRYABLE_STATES = ("08", "25006", "40", "53", "57")
"""SQLSTATE classes: connection, a read-only server (failover, or a full disk on a hosted service), transaction
rollback (deadlock), resources, operator intervention."""
_MISSING_SCHEMA_STATES = {"42P01", "42703", "3F000", "42883"}
"""Undefined table, undefined column, undefined schema, undefined function."""

_CONNECT = {"connect_timeout": 10, "application_name": "embedding-assets", "keepalives_idle": 60}
"""What libpq is told at each connect; keepalives, as a connection may be silent for as long as an index is built."""


def normalize_url(url: str) -> str:
    """A SQLAlchemy URL for psycopg2, from any spelling of a Postgres URL ("postgres://", "postgresql+...").

    Raises FatalError where it can't be read; the message never shows the URL, which may hold a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme.split("+")[0] not in {"postgres", "postgresql"} or not rest:
        raise FatalError("expected a database URL like postgresql://user:password@host:5432/database")
    normal = f"postgresql+psycopg2://{rest}"
    try:
        parts = make_url(normal)
    except (ArgumentError, ValueError):
        parts = None
    if parts is None or any(mark in f"{parts.host}{parts.database}" for mark in "@#?"):
        # Without this, the rest of such a password would pass for host or database, and be shown as such.
        raise FatalError(
            "the database URL can't be read",
            hint="percent-encode special characters of the password (@ is %40, / is %2F, # is %23, ? is %3F)",
        )
    return normal


def redact_url(url: str) -> str:
    """The URL without its password and query values, fit for a log or an error."""
    parts = make_url(normalize_url(url))
    shown = URL.create("postgresql", parts.username, None, parts.host, parts.port, parts.database)
    return shown.render_as_string(hide_password=True)


class Database:
    """A Postgres database. Cheap to make; connects when first used; safe to share between threads.

    Args:
        url: a Postgres URL.

    No connection keeps state between transactions, so a transaction pooler may stand in between.
    """

    def __init__(self, url: str) -> None:
        self.url = normalize_url(url)
        self.engine: Engine = create_engine(
            self.url,
            pool_pre_ping=True,
            pool_size=5,
            max_overflow=10,
            pool_recycle=1800,
            connect_args=_CONNECT,
        )

    def __repr__(self) -> str:
        return f"Database({redact_url(self.url)})"

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, by its address."""
        url = make_url(self.url)
        host = str(url.host or url.query.get("host") or "localhost")
        return host.startswith("/") or host in {"localhost", "127.0.0.1", "::1"}

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction: committed at the end of the block, rolled back on any error.

        Raises:
            StoreUnavailable: the database did not answer, dropped the connection, or broke a deadlock.
            SchemaError: a table or column is missing.
            FatalError: it refuses this user, there is no such database, or a statement is wrong by itself.
            sqlalchemy.exc.DataError, IntegrityError: it refuses the values of a row.
        """
        with self._errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def session(self, settings: Mapping[str, str]) -> Iterator[Connection]:
        """A connection of its own outside of any transaction, for statements that can't run in one; then closed.

        Args:
            settings: settings of the server for this connection only, sent when it is made. A transaction pooler
                refuses or ignores them, as its server connections belong to everybody: the connection is then
                made without, so ask with SHOW for what matters.

        Raises: as `transaction` does.
        """
        url = make_url(self.url)
        given = url.query.get("options", "")
        options = " ".join(
            [given if isinstance(given, str) else " ".join(given)]
            + [f"-c {name}={value}" for name, value in settings.items()]
        ).strip()
        with self._errors():
            try:
                connection = self._connect_alone({"options": options} if options else {})
            except OperationalError as error:
                if "startup parameter" not in str(error):
                    raise
                connection = self._connect_alone({})
            try:
                yield connection
            finally:
                connection.close()

    def _connect_alone(self, more: dict[str, str]) -> Connection:
        engine = create_engine(
            self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={**_CONNECT, **more}
        )
        return engine.connect()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except EmbeddingAssetsError:
            raise
        except (DBAPIError, PoolTimeout) as error:
            raise self._translate(error) from error

    def _translate(self, error: DBAPIError | PoolTimeout) -> Exception:
        text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        where = redact_url(self.url)
        state = getattr(getattr(error, "orig", None), "pgcode", None)
        if state in _MISSING_SCHEMA_STATES:
            return SchemaError(
                f"the database {where} lacks what this version needs: {text.splitlines()[0]}",
                hint="run `embedding-assets db upgrade`",
            )
        if (
            isinstance(error, OperationalError)
            and state is None
            and any(s in text for s in _FATAL_AT_CONNECT)
            and _TEMPORARY_AT_CONNECT not in text
        ):
            return FatalError(f"can't use the database {where}: {text}", hint="check DATABASE_URL")
        retryable = isinstance(error, OperationalError | InterfaceError | PoolTimeout)
        if retryable or (state is not None and state.startswith(_RETRYABLE_STATES)):
            return StoreUnavailable(f"the database {where} is not available: {text}")
        if isinstance(error, DataError | IntegrityError):
            return error
        # A statement that the server refuses as such (no permission, wrong syntax): no image is to blame.
        return FatalError(
            f"the database {where} refuses a statement: {text.splitlines()[0]} (SQLSTATE {state})"
        )

    def dispose(self) -> None:
        """Closes the pooled connections."""
        self.engine.dispose()


_OPEN: dict[str, Database] = {}
_LOCK = threading.Lock()


def open_database(settings: Settings) -> Database:
    """The database of these settings, with its schema ready; one object a process and URL.

    The embedded database is started, made and migrated as needed. Any other one has to be migrated by
    `embedding-assets db upgrade`; raises SchemaError where it is not.
    """
    from embedding_assets.store.schema import require_schema, upgrade_schema

    embedded = settings.database_url is None
    with _LOCK:
        if embedded:
            url = start_embedded_postgres(settings.embedded_data, settings.database_name)
        else:
            assert settings.database_url is not None
            url = settings.database_url.get_secret_value()
        database = _OPEN.get(url)
        if database is None:
            database = Database(url)
            if embedded:
                upgrade_schema(database)
            else:
                require_schema(database)
            _OPEN[url] = database
        return database
