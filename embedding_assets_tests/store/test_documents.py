"""Rows of documents, and the arithmetic of coverage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from embedding_assets.errors import ErrorClass
from embedding_assets.ingest.records import ImageStatus
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import ASSET_STAGES as STAGES
from embedding_assets.store.coverage_totals import CoverageTotal, coverage_totals, incomplete_documents
from embedding_assets.store.database import Database
from embedding_assets.store.documents import (
    Coverage,
    coverage_by_stage,
    coverage_of_document,
    coverage_of_documents,
    coverage_of_workspace,
    get_document,
    list_documents,
    list_workspaces,
    mark_failed,
    mark_ingested,
    register_document,
)
from embedding_assets.store.failures import Failure, record_failures, resolve_failures
from embedding_assets.store.images import save_images
from embedding_assets.store.models import ALL_SLIG, SLIG_FLAGS
from embedding_assets.store.spaces import SLIG, ensure_collection
from embedding_assets.store.vectors import write_embeddings
from embedding_assets_tests.factories import found_images, make_document, random_vectors, space

DOC = DocumentKey("shop", "doc")
FLAG = "has_slig_embedding"


def test_a_document_is_registered_once_and_its_source_kept_up_to_date(database: Database) -> None:
    with database.transaction() as connection:
        assert get_document(connection, DOC) is None
        register_document(connection, DOC, "pdf", "/a.pdf")
        first = connection.execute(text("SELECT xmin, * FROM documents")).one()
        register_document(connection, DOC, "posted", None, [{"path": "x.png", "page_number": 2}])
        found = get_document(connection, DOC)
    assert (first.source_kind, first.source_uri, first.posted_images) == ("pdf", "/a.pdf", None)
    assert found is not None
    assert (found.source_kind, found.source_uri, found.status) == ("posted", None, "registered")
    assert found.posted_images == [{"path": "x.png", "page_number": 2}]


def test_registering_the_same_source_again_writes_nothing(database: Database) -> None:
    versions = []
    for _ in range(2):
        with database.transaction() as connection:
            register_document(connection, DOC, "posted", "/a", [{"b": 1, "a": [None]}])
        with database.transaction() as connection:
            versions.append(connection.execute(text("SELECT xmin, updated_at FROM documents")).one())
    assert versions[0] == versions[1]


def test_ingested_and_failed_are_remembered(database: Database) -> None:
    make_document(database, DOC, 0)
    with database.transaction() as connection:
        mark_ingested(connection, DOC, "hash", "Title \0 of \ud800", 12)
        ingested = get_document(connection, DOC)
        mark_failed(connection, DOC)
        failed = get_document(connection, DOC)
    assert ingested is not None
    assert (ingested.status, ingested.content_hash, ingested.page_count) == ("ingested", "hash", 12)
    assert ingested.title == "Title \ufffd of ?"
    assert failed is not None
    assert (failed.status, failed.content_hash, failed.title) == ("failed", None, ingested.title)


def test_documents_are_listed_by_workspace(database: Database) -> None:
    for key in ("shop/b", "shop/a", "rival/c"):
        make_document(database, key, 0)
    with database.transaction() as connection:
        assert [str(k) for k in list_documents(connection, "shop")] == ["shop/a", "shop/b"]
        assert list_documents(connection, "nobody") == []
        assert list_workspaces(connection) == ["rival", "shop"]


# -- coverage ------------------------------------------------------------------------------------------------

Fate = tuple[ImageStatus, bool, dict[str, Any] | None]
"""An image's status, whether it has a vector, and its open failure of the stage."""

