"""No function of the store reads or writes across workspaces."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, text

from embedding_assets.errors import ErrorClass
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.asset_stages import ASSET_STAGES as STAGES
from embedding_assets.store import (
    analyses,
    browsing,
    calibrations,
    consistency,
    coverage_history,
    coverage_totals,
    document_stages,
    documents,
    due,
    failures,
    images,
    jobs,
    landed,
    listing,
    removal,
    repair,
    retrying,
    search,
    search_scope,
    selection,
    spaces,
    vectors,
)
from embedding_assets.store.analyses import AnalysisVersion
from embedding_assets.store.coverage_totals import CoverageTotal
from embedding_assets.store.database import Database
from embedding_assets.store.spaces import SLIG, Collection, ensure_collection
from embedding_assets_tests.factories import found_image, make_document, random_vectors, space

OURS, THEIRS = DocumentKey("shop", "doc"), DocumentKey("rival", "doc")
FLAG = "has_slig_embedding"
ANALYSIS = {"description": "the product of one of them"}
OLD, NEW = AnalysisVersion("local", "model", 1), AnalysisVersion("local", "model", 2)


@dataclass
class Two:
    """The same document twice, in two workspaces: ours without vectors, theirs with them and a failure."""

    connection: Connection
    collection: Collection
    our_ids: list[uuid.UUID]
    their_ids: list[uuid.UUID]

    @property
    def all_ids(self) -> list[uuid.UUID]:
        return self.our_ids + self.their_ids


def failure(image: uuid.UUID | None) -> failures.Failure:
    return failures.Failure(OURS, image, "slig", ErrorClass.PERMANENT, "E", "m", 1)


def asked(two: Two) -> search.ArmQuery:
    return search.ArmQuery("visual", two.collection, np.ones(8, np.float32))


def add_job(connection: Connection, workspace: str) -> bool:
    return jobs.add_job(
        connection,
        workspace,
        "job",
        kind="retry",
        mode="run",
        request_hash="0",
        document_ids=["doc"],
        stages=[],
        counts={"failures": 1},
        created_by=f"a key of {workspace}",
    )


CALLS: dict[str, Callable[[Two], Any]] = {
    "register_document": lambda t: documents.register_document(t.connection, OURS, "pdf", "/other.pdf"),
    "get_document": lambda t: documents.get_document(t.connection, OURS),
    "list_documents": lambda t: documents.list_documents(t.connection, "shop"),
    "settled_documents": lambda t: documents.settled_documents(t.connection, "shop", timedelta(0)),
    "mark_ingested": lambda t: documents.mark_ingested(t.connection, OURS, "hash", "title", 1),
    "mark_failed": lambda t: documents.mark_failed(t.connection, OURS),
    "coverage_of_workspace": lambda t: documents.coverage_of_workspace(t.connection, "shop", FLAG, "slig"),
    "coverage_of_document": lambda t: documents.coverage_of_document(t.connection, OURS, FLAG, "slig"),
    "coverage_by_stage": lambda t: documents.coverage_by_stage(t.connection, "shop", STAGES),
    "coverage_totals": lambda t: coverage_totals.coverage_totals(t.connection, "shop", STAGES, 0.95),
    "incomplete_documents": lambda t: coverage_totals.incomplete_documents(
        t.connection, "shop", STAGES, 0.95
    ),
    "coverage_of_documents": lambda t: documents.coverage_of_documents(t.connection, [OURS], STAGES[0]),
    "save_images": lambda t: images.save_images(
        t.connection, OURS, [(i, 0, found_image(n, caption="ours")) for n, i in enumerate(t.all_ids)]
    ),
    "remove_images_not_in": lambda t: images.remove_images_not_in(t.connection, OURS, [], [t.collection]),
    "images_lacking": lambda t: images.images_lacking(t.connection, OURS, "has_color_slig", "slig"),
    "load_images_to_do": lambda t: images.load_images_to_do(
        t.connection, "shop", t.all_ids, "has_color_slig", "x"
    ),
    "describe_images": lambda t: images.describe_images(t.connection, "shop", t.all_ids),
    "skip_images": lambda t: images.skip_images(
        t.connection, "shop", dict.fromkeys(t.all_ids, "no text"), "text"
    ),
    "count_by_status": lambda t: images.count_by_status(t.connection, OURS),
    "count_before": lambda t: images.count_before(t.connection, OURS, "same", 2),
    "record_failures": lambda t: failures.record_failures(t.connection, [failure(i) for i in t.all_ids]),
    "resolve_failures": lambda t: failures.resolve_failures(t.connection, OURS, "slig", t.all_ids),
    "release_for_retry": lambda t: failures.release_for_retry(t.connection, OURS, "slig"),
    "open_failures": lambda t: failures.open_failures(t.connection, "shop"),
    "write_embeddings": lambda t: vectors.write_embeddings(
        t.connection, "shop", t.all_ids, [(t.collection, random_vectors(4, seed=1))], stage="slig"
    ),
    "copy_known_vectors": lambda t: vectors.copy_known_vectors(
        t.connection, "shop", t.all_ids, [t.collection], stage="slig"
    ),
    "write_analyses": lambda t: analyses.write_analyses(
        t.connection, "shop", [(i, ANALYSIS) for i in t.all_ids], NEW, t.collection
    ),
    "copy_known_analyses": lambda t: analyses.copy_known_analyses(
        t.connection, "shop", t.all_ids, OLD, t.collection
    ),
    "expire_analyses": lambda t: analyses.expire_analyses(t.connection, OURS, NEW),
    "forget_analyses": lambda t: analyses.forget_analyses(t.connection, OURS),
    "analysed_without_vector": lambda t: analyses.analysed_without_vector(
        t.connection, "shop", None, None, 100
    ),
    "documents_to_understand": lambda t: analyses.documents_to_understand(t.connection, "shop"),
    "count_analysed_without_vector": lambda t: analyses.count_analysed_without_vector(
        t.connection, "shop", None
    ),
    "drop_unflagged": lambda t: vectors.drop_unflagged(t.connection, "shop", "doc", t.collection),
    "read_vectors_lacking": lambda t: vectors.read_vectors_lacking(
        t.connection, OURS, t.collection, "has_color_slig"
    ),
    "forget_vectors": lambda t: vectors.forget_vectors(t.connection, OURS, [t.collection], stage="slig"),
    "count_failures": lambda t: coverage_history.count_failures(t.connection, "shop"),
    "record_coverage": lambda t: coverage_history.record_coverage(
        t.connection, "shop", {"slig": CoverageTotal()}, {}
    ),
    "coverage_history": lambda t: coverage_history.coverage_history(t.connection, "shop", timedelta(1)),
    "refresh_metadata": lambda t: vectors.refresh_metadata(t.connection, "shop", "doc", t.collection),
    "record_done": lambda t: document_stages.record_done(t.connection, [OURS], "slig", "v1"),
    "documents_lacking": lambda t: selection.documents_lacking(t.connection, "shop", "slig", FLAG, 0.95),
    "documents_to_ingest": lambda t: selection.documents_to_ingest(t.connection, "shop"),
    "documents_never_read": lambda t: selection.documents_never_read(t.connection, "shop"),
    "documents_with_failures": lambda t: selection.documents_with_failures(t.connection, "shop", "slig"),
    "documents_of_other_versions": lambda t: selection.documents_of_other_versions(
        t.connection, "shop", "slig", "v2"
    ),
    "page_of_documents": lambda t: listing.page_of_documents(t.connection, "shop", None, 10),
    "page_of_failures": lambda t: listing.page_of_failures(t.connection, "shop"),
    "count_vectors_by_kind": lambda t: listing.count_vectors_by_kind(t.connection, "shop", [FLAG], ["doc"]),
    "documents_of_images": lambda t: listing.documents_of_images(t.connection, "shop", t.all_ids),
    "failures_to_retry": lambda t: retrying.failures_to_retry(t.connection, "shop", image_ids=t.all_ids),
    "release_chosen": lambda t: retrying.release_chosen(t.connection, "shop", image_ids=t.all_ids),
    "add_job": lambda t: add_job(t.connection, "shop"),
    "get_job": lambda t: jobs.get_job(t.connection, "shop", "job"),
    "page_of_jobs": lambda t: jobs.page_of_jobs(t.connection, "shop", None, 10),
    "update_job": lambda t: jobs.update_job(t.connection, "shop", "job", state="done"),
    "restart_job": lambda t: jobs.restart_job(t.connection, "shop", "job"),
    "count_jobs": lambda t: jobs.count_jobs(t.connection, "shop"),
    "images_without_vectors": lambda t: jobs.images_without_vectors(t.connection, OURS),
    "count_since": lambda t: jobs.count_since(
        t.connection, OURS, datetime.min, [str(i) for i in t.their_ids]
    ),
    "release_failures": lambda t: (
        selection.release_failures(t.connection, [OURS], "slig"),
        selection.release_failures(t.connection, [OURS], "ingest"),
    ),
    "remove_documents": lambda t: removal.remove_documents(t.connection, [OURS]),
    "landing_hashes": lambda t: landed.landing_hashes(t.connection, [OURS]),
    "forget_landed": lambda t: landed.forget_landed(t.connection, [OURS]),
    "count_scope": lambda t: search.count_scope(t.connection, search_scope.Scope("shop"), 1_000),
    "exact_scores": lambda t: (
        search.exact_scores(t.connection, search_scope.Scope("shop"), [asked(t)], ["r10"], t.all_ids).ids
    ),
    "exact_scores_above": lambda t: (
        search.exact_scores_above(
            t.connection,
            search_scope.Scope("shop"),
            [asked(t)],
            [search.Share(1.0, 0.0, 1.0)],
            t.all_ids,
            [1.0] * len(t.all_ids),
            -1.0,
        ).ids
    ),
    "nearest_by_arm": lambda t: search.nearest_by_arm(
        t.connection, search_scope.Scope("shop"), [asked(t)], 100
    ),
    "holders_of_codes": lambda t: search.holders_of_codes(
        t.connection, search_scope.Scope("shop"), ["r10"], 100
    ),
    "describe_hits": lambda t: search.describe_hits(t.connection, "shop", t.all_ids),
    "vectors_of_images": lambda t: search.vectors_of_images(t.connection, "shop", t.all_ids, t.collection),
    "summarize_documents": lambda t: browsing.summarize_documents(t.connection, "shop", ["doc"]),
    "list_images": lambda t: browsing.list_images(t.connection, OURS),
    "sample_images": lambda t: browsing.sample_images(t.connection, "shop", 100),
    "get_image": lambda t: [browsing.get_image(t.connection, "shop", i) for i in t.all_ids],
}

NOT_OF_A_WORKSPACE = {
    "parse_filters": "touches no database",
    "to_open_failure": "touches no database",
    "scope_sql": "touches no database",
    "codes_in": "reads nothing but the text it is given",
    "begin_search": "reads nothing",
    "sample_vectors": "maintenance, and says so",
    "read_calibrations": "statistics of whole collections",
    "write_calibration": "statistics of whole collections",
    "count_vectors": "maintenance, and says so",
    "estimate_vectors": "statistics of whole collections",
    "estimate_shares": "maintenance, and says so",
    "list_workspaces": "maintenance, and says so",
    "failures_of_run": "maintenance, and says so: a run may hold documents of several workspaces",
    "take_due": "maintenance, and says so: one sensor looks after all workspaces",
    "landing_documents": "maintenance, and says so: one landing folder holds all workspaces",
    "read_landed": "maintenance, as the module says: one landing folder holds all workspaces",
    "save_seen": "the same",
    "mark_handled": "the same",
    "mark_missing": "the same",
    "unconfirmed_requests": "the same",
    "confirm_requests": "the same",
    "delete_vectors": "takes ids of images that the caller has found in its workspace and removes",
    "forget_coverage": "maintenance, and says so",
    "coverage_sql": "touches no database",
    "coverage_parameters": "touches no database",
    "read_coverage_rows": "touches no database",
    "find_drift": "maintenance, and says so",
    "flags_without_collection": "maintenance, and says so",
    "unregistered_names": "embedding spaces are the whole database's",
    "usable_collections": "embedding spaces are the whole database's",
    "inspect_spaces": "embedding spaces are the whole database's",
    "key_ranges": "maintenance, and says so",
    "lower_flags": "maintenance, and says so",
    "raise_flags": "maintenance, and says so",
    "drop_unproven": "maintenance, and says so",
    "delete_orphans": "maintenance, and says so",
    "renew_metadata": "maintenance, and says so",
    "encode_copy": "touches no database",
    "cursor_of": "touches no database",
    "active_collection": "embedding spaces are the whole database's",
    "active_collections": "embedding spaces are the whole database's",
    "existing_collections": "embedding spaces are the whole database's",
    "all_collections": "embedding spaces are the whole database's",
    "check_space": "embedding spaces are the whole database's",
    "ensure_collection": "embedding spaces are the whole database's",
    "record_speed": "embedding spaces are the whole database's",
}


MODULES = (
    analyses,
    browsing,
    consistency,
    coverage_history,
    coverage_totals,
    calibrations,
    search,
    search_scope,
    document_stages,
    documents,
    due,
    failures,
    images,
    jobs,
    landed,
    listing,
    removal,
    repair,
    retrying,
    selection,
    spaces,
    vectors,
)


def public_functions() -> set[str]:
    return {
        name
        for module in MODULES
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }


def test_every_function_of_the_store_is_judged_here() -> None:
    assert public_functions() == set(CALLS) | set(NOT_OF_A_WORKSPACE)


def snapshot(connection: Connection) -> list[Any]:
    """Everything of the other workspace."""
    return [
        connection.execute(text(f"SELECT to_jsonb(t) FROM {table} t WHERE {where} ORDER BY 1"))
        .scalars()
        .all()
        for table, where in (
            ("documents", "workspace_id = 'rival'"),
            ("document_images", "workspace_id = 'rival'"),
            ("embedding_failures", "workspace_id = 'rival'"),
            ("coverage_history", "workspace_id = 'rival'"),
            ("document_stages", "workspace_id = 'rival'"),
            ("landed_documents", "workspace_id = 'rival'"),
            ("jobs", "workspace_id = 'rival'"),
            (
                'vecs."image_slig_embeddings"',
                "id IN (SELECT id::text FROM document_images WHERE workspace_id = 'rival')",
            ),
        )
    ]


@pytest.mark.parametrize("name", CALLS)
def test_a_call_for_one_workspace_neither_shows_nor_touches_another(database: Database, name: str) -> None:
    our_ids = make_document(database, OURS, 2, content_hash="same")
    their_ids = make_document(database, THEIRS, 2, content_hash="same", caption="a rival's secret")
    with database.transaction() as connection:
        collection = ensure_collection(connection, SLIG, space(8))
        for key, stage in ((THEIRS, "slig"), (THEIRS, "ingest")):
            theirs = [
                failures.Failure(key, i, stage, ErrorClass.PERMANENT, "E", "a rival's secret", 1)
                for i in (their_ids[1], None)
            ]
            failures.record_failures(connection, theirs)
        vectors.write_embeddings(
            connection, "rival", their_ids[:1], [(collection, random_vectors(1))], stage="slig"
        )
        coverage_history.record_coverage(connection, "rival", {"slig": CoverageTotal(documents=1)}, {})
        document_stages.record_done(connection, [THEIRS], "slig", "v1")
        add_job(connection, "rival")
        landed.save_seen(connection, [landed.Seen(THEIRS, "pdf", "/rival/doc.pdf", "a rival's fingerprint")])
        # stale metadata, which a refresh would mend
        connection.execute(text("UPDATE document_images SET page_number = 99 WHERE workspace_id = 'rival'"))
        analyses.write_analyses(
            connection, "rival", [(i, {"description": "a rival's secret"}) for i in their_ids], OLD, None
        )
    with database.transaction() as connection:
        before = snapshot(connection)
        assert all(before)
        answer = CALLS[name](Two(connection, collection, our_ids, their_ids))
        assert snapshot(connection) == before
    shown = repr(answer)
    assert "rival" not in shown
    for number in their_ids:
        assert str(number) not in shown
