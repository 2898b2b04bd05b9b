"""Runs of several documents, some of which fail: the others go the whole way, and what fails says so."""

from __future__ import annotations

import hashlib
from typing import Any

import dagster as dg
import pytest

from embedding_assets.errors import TransientError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.verification import DocumentOutcome, verify_documents
from embedding_assets.pipeline.versions import code_version_of
from embedding_assets_tests.defs.dagster_project import DagsterProject
from embedding_assets_tests.pipeline.project import png

BROKEN_PDF = b"%PDF-1.7\nnothing but this line"
ASSETS = (
    "document_images",
    "slig_embeddings",
    "vision_analysis",
    "understanding_embeddings",
    "text_embeddings",
)


def landed(dagster: DagsterProject, count: int, bad: set[int]) -> list[DocumentKey]:
    return [
        dagster.project.land(f"shop/doc{n}.pdf", BROKEN_PDF)
        if n in bad
        else dagster.project.land_images(f"shop/doc{n}", [n])
        for n in range(count)
    ]


def test_documents_that_cannot_be_read_do_not_keep_the_others_of_their_run_from_being_embedded(
    dagster: DagsterProject,
) -> None:
    keys = landed(dagster, 5, bad={0, 3})
    (outcome,) = dagster.run("process_document", keys)
    good = {str(key) for n, key in enumerate(keys) if n not in {0, 3}}
    for asset in ASSETS:
        assert dagster.materialized(asset) == good, asset
    assert not outcome.success
    assert "2 of 5 documents could not be read" in outcome.reason
    assert "shop/doc3.pdf: " in outcome.reason
    assert len(dagster.project.vectors()) == 3
    dagster.project.check_flags_equal_vectors()


def test_an_incomplete_analysis_does_not_keep_other_documents_from_being_understood(
    dagster: DagsterProject,
) -> None:
    keys = landed(dagster, 3, bad=set())
    dagster.project.analyzer.faults[hashlib.sha256(png(1)).hexdigest()] = [  # type: ignore[attr-defined]
        TransientError("no answer") for _ in range(100)
    ]
    (outcome,) = dagster.run("process_document", keys)
    assert not outcome.success
    good = {str(keys[0]), str(keys[2])}
    assert dagster.materialized("vision_analysis") == good
    assert dagster.materialized("understanding_embeddings") == good
    assert dagster.materialized("text_embeddings") == set(map(str, keys))
    assert "shop/doc1: 0 of 1 images embedded" in outcome.reason


def test_a_run_in_which_no_document_can_be_read_stops_there(dagster: DagsterProject) -> None:
    keys = landed(dagster, 2, bad={0, 1})
    (outcome,) = dagster.run("process_document", keys)
    assert not outcome.success
    steps = {str(e.step_key) for e in dagster.events(outcome.run_id, dg.DagsterEventType.STEP_START)}
    assert not [step for step in steps if step.rpartition(".")[2].startswith(("plan", "finish"))]


def test_the_check_beside_the_asset_says_whether_the_latest_run_left_a_document_undone(
    dagster: DagsterProject,
) -> None:
    keys = landed(dagster, 3, bad={1})
    (outcome,) = dagster.run("process_document", keys)
    found = {
        entry.asset_key.to_user_string(): entry
        for event in dagster.events(outcome.run_id, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        if (entry := event.asset_check_evaluation_data)
    }
    assert set(found) == set(ASSETS)
    assert not found["slig_embeddings"].passed
    assert found["slig_embeddings"].metadata["undone"].value == 1
    assert found["slig_embeddings"].metadata["first"].value == "shop/doc1.pdf"
    (outcome,) = dagster.run("process_document", keys[:1])
    assert outcome.success


def test_materializations_of_a_run_with_failures_carry_the_same_version_tags_as_those_of_one_without(
    dagster: DagsterProject,
) -> None:
    keys = landed(dagster, 3, bad={1})
    dagster.run("process_document", keys)
    clean = dagster.project.land_images("shop/clean", [9])
    dagster.run("process_document", [clean])
    tags = []
    for key in (keys[0], clean):
        (record,) = dagster.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey("slig_embeddings"), asset_partitions=[str(key)]),
            limit=1,
        ).records
        assert record.asset_materialization is not None
        tags.append(record.asset_materialization.tags or {})
    assert set(tags[0]) == set(tags[1])
    version = code_version_of("slig", dagster.settings)
    assert [tag["dagster/code_version"] for tag in tags] == [version, version]


def test_the_report_counts_again_and_materializes_what_is_done_by_then(
    dagster: DagsterProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when only that step is executed again, after somebody has done the rest."""
    project = dagster.project
    keys = [project.ingested(f"shop/doc{n}", [n]) for n in range(2)]
    content = hashlib.sha256(png(1)).hexdigest()
    project.encoder.prepare_faults[content] = [TransientError("reset") for _ in range(4)]

    def verify_then_finish(*arguments: Any) -> list[DocumentOutcome]:
        outcomes = verify_documents(*arguments)
        embedder = project.embedder()
        embedder.run("shop", embedder.pending(keys[1]))
        return outcomes

    monkeypatch.setattr("embedding_assets.defs.assets.stage_asset.verify_documents", verify_then_finish)
    assert dagster.embed(*keys).success
    assert dagster.materialized("slig_embeddings") == set(map(str, keys))