FATES: dict[str, tuple[Fate, str]] = {
    "embedded": ((ImageStatus.READY, True, None), "embedded"),
    "not tried": ((ImageStatus.READY, False, None), "missing"),
    "failed for now": ((ImageStatus.READY, False, {"error_class": ErrorClass.TRANSIENT}), "missing"),
    "throttled": ((ImageStatus.READY, False, {"error_class": ErrorClass.THROTTLED}), "missing"),
    "failed for good": ((ImageStatus.READY, False, {"error_class": ErrorClass.PERMANENT}), "rejected"),
    "failed for good at another stage": (
        (ImageStatus.READY, False, {"error_class": ErrorClass.PERMANENT, "stage": "understanding"}),
        "missing",
    ),
    "skipped": ((ImageStatus.SKIPPED, False, None), "skipped"),
    "rejected by ingest": ((ImageStatus.REJECTED, False, None), "rejected"),
    "rejected by ingest, with its record": (
        (ImageStatus.REJECTED, False, {"error_class": ErrorClass.PERMANENT, "stage": "ingest"}),
        "rejected",
    ),
    "not fetched yet": ((ImageStatus.PENDING, False, None), "missing"),
    "not fetched, with its record": (
        (ImageStatus.PENDING, False, {"error_class": ErrorClass.TRANSIENT, "stage": "ingest"}),
        "missing",
    ),
}


def make_mix(database: Database, fates: list[str], key: DocumentKey = DOC) -> None:
    with database.transaction() as connection:
        register_document(connection, key, "folder", "/landing")
        found, embedded, failures = [], [], []
        for index, fate in enumerate(fates):
            (status, has_vector, failure), _ = FATES[fate]
            (image,) = found_images(key, 1, first=index, status=status)
            found.append(image)
            if has_vector:
                embedded.append(image[0])
            if failure:
                fields = {"stage": "slig", **failure}
                failures.append(Failure(key, image[0], error_type="E", message="m", attempts=1, **fields))
        save_images(connection, key, found)
        record_failures(connection, failures)
        mark_ingested(connection, key, "hash", None, None)
        collection = ensure_collection(connection, SLIG, space(8))
        vectors = random_vectors(len(embedded))
        write_embeddings(connection, key.workspace_id, embedded, [(collection, vectors)], stage="slig")


@pytest.mark.parametrize("fate", FATES)
def test_every_fate_of_an_image_is_counted_as_one_thing(database: Database, fate: str) -> None:
    make_mix(database, [fate])
    with database.transaction() as connection:
        coverage = coverage_of_document(connection, DOC, FLAG, "slig")
    counts = {name: getattr(coverage, name) for name in ("embedded", "skipped", "rejected", "missing")}
    assert counts == {**dict.fromkeys(counts, 0), FATES[fate][1]: 1}
    assert coverage.total == 1


def columns_of(flag: str) -> tuple[str, ...]:
    """The columns that have to be set for a stage's flag: one of them is derived from five others."""
    return SLIG_FLAGS if flag == ALL_SLIG else (flag,)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fates=st.lists(st.sampled_from(sorted(FATES)), max_size=12),
    others=st.lists(st.sampled_from(sorted(FATES)), max_size=3),
)
def test_every_image_is_embedded_skipped_rejected_or_missing(
    database: Database, fates: list[str], others: list[str]
) -> None:
    with database.transaction() as connection:
        connection.execute(text("TRUNCATE documents CASCADE"))
    make_mix(database, fates)
    make_mix(database, others, DocumentKey("shop", "other"))
    make_mix(database, others, DocumentKey("rival", "doc"))
    with database.transaction() as connection:
        coverage = coverage_of_document(connection, DOC, FLAG, "slig")
        of_workspace = coverage_of_workspace(connection, "shop", FLAG, "slig")
    expected = [FATES[fate][1] for fate in fates]
    assert coverage == Coverage(
        DOC,
        len(fates),
        expected.count("embedded"),
        expected.count("skipped"),
        expected.count("rejected"),
        expected.count("missing"),
    )
    assert coverage.total == coverage.embedded + coverage.skipped + coverage.rejected + coverage.missing
    assert 0 <= coverage.ratio <= 1
    assert coverage.is_complete(0.0) == (coverage.missing == 0)
    assert [c.key.document_id for c in of_workspace] == ["doc", "other"]
    assert of_workspace[0] == coverage


