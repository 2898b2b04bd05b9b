"""Rows of images: saved, asked for and removed, counted from the rows that changed."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

import pytest
from sqlalchemy import Connection, text

from embedding_assets.errors import ErrorClass
from embedding_assets.ingest.records import ImageStatus
from embedding_assets.keys import DocumentKey
from embedding_assets.store.database import Database
from embedding_assets.store.documents import register_document
from embedding_assets.store.failures import Failure, record_failures
from embedding_assets.store.images import (
    SaveCounts,
    describe_images,
    images_lacking,
    load_images_to_do,
    remove_images_not_in,
    save_images,
    skip_images,
)
from embedding_assets.store.models import ALL_SLIG, SLIG_FLAGS
from embedding_assets.store.spaces import SLIG, all_collections, ensure_collection
from embedding_assets.store.vectors import write_embeddings
from embedding_assets_tests.factories import (
    found_image,
    found_images,
    make_document,
    random_vectors,
    scalar,
    space,
)

FLAG = "has_slig_embedding"
DOC = DocumentKey("shop", "doc")


def row(connection: Connection, number: uuid.UUID) -> Any:
    return connection.execute(text("SELECT * FROM document_images WHERE id = :id"), {"id": number}).one()


# -- saving --------------------------------------------------------------------------------------------------


def test_new_images_are_inserted_known_ones_updated_and_equal_ones_left(database: Database) -> None:
    with database.transaction() as connection:
        register_document(connection, DOC, "folder", "/landing")
        images = found_images(DOC, 3)
        assert save_images(connection, DOC, images) == SaveCounts(3, 0)
        assert save_images(connection, DOC, images) == SaveCounts(0, 0)
        changed = [images[0], *found_images(DOC, 3, first=1, caption="Oak, oiled")]
        assert save_images(connection, DOC, changed) == SaveCounts(1, 2)
        assert row(connection, images[1][0]).caption == "Oak, oiled"
        assert row(connection, images[0][0]).caption is None


def test_an_image_skipped_for_lack_of_text_is_due_again_with_a_caption(database: Database) -> None:
    ids = make_document(database, DOC, 2, caption=None, nearby_text=None)
    with database.transaction() as connection:
        for stage in ("text", "understanding"):
            assert skip_images(connection, "shop", dict.fromkeys(ids, "no text"), stage) == 2
        assert images_lacking(connection, DOC, "has_text_embedding", "text") == []
        first, second = found_images(DOC, 2, caption=None, nearby_text=None)
        captioned = found_images(DOC, 1, first=1, caption="Oak, oiled", nearby_text=None)
        save_images(connection, DOC, [first, *captioned])
        assert captioned[0][0] == second[0]
        assert [row(connection, i).stage_skips for i in ids] == [
            {"text": "no text", "understanding": "no text"},
            {"understanding": "no text"},
        ]


def test_saving_nothing_is_no_work(database: Database) -> None:
    with database.transaction() as connection:
        assert save_images(connection, DOC, []) == SaveCounts(0, 0)


def test_every_field_arrives(database: Database) -> None:
    image = found_image(
        3,
        bbox=(1.5, 2.0, 300.25, 400.0),
        caption="Fliese 60×120 cm",
        nearby_text="R10\nmatt",
        quality_score=0.5,
        extra={"sku": "A-1", "tags": ["a", {"b": None}]},
        byte_size=2**40,
    )
    number = uuid.uuid4()
    with database.transaction() as connection:
        register_document(connection, DOC, "folder", "/landing")
        save_images(connection, DOC, [(number, 2, image)])
        saved = row(connection, number)
    assert (saved.workspace_id, saved.document_id, saved.image_index, saved.occurrence) == (
        "shop",
        "doc",
        3,
        2,
    )
    assert saved.bbox == [1.5, 2.0, 300.25, 400.0]
    same = {"content_hash", "store_key", "reference", "image_format", "width", "height", "byte_size"}
    for name in same | {"page_number", "position", "caption", "nearby_text", "quality_score", "extra"}:
        assert getattr(saved, name) == getattr(image, name), name
    assert saved.status == "ready"


def test_saving_again_leaves_the_flags_alone(database: Database) -> None:
    ids = make_document(database, DOC, 2)
    with database.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space(8))
        write_embeddings(connection, "shop", ids, [(collection, random_vectors(2))], stage="slig")
        again = found_images(DOC, 2, caption="new", status=ImageStatus.SKIPPED, reason="too small")
        assert save_images(connection, DOC, again) == SaveCounts(0, 2)
        assert all(row(connection, i).has_slig_embedding for i in ids)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a\0b", "a\ufffdb"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        ("\udcff", "?"),
        ("plain é × 漢字 😀", "plain é × 漢字 😀"),
        ("back\\slash \\u0000 \"quoted\" :colon %percent 'tick'", None),
        ("line\nbreak\ttab\x07bell", None),
    ],
)
def test_text_that_postgres_can_not_hold_is_cleaned_and_the_rest_kept(
    database: Database, given: str, kept: str | None
) -> None:
    kept = given if kept is None else kept
    image = found_image(
        caption=given, nearby_text=given, reference=given, extra={given: [given, {"x": given}]}
    )
    number = uuid.uuid4()
    with database.transaction() as connection:
        register_document(connection, DOC, "posted", given, [{"path": given}])
        save_images(connection, DOC, [(number, 0, image)])
        saved = row(connection, number)
        posted = scalar(connection, "SELECT posted_images FROM documents")
    assert (saved.caption, saved.nearby_text, saved.reference) == (kept, kept, kept)
    assert saved.extra == {kept: [kept, {"x": kept}]}
    assert posted == [{"path": kept}]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_can_not_hold_become_null(database: Database, number: float) -> None:
    image = found_image(quality_score=number, extra={"a": number, "b": [1.5, number]})
    with database.transaction() as connection:
        register_document(connection, DOC, "posted", None, [{"quality_score": number}])
        save_images(connection, DOC, [(uuid.uuid4(), 0, image)])
        saved = connection.execute(text("SELECT quality_score, extra FROM document_images")).one()
        assert scalar(connection, "SELECT posted_images FROM documents") == [{"quality_score": None}]
    assert saved.quality_score is None
    assert saved.extra == {"a": None, "b": [1.5, None]}


def test_an_image_of_another_document_is_not_overwritten(database: Database) -> None:
    ids = make_document(database, "rival/doc", 1)
    with database.transaction() as connection:
        register_document(connection, DOC, "folder", "/landing")
        assert save_images(connection, DOC, [(ids[0], 0, found_image(caption="ours"))]) == SaveCounts(0, 0)
        assert row(connection, ids[0]).caption is None


# -- what is to do -------------------------------------------------------------------------------------------


def fail(
    connection: Connection,
    number: uuid.UUID,
    kind: ErrorClass,
    run_id: str | None = None,
    stage: str = "slig",
) -> None:
    record_failures(connection, [Failure(DOC, number, stage, kind, "Error", "message", 1, run_id=run_id)])


def test_what_lacks_a_vector_is_to_do_in_reading_order(database: Database) -> None:
    ids = make_document(database, DOC, 10)
    with database.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space(8))
        write_embeddings(connection, "shop", ids[2:4], [(collection, random_vectors(2))], stage="slig")
        assert images_lacking(connection, DOC, FLAG, "slig") == ids[:2] + ids[4:]
        assert images_lacking(connection, DOC, "has_color_slig", "slig") == ids


@pytest.mark.parametrize("status", [s for s in ImageStatus if s is not ImageStatus.READY])
def test_only_ready_images_are_to_do(database: Database, status: ImageStatus) -> None:
    ready = make_document(database, DOC, 2)
    other = make_document(database, DOC, 2, first=2, status=status)
    with database.transaction() as connection:
        assert images_lacking(connection, DOC, FLAG, "slig") == ready
        assert [
            i.image_id for i in load_images_to_do(connection, "shop", ready + other, FLAG, "slig")
        ] == ready


def test_permanent_failures_and_those_of_this_run_are_not_to_do(database: Database) -> None:
    ids = make_document(database, DOC, 6)
    with database.transaction() as connection:
        fail(connection, ids[0], ErrorClass.PERMANENT, "run 1")
        fail(connection, ids[1], ErrorClass.TRANSIENT, "run 1")
        fail(connection, ids[2], ErrorClass.TRANSIENT, "run 2")
        fail(connection, ids[3], ErrorClass.TRANSIENT)
        fail(connection, ids[4], ErrorClass.PERMANENT, stage="understanding")
        in_no_run = images_lacking(connection, DOC, FLAG, "slig")
        in_run_1 = images_lacking(connection, DOC, FLAG, "slig", "run 1")
        assert in_no_run == ids[1:]
        assert in_run_1 == ids[2:]
        for run_id, expected in ((None, in_no_run), ("run 1", in_run_1)):
            loaded = load_images_to_do(connection, "shop", ids, FLAG, "slig", run_id)
            assert [image.image_id for image in loaded] == expected


def test_rows_are_loaded_in_the_order_asked_for(database: Database) -> None:
    ids = make_document(database, DOC, 4) + make_document(database, "shop/other", 1)
    order = [ids[2], uuid.uuid4(), ids[0], ids[4]]
    with database.transaction() as connection:
        loaded = load_images_to_do(connection, "shop", order, FLAG, "slig")
    assert [image.image_id for image in loaded] == [ids[2], ids[0], ids[4]]
    assert loaded[2].key == DocumentKey("shop", "other")
    assert (loaded[0].index, loaded[0].store_key, loaded[0].page_number) == (2, "2.png", 1)


def test_images_are_described_by_id(database: Database) -> None:
    ids = make_document(database, DOC, 2, caption="Oak")
    with database.transaction() as connection:
        found = describe_images(connection, "shop", [*ids, uuid.uuid4()])
    assert {i: (r.document_id, r.caption, r.store_key) for i, r in found.items()} == {
        ids[0]: ("doc", "Oak", "0.png"),
        ids[1]: ("doc", "Oak", "1.png"),
    }


# -- the cost of asking --------------------------------------------------------------------------------------


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's nodes, outermost first."""
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


