"""Two processes with the same work at the same time: one set of rows, no error, no deadlock."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding_assets_tests.faults.processes import EmbedWorker, lines_of
from embedding_assets_tests.pipeline.project import Project

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("collection_exists", [True, False])
def test_two_processes_embed_the_same_document_at_once(
    project: Project, tmp_path: Path, collection_exists: bool
) -> None:
    seeds = [*range(100), *range(0, 100, 5)]  # twenty of them twice
    key = project.ingested("shop/doc", seeds)
    if collection_exists:
        project.embedder().open_collection()
    log = tmp_path / "encoded.log"
    with EmbedWorker(project, key, log) as one, EmbedWorker(project, key, log) as other:
        for worker in (one, other):
            worker.begin()
        reports = [one.report(), other.report()]
    assert [report["failed"] for report in reports] == [0, 0]
    assert sum(report["embedded"] for report in reports) == len(seeds)
    assert project.vectors().keys() == set(project.ids(key))
    assert len(project.ids(key)) == len(seeds)
    project.check_flags_equal_vectors()
    assert project.failures(key) == []
    assert len(set(lines_of(log))) == 100
