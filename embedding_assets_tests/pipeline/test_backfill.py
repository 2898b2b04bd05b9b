"""Backfill of understanding vectors: images that have an analysis and no vector, page by page."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from embedding_assets.encoders.text import TextEmbedder
from embedding_assets.encoders.wordllama_text import WordLlamaEmbedder
from embedding_assets.errors import InfrastructureError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline import backfill
from embedding_assets.pipeline.backfill import BackfillReport, backfill_understanding, count_to_backfill
from embedding_assets.store.spaces import UNDERSTANDING
from embedding_assets_tests.pipeline.fake_analyzer import FakeAnalyzer
from embedding_assets_tests.pipeline.project import Project


class Unplugged(WordLlamaEmbedder):
    """A provider that is gone after some calls."""

    calls_left = 1

    def embed_documents(self, texts: Sequence[str]):  # type: ignore[no-untyped-def]
        if not self.calls_left:
            raise InfrastructureError("unplugged")
        self.calls_left -= 1
        return super().embed_documents(texts)


def provider(template: str) -> TextEmbedder:
    return WordLlamaEmbedder(template)


def analysed(project: Project, key: str, seeds: Sequence[int]) -> DocumentKey:
    project.analyzer = FakeAnalyzer()
    project.text_provider = provider
    document = project.ingested(key, seeds)
    runner = project.vision_runner()
    runner.run(document.workspace_id, runner.pending(document))
    return document


def test_every_analysis_without_a_vector_gets_one_and_a_second_backfill_finds_nothing(
    project: Project,
) -> None:
    first, second = (
        analysed(project, "shop/first", range(1, 6)),
        analysed(project, "shop/second", range(6, 9)),
    )
    other = analysed(project, "rival/third", [20, 21])
    embedder = project.understanding_embedder()
    assert count_to_backfill(embedder, "shop") == 8
    assert backfill_understanding(embedder, "shop") == BackfillReport(scanned=8, embedded=8)
    assert len(project.vectors(first, UNDERSTANDING)) == 5
    assert len(project.vectors(second, UNDERSTANDING)) == 3
    assert project.vectors(other, UNDERSTANDING) == {}
    assert backfill_understanding(embedder, "shop") == BackfillReport()
    project.check_flags_equal_vectors()


def test_a_limit_and_a_document_bound_it(project: Project) -> None:
    first = analysed(project, "shop/first", range(1, 6))
    second = analysed(project, "shop/second", range(6, 9))
    embedder = project.understanding_embedder()
    assert backfill_understanding(embedder, "shop", document_id="first", limit=2).embedded == 2
    assert len(project.vectors(first, UNDERSTANDING)) == 2
    assert project.vectors(second, UNDERSTANDING) == {}
    assert count_to_backfill(embedder, "shop", "first") == 3


def test_what_was_done_before_a_breakdown_is_not_done_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "PAGE", 4)
    document = analysed(project, "shop/first", range(1, 11))
    project.text_provider = Unplugged
    with pytest.raises(InfrastructureError):
        backfill_understanding(project.understanding_embedder(), "shop")
    assert len(project.vectors(document, UNDERSTANDING)) == 4
    project.text_provider = provider
    seen: list[int] = []
    report = backfill_understanding(
        project.understanding_embedder(), "shop", progress=lambda so_far: seen.append(so_far.scanned)
    )
    assert report == BackfillReport(scanned=6, embedded=6)
    assert seen == [4, 6]
    assert len(project.vectors(document, UNDERSTANDING)) == 10
