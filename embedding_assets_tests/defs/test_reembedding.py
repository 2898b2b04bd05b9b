"""Job reembed_document: everything is made anew, once, and nothing of other documents is touched."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import PARTITION_NAME_TAG
from sqlalchemy import text

from embedding_assets.errors import ErrorClass, FatalError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.reembedding import forget_stage
from embedding_assets.store.failures import Failure, record_failures
from embedding_assets_tests.defs.dagster_project import DagsterProject

SLIG = "slig_embeddings"
FORCE = {SLIG: {"config": {"force": True}}}


@pytest.fixture
def keys(dagster: DagsterProject) -> tuple[DocumentKey, DocumentKey]:
    """Two documents with visual vectors."""
    first = dagster.project.ingested("shop/first", range(3))
    second = dagster.project.ingested("shop/second", range(10, 13))
    assert dagster.embed(first, second).success
    dagster.project.encoder.calls.clear()
    return first, second


def spoil(dagster: DagsterProject) -> None:
    """Turns every visual vector into another one."""
    negated = "(SELECT array_agg(-x)::vector FROM unnest(vec::real[]) x)"
    with dagster.project.database.transaction() as connection:
        connection.execute(text(f"UPDATE vecs.image_slig_embeddings SET vec = {negated}"))


def test_a_documents_vectors_are_made_anew_and_no_others(
    dagster: DagsterProject, keys: tuple[DocumentKey, DocumentKey]
) -> None:
    first, second = keys
    sound = dagster.project.vectors(first)
    spoil(dagster)
    spoiled = dagster.project.vectors(second)
    outcome = dagster.embed(first, force=True)
    assert outcome.success
    assert sum(len(call) for call in dagster.project.encoder.calls) == 3
    for image_id, vector in dagster.project.vectors(first).items():
        np.testing.assert_allclose(vector, sound[image_id], atol=1e-6)
    for image_id, vector in dagster.project.vectors(second).items():
        np.testing.assert_array_equal(vector, spoiled[image_id])
    assert dagster.metadata(SLIG, first)["embedded"] == 3


def test_the_job_forces_all_its_stages_unless_told_otherwise(dagster: DagsterProject) -> None:
    job = dagster.defs.resolve_job_def("reembed_document")
    assert set(job.graph.node_dict) == {SLIG, "understanding_embeddings", "text_embeddings"}
    assert job.partitioned_config is not None
    default = job.partitioned_config.get_run_config_for_partition_key("shop/doc")
    assert {asset: ops["config"]["force"] for asset, ops in default["ops"].items()} == dict.fromkeys(
        job.graph.node_dict, True
    )


def test_what_could_not_be_made_anew_fails_the_run_and_shows_as_missing(
    dagster: DagsterProject, keys: tuple[DocumentKey, DocumentKey]
) -> None:
    def down(contents: list[str]) -> None:
        raise FatalError("the device is gone")

    dagster.project.encoder.before_encode = down
    assert not dagster.embed(keys[0], force=True).success
    assert dagster.project.vectors(keys[0]) == {}
    dagster.project.encoder.before_encode = lambda contents: None
    assert dagster.embed(keys[0]).success
    assert len(dagster.project.vectors(keys[0])) == 3


@pytest.mark.parametrize(("of_a_run", "encoded"), [(False, 3), (True, 0)])
def test_a_reexecution_goes_on_where_the_run_stopped(
    dagster: DagsterProject, keys: tuple[DocumentKey, DocumentKey], of_a_run: bool, encoded: int
) -> None:
    job = dagster.defs.resolve_job_def("embed_document")
    parent = str(uuid.uuid4()) if of_a_run else None
    run = dagster.instance.create_run_for_job(
        job,
        run_config={"ops": FORCE},
        tags={PARTITION_NAME_TAG: str(keys[0])},
        parent_run_id=parent,
        root_run_id=parent,
    )
    assert execute_run(InMemoryJob(job), run, dagster.instance).success
    assert sum(len(call) for call in dagster.project.encoder.calls) == encoded
    assert len(dagster.project.vectors(keys[0])) == 3


def test_permanent_failures_and_skips_are_due_again(
    dagster: DagsterProject, keys: tuple[DocumentKey, DocumentKey]
) -> None:
    project, first = dagster.project, keys[0]
    ids = project.ids(first)
    with project.database.transaction() as connection:
        connection.execute(
            text("UPDATE document_images SET stage_skips = :skips WHERE id = :id"),
            {"skips": '{"text": "no text", "slig": "left out"}', "id": ids[1]},
        )
        record_failures(connection, [Failure(first, ids[0], "slig", ErrorClass.PERMANENT, "E", "m", 4)])
    assert project.embedder().pending(first) == []
    assert forget_stage(project.database, first, "slig") == 3
    assert project.embedder().pending(first) == ids
    assert rows(dagster, first)[1].stage_skips == {"text": "no text"}
    assert forget_stage(project.database, first, "slig") == 0


def rows(dagster: DagsterProject, key: DocumentKey) -> list[Any]:
    return dagster.project.rows(key)


def test_analyses_are_kept_until_new_ones_replace_them(
    dagster: DagsterProject, keys: tuple[DocumentKey, DocumentKey]
) -> None:
    first = keys[0]
    (outcome,) = dagster.run("understand_document", [first])
    assert outcome.success, outcome.reason
    assert forget_stage(dagster.project.database, first, "vision") == 3
    assert all(row.vision_analysis and not row.has_vision_analysis for row in rows(dagster, first))
    assert all(row.has_understanding_embedding for row in rows(dagster, first))
