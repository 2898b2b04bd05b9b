"""Failure records: one open record an image and stage, adding up until it is resolved."""

from __future__ import annotations

import threading
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text

from embedding_assets.errors import ErrorClass
from embedding_assets.keys import DocumentKey
from embedding_assets.store.database import Database
from embedding_assets.store.failures import (
    MAX_MESSAGE,
    Failure,
    open_failures,
    record_failures,
    release_for_retry,
)
from embedding_assets.store.images import images_lacking
from embedding_assets.store.spaces import SLIG, ensure_collection
from embedding_assets.store.vectors import write_embeddings
from embedding_assets_tests.factories import make_document, random_vectors, scalar, space

DOC = DocumentKey("shop", "doc")


def failure(image: uuid.UUID | None, **changes: Any) -> Failure:
    fields: dict[str, Any] = {
        "key": DOC,
        "image_id": image,
        "stage": "slig",
        "error_class": ErrorClass.TRANSIENT,
        "error_type": "TimeoutError",
        "message": "Network timeout",
        "attempts": 4,
    }
    return Failure(**{**fields, **changes})


def record(database: Database, *failures: Failure) -> int:
    with database.transaction() as connection:
        return record_failures(connection, failures)


def test_a_second_failure_adds_to_the_open_record(database: Database) -> None:
    (image,) = make_document(database, DOC, 1)
    assert record(database, failure(image, run_id="run 1")) == 1
    assert record(database, failure(image, attempts=2, message="other", run_id="run 2")) == 1
    with database.transaction() as connection:
        (found,) = open_failures(connection, "shop")
    assert (found.attempts, found.message, found.run_id) == (6, "other", "run 2")
    assert found.first_seen_at < found.last_seen_at


def test_a_failure_tells_where_the_image_is(database: Database) -> None:
    ids = make_document(database, DOC, 6)
    when = datetime.now(timezone.utc) + timedelta(hours=1)
    record(database, failure(ids[5], next_retry_at=when, error_class=ErrorClass.PERMANENT))
    with database.transaction() as connection:
        (found,) = open_failures(connection, "shop")
    assert (found.key, found.image_id, found.index) == (DOC, ids[5], 5)
    assert (found.path, found.page_number, found.stage) == ("page 2, image 2", 2, "slig")
    assert (found.error_class, found.error_type, found.next_retry_at) == ("permanent", "TimeoutError", when)


def test_a_document_can_fail_as_such(database: Database) -> None:
    make_document(database, DOC, 0)
    assert record(database, failure(None, stage="ingest"), failure(None, stage="ingest", attempts=1)) == 1
    with database.transaction() as connection:
        (found,) = open_failures(connection, "shop", "doc")
    assert (found.image_id, found.index, found.path, found.attempts) == (None, None, None, 5)


def test_stages_have_records_of_their_own(database: Database) -> None:
    (image,) = make_document(database, DOC, 1)
    assert record(database, failure(image), failure(image, stage="understanding")) == 2


def test_an_image_that_failed_twice_in_one_call_has_one_record_with_all_attempts(database: Database) -> None:
    (image,) = make_document(database, DOC, 1)
    assert record(database, failure(image, message="first"), failure(image, message="last", attempts=1)) == 1
    with database.transaction() as connection:
        (found,) = open_failures(connection, "shop")
    assert (found.attempts, found.message) == (5, "last")


def test_after_a_resolved_record_the_next_failure_opens_a_new_one(database: Database) -> None:
    (image,) = make_document(database, DOC, 1)
    record(database, failure(image))
    with database.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space(8))
        counts = write_embeddings(
            connection, "shop", [image], [(collection, random_vectors(1))], stage="slig"
        )
        assert counts.resolved == 1
        assert open_failures(connection, "shop") == []
    record(database, failure(image, attempts=1))
    with database.transaction() as connection:
        (found,) = open_failures(connection, "shop")
        assert found.attempts == 1
        assert scalar(connection, "SELECT count(*) FROM embedding_failures") == 2


def test_failures_of_what_is_gone_are_left_out(database: Database) -> None:
    ids = make_document(database, DOC, 2)
    rivals = make_document(database, "rival/doc", 1)
    others = make_document(database, "shop/other", 1)
    assert (
        record(
            database,
            failure(ids[0]),
            failure(uuid.uuid4()),
            failure(rivals[0]),
            failure(others[0]),
            failure(None, key=DocumentKey("shop", "unknown")),
        )
        == 1
    )
    with database.transaction() as connection:
        assert [f.image_id for f in open_failures(connection, "shop")] == [ids[0]]


def test_no_failures_are_no_work(database: Database) -> None:
    assert record(database) == 0


def test_long_and_dirty_messages_are_kept_as_far_as_they_can_be(database: Database) -> None:
    (image,) = make_document(database, DOC, 1)
    record(database, failure(image, message="bad \0 \ud800 byte " + "x" * 10_000, error_type="E\0"))
    with database.transaction() as connection:
        (found,) = open_failures(connection, "shop")
    assert found.message.startswith("bad \ufffd ? byte x")
    assert len(found.message) == MAX_MESSAGE
    assert found.error_type == "E\ufffd"


def test_open_failures_come_in_document_and_page_order_and_can_be_limited(database: Database) -> None:
    a, b = make_document(database, "shop/a", 3), make_document(database, "shop/b", 2)
    record(
        database,
        *(failure(i, key=DocumentKey("shop", "b")) for i in b[::-1]),
        *(failure(i, key=DocumentKey("shop", "a")) for i in a[::-1]),
        failure(None, key=DocumentKey("shop", "b"), stage="ingest"),
    )
    with database.transaction() as connection:
        assert [f.image_id for f in open_failures(connection, "shop")] == [*a, None, *b]
        assert [f.image_id for f in open_failures(connection, "shop", "b")] == [None, *b]
        assert [f.image_id for f in open_failures(connection, "shop", limit=2)] == a[:2]
        assert open_failures(connection, "rival") == []


def test_permanent_failures_are_to_do_again_when_somebody_asks(database: Database) -> None:
    ids = make_document(database, DOC, 3)
    record(database, *(failure(i, error_class=ErrorClass.PERMANENT) for i in ids[:2]), failure(ids[2]))
    with database.transaction() as connection:
        assert images_lacking(connection, DOC, "has_slig_embedding", "slig") == ids[2:]
        assert release_for_retry(connection, DOC, "understanding") == 0
        assert release_for_retry(connection, DOC, "slig") == 2
        assert images_lacking(connection, DOC, "has_slig_embedding", "slig") == ids


@pytest.mark.slow
def test_two_processes_record_the_same_failures_in_opposite_order_without_a_deadlock(
    database: Database,
) -> None:
    ids = make_document(database, DOC, 40)
    together = threading.Barrier(2)
    errors: list[Exception] = []

    def run(order: list[uuid.UUID]) -> None:
        for number in range(10):
            together.wait(60)
            try:
                record(database, *(failure(i, stage=f"stage {number}") for i in order))
            except Exception as error:  # noqa: BLE001 (reported below)
                errors.append(error)

    threads = [threading.Thread(target=run, args=(order,)) for order in (ids, ids[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    with database.transaction() as connection:
        counted = connection.execute(
            text("SELECT count(*), min(attempts), max(attempts) FROM embedding_failures")
        )
        assert counted.one() == (400, 8, 8)
