"""What people look through: pages of documents and images, and one image in full."""

from __future__ import annotations

import uuid

from embedding_assets.errors import ErrorClass
from embedding_assets.keys import DocumentKey
from embedding_assets.store.browsing import get_image, list_images, sample_images, summarize_documents
from embedding_assets.store.database import Database
from embedding_assets.store.documents import mark_ingested
from embedding_assets.store.failures import Failure, record_failures
from embedding_assets.store.spaces import SLIG, ensure_collection
from embedding_assets.store.vectors import write_embeddings
from embedding_assets_tests.factories import make_document, random_vectors, space

KEY = DocumentKey("shop", "tiles.pdf")


def embed(database: Database, ids: list[uuid.UUID]) -> None:
    with database.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space())
        write_embeddings(connection, "shop", ids, [(collection, random_vectors(len(ids)))], stage="slig")


def test_images_come_page_by_page_in_reading_order(database: Database) -> None:
    ids = make_document(database, KEY, 5)
    with database.transaction() as connection:
        first = list_images(connection, KEY, limit=3)
        second = list_images(connection, KEY, after=first[-1].index, limit=3)
    assert [image.image_id for image in [*first, *second]] == ids
    assert [image.index for image in first] == [0, 1, 2]


def test_images_at_one_position_stay_together(database: Database) -> None:
    make_document(database, KEY, 2)
    make_document(database, KEY, 1, first=1, content="another one at position 1")
    with database.transaction() as connection:
        assert [image.index for image in list_images(connection, KEY, limit=2)] == [0, 1, 1]


def test_an_image_says_which_vectors_it_has_and_where_it_failed(database: Database) -> None:
    good, bad = make_document(database, KEY, 2)
    embed(database, [good])
    with database.transaction() as connection:
        record_failures(
            connection, [Failure(KEY, bad, "slig", ErrorClass.PERMANENT, "ImageRejected", "broken", 1)]
        )
        first, second = list_images(connection, KEY)
    assert (first.vectors, first.failed) == ((SLIG,), ())
    assert (second.vectors, second.failed) == ((), ("slig",))


def test_a_sample_holds_embedded_images_and_is_the_same_each_time(database: Database) -> None:
    ids = make_document(database, KEY, 6)
    other = make_document(database, "shop/other", 2)
    embed(database, ids[:4] + other)
    with database.transaction() as connection:
        all_of_them = sample_images(connection, "shop", 100)
        some = sample_images(connection, "shop", 3)
        of_one = sample_images(connection, "shop", 100, "other")
    assert {image.image_id for image in all_of_them} == {*ids[:4], *other}
    assert some == all_of_them[:3]
    assert {image.image_id for image in of_one} == set(other)


def test_documents_are_summed_up_by_id_and_unknown_ones_left_out(database: Database) -> None:
    make_document(database, KEY, 1)
    with database.transaction() as connection:
        mark_ingested(connection, KEY, "hash", "Tiles", 12)
        found = summarize_documents(connection, "shop", ["tiles.pdf", "unknown"])
    assert list(found) == ["tiles.pdf"]
    summary = found["tiles.pdf"]
    assert (summary.title, summary.page_count, summary.status) == ("Tiles", 12, "ingested")
    assert summary.ingested_at is not None


def test_an_image_in_full_is_of_its_workspace_only(database: Database) -> None:
    (image,) = make_document(database, KEY, 1, caption="Oak", nearby_text="Oak, matte")
    with database.transaction() as connection:
        found = get_image(connection, "shop", image)
        assert get_image(connection, "rival", image) is None
    assert found is not None
    assert (found.summary.caption, found.nearby_text) == ("Oak", "Oak, matte")
    assert (found.image_format, found.vision_analysis, found.stage_skips) == ("PNG", None, {})
