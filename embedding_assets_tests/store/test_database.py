"""Connections: what the database's errors mean, and that secrets stay secret."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Callable

import pytest
from psycopg2 import sql
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DataError, IntegrityError

from embedding_assets.errors import EmbeddingAssetsError, ErrorClass, FatalError, StoreUnavailable
from embedding_assets.store.database import Database, normalize_url, redact_url
from embedding_assets.store.spaces import SLIG, ensure_collection
from embedding_assets.store.vectors import write_embeddings
from embedding_assets_tests.conftest import Server
from embedding_assets_tests.factories import make_document, random_vectors, scalar, space


@pytest.fixture
def killer(database_url: str) -> Callable[[Connection], None]:
    """Ends the server's side of a connection, as a failover or an administrator would."""

    def kill(connection: Connection) -> None:
        pid = scalar(connection, "SELECT pg_backend_pid()")
        other = Database(database_url)
        with other.transaction() as admin:
            assert scalar(admin, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid) is True
        other.dispose()

    return kill


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("postgres://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("postgresql://u:p@h:6543/d?sslmode=require", "postgresql+psycopg2://u:p@h:6543/d?sslmode=require"),
        ("postgresql+asyncpg://h/d", "postgresql+psycopg2://h/d"),
    ],
)
def test_every_spelling_of_a_postgres_url_is_understood(given: str, normal: str) -> None:
    assert normalize_url(given) == normal


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hush@h/d",
        "u:hush@h/d",
        "",
        "postgresql://",
        "postgresql://u:p@hush@h/d",  # "@" in the password, not encoded
        "postgresql://u:pw@hush/x@h/d",
        "postgresql://u:p@h:hush/d",
    ],
)
def test_a_url_that_can_not_be_read_is_fatal_and_never_shown(url: str) -> None:
    with pytest.raises(FatalError) as raised:
        Database(url)
    trace = "".join(traceback.format_exception(raised.value))
    assert "hush" not in trace.replace(__file__, "")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hush@h:5433/d?sslmode=require",
        "postgresql://u:hu%40sh@h/d",
        "postgresql://u:hush/hush@h/d",
        "postgresql://u:hush#hush@h/d",
        "postgresql://u:hush?hush@h/d",
        "postgresql://u@h/d?password=hush",
        "postgresql:///d?host=/tmp&user=u&password=hush",
    ],
)
def test_a_password_is_in_no_text_about_the_database(url: str) -> None:
    try:
        shown = f"{redact_url(url)} {Database(url)!r}"
    except FatalError as error:
        shown = f"{error} {error.hint}"
    assert "hu" not in shown
    assert "sh@" not in shown