STAGE_FATES = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["ready", "ready", "ready", "skipped", "rejected", "pending"]),
        "text": st.booleans(),
        "flags": st.lists(st.booleans(), min_size=4, max_size=4),
        "left_out": st.lists(st.booleans(), min_size=4, max_size=4),
        "failures": st.lists(
            st.sampled_from([None, "permanent", "permanent, resolved", "transient"]), min_size=4, max_size=4
        ),
    }
)


def count_one_by_one(images: list[dict[str, Any]], number: int) -> tuple[int, int, int, int]:
    """Embedded, skipped, rejected and missing images of one document at the stage of that number."""
    counts = {"embedded": 0, "skipped": 0, "rejected": 0, "missing": 0}
    blamed = [number - 1, number] if STAGES[number].name == "understanding" else [number]
    for image in images:
        nothing_to_do = STAGES[number].name == "text" and not image["text"]
        if image["status"] == "ready":
            if image["flags"][number]:
                fate = "embedded"
            elif image["left_out"][number]:
                fate = "skipped"
            elif any(image["failures"][n] == "permanent" for n in blamed):
                fate = "rejected"
            else:
                fate = "missing"
        elif image["status"] == "skipped" or nothing_to_do:
            fate = "skipped"
        else:
            fate = {"rejected": "rejected", "pending": "missing"}[image["status"]]
        counts[fate] += 1
    return counts["embedded"], counts["skipped"], counts["rejected"], counts["missing"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpus=st.lists(st.lists(STAGE_FATES, max_size=5), min_size=1, max_size=4))
def test_coverage_counted_at_once_is_what_counting_image_by_image_gives(
    database: Database, corpus: list[list[dict[str, Any]]]
) -> None:
    with database.transaction() as connection:
        connection.execute(text("TRUNCATE documents CASCADE"))
    keys = [DocumentKey("shop", f"doc{n}") for n in range(len(corpus))]
    for key, images in zip(keys, corpus, strict=True):
        ids = make_document(database, key, len(images))
        with database.transaction() as connection:
            mark_ingested(connection, key, "hash", None, None)
            for image_id, image in zip(ids, images, strict=True):
                columns = {flag: stage.flag for stage in STAGES for flag in columns_of(stage.flag)}
                flags = ", ".join(f"{column} = :{flag}" for column, flag in columns.items())
                skips = {s.name: "why" for s, out in zip(STAGES, image["left_out"], strict=True) if out}
                connection.execute(
                    text(
                        f"UPDATE document_images SET status = :status, caption = :caption, {flags}, "
                        "stage_skips = CAST(:skips AS jsonb) WHERE id = :id"
                    ),
                    {
                        "id": image_id,
                        "status": image["status"],
                        "caption": "Oak" if image["text"] else None,
                        "skips": json.dumps(skips),
                        **{s.flag: f for s, f in zip(STAGES, image["flags"], strict=True)},
                    },
                )
                for stage, failure in zip(STAGES, image["failures"], strict=True):
                    if failure:
                        error_class = ErrorClass(failure.split(",")[0])
                        record_failures(
                            connection, [Failure(key, image_id, stage.name, error_class, "E", "m", 1)]
                        )
                        if failure.endswith("resolved"):
                            resolve_failures(connection, key, stage.name, [image_id])
    with database.transaction() as connection:
        at_once = coverage_by_stage(connection, "shop", STAGES)
        some = coverage_by_stage(connection, "shop", STAGES, [key.document_id for key in keys[::2]])
        for number, stage in enumerate(STAGES):
            expected = [
                Coverage(key, len(images), *count_one_by_one(images, number))
                for key, images in zip(keys, corpus, strict=True)
            ]
            assert at_once[stage.name] == expected
            assert some[stage.name] == expected[::2]
            assert coverage_of_documents(connection, keys[::-1], stage) == expected[::-1]
            assert [coverage_of_document(connection, key, stage.flag, stage.name) for key in keys] == expected


