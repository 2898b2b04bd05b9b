"""Archived documents leave Dagster's partitions and nothing else; a change brings them back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from embedding_assets.defs.archiving import archive_partitions
from embedding_assets.defs.partitions import documents
from embedding_assets.errors import FatalError
from embedding_assets.keys import DocumentKey
from embedding_assets.store.documents import mark_failed, settled_documents
from embedding_assets_tests.defs.dagster_project import DagsterProject

ASSET = "slig_embeddings"


@pytest.fixture
def keys(dagster: DagsterProject) -> list[DocumentKey]:
    """Three complete documents."""
    keys = [dagster.project.ingested(f"shop/doc{n}", range(3 * n, 3 * n + 3)) for n in range(3)]
    assert dagster.embed(*keys).success
    return keys


def partitions(dagster: DagsterProject) -> list[str]:
    return list(dagster.instance.get_dynamic_partitions(documents.name or ""))


def test_partitions_go_and_rows_and_vectors_stay(dagster: DagsterProject, keys: list[DocumentKey]) -> None:
    first, second, third = keys
    unknown = DocumentKey("shop", "unknown")
    assert archive_partitions(dagster.instance, [first, third, unknown], dry_run=True) == 2
    assert partitions(dagster) == list(map(str, keys))
    assert archive_partitions(dagster.instance, [first, third, unknown]) == 2
    assert partitions(dagster) == [str(second)]
    assert len(dagster.project.vectors()) == 9
    dagster.project.check_flags_equal_vectors()


def test_an_archived_document_that_changes_is_done_like_a_new_one(
    dagster: DagsterProject, keys: list[DocumentKey]
) -> None:
    archive_partitions(dagster.instance, keys)
    dagster.project.encoder.calls.clear()
    dagster.project.ingested(str(keys[1]), [3, 4, 50])
    assert dagster.embed(keys[1]).success
    assert sum(len(call) for call in dagster.project.encoder.calls) == 1
    assert partitions(dagster) == [str(keys[1])]
    assert dagster.metadata(ASSET, keys[1])["embedded"] == 3


def test_nothing_is_archived_under_a_run_that_is_not_finished(
    dagster: DagsterProject, keys: list[DocumentKey]
) -> None:
    job = dagster.defs.resolve_job_def("embed_document")
    run = dagster.instance.create_run_for_job(job)
    with pytest.raises(FatalError, match="1 runs and no backfill are not finished"):
        archive_partitions(dagster.instance, keys)
    assert len(partitions(dagster)) == 3
    dagster.instance.report_run_canceled(run)
    assert archive_partitions(dagster.instance, keys) == 3


def test_only_documents_that_rest_are_settled(dagster: DagsterProject, keys: list[DocumentKey]) -> None:
    with dagster.project.database.transaction() as connection:
        mark_failed(connection, keys[2])
    with dagster.project.database.transaction() as connection:
        assert settled_documents(connection, "shop", timedelta(0)) == keys[:2]
        assert settled_documents(connection, "shop", timedelta(hours=1)) == []
        assert settled_documents(connection, "rival", timedelta(0)) == []