def test_a_wrong_password_is_fatal_and_not_shown(
    postgres: Server, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The session's server trusts its socket, so its answer to a wrong password is played by a stub."""
    caplog.set_level(logging.DEBUG)
    with _refusing_server("28P01", 'password authentication failed for user "u"') as port:
        database = Database(f"postgresql://u:hush-hush@127.0.0.1:{port}/d")
        with (
            pytest.raises(FatalError, match="password authentication failed") as raised,
            database.transaction(),
        ):
            pass
    assert raised.value.hint == "check DATABASE_URL"
    trace = "".join(traceback.format_exception(raised.value))
    assert "hush" not in f"{raised.value} {database!r} {caplog.text}"
    assert "hush-hush" not in trace.split("Traceback")[-1].splitlines()[-1]


@pytest.mark.parametrize(
    ("state", "message", "kind"),
    [
        ("28P01", "SASL authentication failed", FatalError),
        ("08P01", "no such database: shop", FatalError),
        ("XX000", "Tenant or user not found", FatalError),
        ("28000", 'no pg_hba.conf entry for host "1.2.3.4", user "u"', FatalError),
        ("57P03", "the database system is starting up", StoreUnavailable),
        ("53300", "sorry, too many clients already", StoreUnavailable),
        ("08P01", "server login failed: connect failed", StoreUnavailable),
    ],
)
def test_answers_at_connect_are_told_apart(
    state: str, message: str, kind: type[EmbeddingAssetsError]
) -> None:
    with _refusing_server(state, message) as port:
        database = Database(f"postgresql://u:p@127.0.0.1:{port}/d")
        with pytest.raises(kind, match=message.split(":", 1)[0].split('"')[0]), database.transaction():
            pass


class _refusing_server:  # noqa: N801 (used as a function)
    """Listens as Postgres does, and answers every connection with one error."""

    def __init__(self, state: str, message: str) -> None:
        fields = b"".join(
            code + value.encode() + b"\0"
            for code, value in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", state), (b"M", message))
        )
        self.answer = b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0"

    def __enter__(self) -> int:
        import threading

        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return int(self.listener.getsockname()[1])

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client:
                packet = client.recv(4096)
                while packet[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):  # asks for SSL or GSS: no
                    client.sendall(b"N")
                    packet = client.recv(4096)
                client.sendall(self.answer)

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


def test_a_missing_database_is_fatal(postgres: Server) -> None:
    database = Database(postgres.url_of("not_there"))
    with pytest.raises(FatalError, match='database "not_there" does not exist'), database.transaction():
        pass


def test_a_missing_user_is_fatal(database_url: str) -> None:
    url = make_url(database_url).set(username="nobody_here").render_as_string(hide_password=False)
    with pytest.raises(FatalError, match="nobody_here"), Database(url).transaction():
        pass


def test_a_refused_connection_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    database = Database(f"postgresql://u:hush@127.0.0.1:{port}/d")
    with pytest.raises(StoreUnavailable) as raised, database.transaction():
        pass
    assert raised.value.error_class is ErrorClass.TRANSIENT
    assert "hush" not in str(raised.value)


def test_a_connection_killed_in_a_transaction_is_transient_and_the_next_one_works(
    database: Database, killer: Callable[[Connection], None]
) -> None:
    with pytest.raises(StoreUnavailable), database.transaction() as connection:  # noqa: PT012
        connection.execute(
            text("INSERT INTO documents (workspace_id, document_id, source_kind) VALUES ('a','b','c')")
        )
        killer(connection)
        connection.execute(text("SELECT 1"))
    with database.transaction() as connection:
        assert scalar(connection, "SELECT count(*) FROM documents") == 0


def test_a_connection_killed_between_transactions_is_not_noticed(
    database: Database, killer: Callable[[Connection], None]
) -> None:
    with database.transaction() as connection:
        pid = scalar(connection, "SELECT pg_backend_pid()")
    other = Database(database.url)
    with other.transaction() as admin:
        scalar(admin, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid)
    other.dispose()
    with database.transaction() as connection:
        assert scalar(connection, "SELECT 1") == 1


def test_a_connection_killed_before_copy_is_transient_too(
    database: Database, killer: Callable[[Connection], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """COPY goes past SQLAlchemy to the driver, whose errors must come out translated all the same."""
    from embedding_assets.store import vectors as module

    ids = make_document(database, "shop/doc", 3)
    with database.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space(8))
    encode = module.encode_copy
    with pytest.raises(StoreUnavailable), database.transaction() as connection:  # noqa: PT012
        pid = scalar(connection, "SELECT pg_backend_pid()")

        def encode_and_kill(*arguments: object) -> bytes:
            other = Database(database.url)
            with other.transaction() as admin:
                scalar(admin, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid)
            other.dispose()
            return encode(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(module, "encode_copy", encode_and_kill)
        write_embeddings(connection, "shop", ids, [(collection, random_vectors(3))], stage="slig")
    monkeypatch.undo()
    with database.transaction() as connection:
        counts = write_embeddings(connection, "shop", ids, [(collection, random_vectors(3))], stage="slig")
    assert counts.images == 3


def test_a_deadlock_is_transient(database: Database) -> None:
    """The server picks a victim by itself; the other transaction commits."""
    import threading

    make_document(database, "shop/a", 0)
    make_document(database, "shop/b", 0)
    together = threading.Barrier(2)
    outcomes: list[object] = []

    def lock(first: str, second: str) -> None:
        try:
            with database.transaction() as connection:
                connection.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
                for number, name in enumerate((first, second)):
                    connection.execute(
                        text("SELECT * FROM documents WHERE document_id = :name FOR UPDATE"), {"name": name}
                    )
                    if number == 0:
                        together.wait(30)
        except StoreUnavailable as error:
            outcomes.append(error)
        else:
            outcomes.append("committed")

    threads = [threading.Thread(target=lock, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 2
    assert outcomes.count("committed") == 1


def test_a_read_only_server_is_transient(database: Database) -> None:
    with pytest.raises(StoreUnavailable, match="read-only"), database.transaction() as connection:  # noqa: PT012
        connection.execute(text("SET TRANSACTION READ ONLY"))
        connection.execute(text("DELETE FROM documents"))


def test_a_statement_that_takes_too_long_is_transient(database: Database) -> None:
    with pytest.raises(StoreUnavailable, match="statement timeout"), database.transaction() as connection:  # noqa: PT012
        connection.execute(text("SET LOCAL statement_timeout = '20ms'"))
        connection.execute(text("SELECT pg_sleep(30)"))


def test_a_missing_permission_is_fatal_and_no_images_fault(postgres: Server, database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(text("DROP ROLE IF EXISTS reader"))
        connection.execute(text("CREATE ROLE reader"))
    with pytest.raises(FatalError, match="permission denied"), database.transaction() as connection:  # noqa: PT012
        connection.execute(text("SET LOCAL ROLE reader"))
        connection.execute(text("SELECT * FROM documents"))
    postgres.execute(sql.SQL("DROP ROLE reader"))


def test_values_that_the_database_refuses_stay_the_rows_own_error(database: Database) -> None:
    with pytest.raises(IntegrityError), database.transaction() as connection:
        connection.execute(text("INSERT INTO documents (workspace_id) VALUES ('a')"))
    with pytest.raises(DataError), database.transaction() as connection:
        connection.execute(text("SELECT CAST('x' AS int)"))


def test_an_error_of_the_callers_own_rolls_back(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:  # noqa: PT012
        connection.execute(
            text("INSERT INTO documents (workspace_id, document_id, source_kind) VALUES ('a','b','c')")
        )
        _ = 1 // 0
    with database.transaction() as connection:
        assert scalar(connection, "SELECT count(*) FROM documents") == 0