def add_up(rows: list[Coverage], minimum: float) -> CoverageTotal:
    """Sums over documents, one by one."""
    total = CoverageTotal()
    for row in rows:
        counts = (row.total, row.embedded, row.skipped, row.rejected, row.missing)
        total += CoverageTotal(1, int(row.is_complete(minimum)), *counts)
    return total


@pytest.mark.parametrize("minimum", [0.0, 0.07, 0.5, 0.95, 1.0])
def test_sums_and_incomplete_documents_are_those_of_all_documents(database: Database, minimum: float) -> None:
    make_mix(database, ["embedded"] * 3, DocumentKey("shop", "done"))
    make_mix(database, ["embedded"] * 7 + ["failed for good"] * 93, DocumentKey("shop", "poor"))
    make_mix(database, ["embedded", "not tried", "skipped"], DocumentKey("shop", "waiting"))
    make_mix(database, ["skipped", "skipped"], DocumentKey("shop", "nothing-to-embed"))
    make_mix(database, [], DocumentKey("shop", "empty"))
    make_document(database, DocumentKey("shop", "not-ingested"), 0)
    with database.transaction() as connection:
        every = coverage_by_stage(connection, "shop", STAGES)
        assert coverage_totals(connection, "shop", STAGES, minimum) == {
            name: add_up(rows, minimum) for name, rows in every.items()
        }
        for stages in (STAGES, STAGES[:1]):
            found = incomplete_documents(connection, "shop", stages, minimum)
            left = [
                rows
                for rows in zip(*(every[stage.name] for stage in stages), strict=True)
                if not all(row.is_complete(minimum) for row in rows)
            ]
            assert list(zip(*found.values(), strict=True)) == left


def test_a_document_without_images_is_complete_and_an_unknown_one_is_not(database: Database) -> None:
    make_document(database, DOC, 0)
    unknown = DocumentKey("shop", "unknown")
    with database.transaction() as connection:
        mark_ingested(connection, DOC, "hash", None, None)
        coverage = coverage_of_document(connection, DOC, FLAG, "slig")
        assert coverage == Coverage(DOC, 0, 0, 0, 0, 0, ingested=True)
        assert coverage.is_complete(1.0)
        coverage = coverage_of_document(connection, unknown, FLAG, "slig")
        assert coverage == Coverage(unknown, 0, 0, 0, 0, 0, ingested=False)
        assert not coverage.is_complete(0.0)


def test_a_document_whose_rows_do_not_stand_for_its_content_is_never_complete(database: Database) -> None:
    make_mix(database, ["embedded"])
    with database.transaction() as connection:
        assert coverage_of_document(connection, DOC, FLAG, "slig").is_complete(1.0)
        mark_failed(connection, DOC)
        coverage = coverage_of_document(connection, DOC, FLAG, "slig")
    assert (coverage.ratio, coverage.is_complete(0.0)) == (1.0, False)


@pytest.mark.parametrize(
    ("counts", "ratio", "complete"),
    [
        ((100, 95, 0, 5, 0), 0.95, True),
        ((100, 94, 0, 6, 0), 0.94, False),
        ((100, 90, 10, 0, 0), 1.0, True),
        ((100, 99, 0, 0, 1), 0.99, False),
        ((3, 0, 3, 0, 0), 1.0, True),
        ((3, 0, 0, 3, 0), 0.0, False),
    ],
)
def test_coverage_is_complete_when_nothing_is_missing_and_enough_embedded(
    counts: tuple[int, int, int, int, int], ratio: float, complete: bool
) -> None:
    coverage = Coverage(DOC, *counts)
    assert coverage.ratio == ratio
    assert coverage.is_complete(0.95) is complete