def explain_lacking(database: Database) -> dict[str, Any]:
    """EXPLAIN (ANALYZE, BUFFERS) of what `images_lacking` runs for the test's document."""
    statements: list[str] = []
    from sqlalchemy import event

    with database.transaction() as connection:

        @event.listens_for(connection, "before_cursor_execute", retval=True)
        def explain(_c: Any, _k: Any, statement: str, parameters: Any, _x: Any, _m: Any) -> tuple[str, Any]:
            statements.append(statement)
            return f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters

        class Shown(Exception):  # noqa: N818
            pass

        captured: list[Any] = []

        @event.listens_for(connection, "after_cursor_execute")
        def keep(_c: Any, cursor: Any, _s: str, _p: Any, _x: Any, _m: Any) -> None:
            captured.append(cursor.fetchone()[0])
            raise Shown

        with pytest.raises(Shown):
            images_lacking(connection, DOC, ALL_SLIG, "slig")
    assert "document_images" in statements[0]
    plan = captured[0]
    return (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]


def test_asking_what_is_to_do_uses_an_index_and_does_not_grow_with_other_documents(
    database: Database,
) -> None:
    """Looked at in pages and rows, not in seconds."""
    make_document(database, DOC, 50)

    def analyze() -> None:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE document_images"))
            connection.execute(text("VACUUM ANALYZE embedding_failures"))

    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO documents (workspace_id, document_id, source_kind) "
                "SELECT 'shop', 'other' || n, 'folder' FROM generate_series(1, 200) n"
            )
        )
    add = text(
        "INSERT INTO document_images (id, workspace_id, document_id, image_index, occurrence, content_hash, status,"
        f" reference, {', '.join(SLIG_FLAGS)}) SELECT gen_random_uuid(), 'shop', 'other' || d, i, 0,"
        f" md5(d || '/' || i), 'ready', 'x'{', :done' * len(SLIG_FLAGS)}"
        " FROM generate_series(CAST(:first AS int), :last) d, generate_series(0, 49) i"
    )
    with database.transaction() as connection:
        connection.execute(add, {"first": 1, "last": 20, "done": False})
    analyze()
    before = explain_lacking(database)
    with database.transaction() as connection:
        connection.execute(add, {"first": 21, "last": 110, "done": False})
        connection.execute(add, {"first": 111, "last": 200, "done": True})
    analyze()
    after = explain_lacking(database)
    scans = [n for n in nodes(after) if n.get("Relation Name") == "document_images"]
    assert scans
    indexes = [n.get("Index Name") for n in nodes(after) if "Index Name" in n]
    assert "ix_document_images_lacking_all_slig" in indexes
    assert not [
        n for n in nodes(after) if n["Node Type"] == "Seq Scan" and n["Relation Name"] == "document_images"
    ]
    assert after["Actual Rows"] == before["Actual Rows"] == 50
    assert sum(n.get("Rows Removed by Filter", 0) for n in scans) == 0

    def pages(plan: dict[str, Any]) -> int:
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    # A page for each of its own images at the most, and the index's levels; ten times as many others add none.
    assert pages(before) <= 55
    assert pages(after) <= 55
    with database.transaction() as connection:
        assert scalar(connection, "SELECT relpages FROM pg_class WHERE relname = 'document_images'") > 3 * 55


# -- removing ------------------------------------------------------------------------------------------------


def test_images_that_left_go_with_vectors_and_failures_of_every_collection(database: Database) -> None:
    ids = make_document(database, DOC, 4)
    other = make_document(database, "shop/other", 2)
    with database.transaction() as connection:
        active = ensure_collection(connection, SLIG, space(8))
        connection.execute(text("UPDATE embedding_spaces SET active = false"))
        second = ensure_collection(connection, SLIG, space(8, model="newer"))
        color = ensure_collection(connection, "image_color_embeddings", space(4))
        pairs = [(active, random_vectors(6)), (second, random_vectors(6)), (color, random_vectors(6, 4))]
        write_embeddings(connection, "shop", ids + other, pairs[:1], stage="slig")
        write_embeddings(connection, "shop", ids + other, pairs[1:], stage="slig")
        for number in ids:
            fail(connection, number, ErrorClass.TRANSIENT)
    keep = ids[1:3]
    with database.transaction() as connection:
        assert remove_images_not_in(connection, DOC, keep, all_collections(connection)) == 2
        assert remove_images_not_in(connection, DOC, keep, all_collections(connection)) == 0
    with database.transaction() as connection:
        left = {str(i) for i in keep + other}
        for collection in all_collections(connection):
            found = connection.execute(text(f"SELECT id FROM {collection.qualified}")).scalars()
            assert set(found) == left
        assert {str(i) for i in connection.execute(text("SELECT id FROM document_images")).scalars()} == left
        assert scalar(connection, "SELECT count(*) FROM embedding_failures") == 2


def test_keeping_nothing_removes_all_images_of_this_document_only(database: Database) -> None:
    make_document(database, DOC, 3)
    make_document(database, "shop/other", 2)
    make_document(database, "rival/doc", 2)
    with database.transaction() as connection:
        assert remove_images_not_in(connection, DOC, [], []) == 3
        assert scalar(connection, "SELECT count(*) FROM document_images") == 4
