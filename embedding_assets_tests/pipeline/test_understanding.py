"""Analysis and text vectors on real rows: what is stored together, what is asked of a provider and how often."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import vecs
from sqlalchemy import Connection, text

from embedding_assets.analysis.errors import AnalysisRejected
from embedding_assets.analysis.schema import SCHEMA_VERSION, VisionAnalysis
from embedding_assets.analysis.to_text import analysis_to_text
from embedding_assets.encoders.text import TextEmbedder
from embedding_assets.encoders.voyage import VoyageEmbedder
from embedding_assets.encoders.wordllama_text import WordLlamaEmbedder
from embedding_assets.errors import FatalError, SpaceMismatch, TransientError
from embedding_assets.keys import DocumentKey
from embedding_assets.pipeline.vision import FLAG as ANALYSED
from embedding_assets.store.analyses import write_analyses
from embedding_assets.store.documents import Coverage, coverage_of_document
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import TEXT, UNDERSTANDING
from embedding_assets_tests.pipeline.fake_analyzer import FakeAnalyzer, analysis_of
from embedding_assets_tests.pipeline.project import Project, png
from embedding_assets_tests.providers.clocks import FakeClock, no_quota
from embedding_assets_tests.providers.stubs import VoyageStub, refuse, vector_of

EMBEDDED = FLAGS[UNDERSTANDING]
DIMENSION = 256


def content(seed: int) -> str:
    return hashlib.sha256(png(seed)).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def analyzer(project: Project) -> FakeAnalyzer:
    project.analyzer = FakeAnalyzer()
    return project.analyzer


@pytest.fixture
def voyage(project: Project) -> Iterator[VoyageStub]:
    """The stub, as the project's text provider."""
    clock = project.clock = FakeClock()  # type: ignore[assignment]
    with VoyageStub() as stub:

        def provider(template: str) -> TextEmbedder:
            return VoyageEmbedder(
                "stub-key",
                template=template,
                base_url=stub.url,
                dimension=DIMENSION,
                timeout_s=5,
                budget=no_quota(clock),
            )

        project.text_provider = provider
        yield stub


def analyse(project: Project, key: DocumentKey, run_id: str | None = None) -> Any:
    runner = project.vision_runner()
    return runner.run(key.workspace_id, runner.pending(key), run_id=run_id)


def embed(project: Project, key: DocumentKey, **settings: int) -> Any:
    embedder = project.understanding_embedder(**settings)
    return embedder.run(key.workspace_id, embedder.pending(key))


def analysed(project: Project, count: int, key: str = "shop/doc") -> DocumentKey:
    """A document whose images are all analysed."""
    ingested = project.ingested(key, range(count))
    assert analyse(project, ingested).embedded == count
    return ingested


def coverage(project: Project, key: DocumentKey, stage: str = "understanding") -> Coverage:
    flag = {"vision": ANALYSED, "understanding": EMBEDDED, "text": FLAGS[TEXT]}[stage]
    with project.database.transaction() as connection:
        return coverage_of_document(connection, key, flag, stage)


def counts(found: Coverage) -> tuple[int, int, int, int]:
    return found.embedded, found.skipped, found.rejected, found.missing


def give_texts(project: Project, texts: dict[uuid.UUID, tuple[str | None, str | None]]) -> None:
    with project.database.transaction() as connection:
        for image_id, (caption, nearby) in texts.items():
            connection.execute(
                text("UPDATE document_images SET caption = :caption, nearby_text = :nearby WHERE id = :id"),
                {"id": str(image_id), "caption": caption, "nearby": nearby},
            )


def check_flags_equal_vectors(project: Project, collection: str = UNDERSTANDING) -> None:
    with project.database.transaction() as connection:
        flagged = set(
            connection.execute(text(f"SELECT id FROM document_images WHERE {FLAGS[collection]}")).scalars()
        )
    assert project.vectors(collection=collection).keys() == flagged


# -- analysis --------------------------------------------------------------------------------------------------


def test_an_analysis_is_stored_with_provider_model_version_and_time(
    project: Project, analyzer: FakeAnalyzer
) -> None:
    key = project.ingested("shop/doc", range(3))
    report = analyse(project, key)
    assert (report.embedded, report.calls) == (3, 1)
    for row in project.rows(key):
        assert VisionAnalysis(**row.vision_analysis) == analysis_of(row.content_hash)
        assert (row.vision_provider, row.vision_model) == ("fake", "fake-model")
        assert row.vision_version == f"fake:fake-model:schema-{SCHEMA_VERSION}"
        assert row.vision_analyzed_at is not None
        assert row.has_vision_analysis


def test_the_same_bytes_are_analysed_once_in_and_across_documents(
    project: Project, analyzer: FakeAnalyzer
) -> None:
    first = project.ingested("shop/doc", [0, 1, 0, 2, 0])
    report = analyse(project, first)
    assert (report.embedded, report.copied) == (5, 2)
    second = project.ingested("shop/other", [2, 1])
    report = analyse(project, second)
    assert (report.embedded, report.copied, report.calls) == (2, 2, 0)
    assert set(analyzer.analysed.values()) == {1}
    for row in project.rows(first) + project.rows(second):
        assert VisionAnalysis(**row.vision_analysis) == analysis_of(row.content_hash)


def test_another_workspace_gets_no_copies(project: Project, analyzer: FakeAnalyzer) -> None:
    analyse(project, project.ingested("shop/doc", [0]))
    assert analyse(project, project.ingested("rival/doc", [0])).copied == 0
    assert analyzer.analysed == {content(0): 2}


def test_analysing_again_calls_nothing_and_changes_nothing(project: Project, analyzer: FakeAnalyzer) -> None:
    key = analysed(project, 3)
    rows = project.rows(key)
    analyzer.calls.clear()
    assert analyse(project, key).embedded == 0
    assert analyzer.calls == []
    assert project.rows(key) == rows


def test_another_version_is_analysed_anew_and_replaces_analysis_and_vector_together(
    project: Project, analyzer: FakeAnalyzer
) -> None:
    key = analysed(project, 3)
    embed(project, key)
    analyzer.model = "better-model"
    analyzer.faults[content(1)] = [AnalysisRejected("it says too little")]
    seen: list[int] = []
    analyzer.before_analyze = lambda contents: seen.append(len(project.vectors(collection=UNDERSTANDING)))
    report = analyse(project, key)
    assert report.embedded == 2
    assert seen == [3]  # the old vectors stay until the new analyses are there
    rows = {row.content_hash: row for row in project.rows(key)}
    for seed in (0, 2):
        row = rows[content(seed)]
        assert VisionAnalysis(**row.vision_analysis) == analysis_of(content(seed), "better-model")
        assert row.vision_model == "better-model"
        assert not row.has_understanding_embedding
    # the image whose new analysis failed keeps what it has
    assert rows[content(1)].vision_model == "fake-model"
    assert project.vectors(collection=UNDERSTANDING).keys() == {rows[content(1)].id}
    check_flags_equal_vectors(project)


def test_a_new_analysis_and_the_old_vector_change_in_one_transaction(
    project: Project, analyzer: FakeAnalyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = analysed(project, 3)
    embed(project, key)
    analyzer.model = "better-model"

    def crash(connection: Connection, *arguments: Any) -> int:
        write_analyses(connection, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("embedding_assets.pipeline.vision.write_analyses", crash)
    with pytest.raises(KeyboardInterrupt):
        analyse(project, key)
    assert {row.vision_model for row in project.rows(key)} == {"fake-model"}
    assert len(project.vectors(collection=UNDERSTANDING)) == 3
    check_flags_equal_vectors(project)


def test_an_analysis_that_is_rejected_is_recorded_and_not_tried_again(
    project: Project, analyzer: FakeAnalyzer
) -> None:
    key = project.ingested("shop/doc", range(3))
    analyzer.faults[content(1)] = [AnalysisRejected("it says too little")] * 9
    report = analyse(project, key)
    assert (report.embedded, len(report.failed)) == (2, 1)
    (failure,) = project.failures(key)
    assert (failure.stage, failure.error_class, failure.attempts) == ("vision", "permanent", 1)
    assert failure.message == "it says too little"
    assert project.clock.sleeps == []
    analyzer.calls.clear()
    analyse(project, key)
    assert analyzer.calls == []
    assert counts(coverage(project, key, "vision")) == (2, 0, 1, 0)


def test_a_passing_error_is_tried_again_after_2_4_8_seconds(project: Project, analyzer: FakeAnalyzer) -> None:
    key = project.ingested("shop/doc", range(3))
    analyzer.faults[content(1)] = [TransientError("busy")] * 4
    analyzer.faults[content(2)] = [TransientError("busy")] * 3
    report = analyse(project, key)
    assert report.embedded == 2
    assert project.clock.sleeps == [2, 4, 8]
    assert [len(call) for call in analyzer.calls] == [3, 2, 2, 2]
    (failure,) = project.failures(key)
    assert (failure.error_class, failure.attempts) == ("transient", 4)
    assert failure.message == "busy after 3 retries"
    assert analyse(project, key).embedded == 1
    assert project.failures(key) == []


# -- understanding vectors -------------------------------------------------------------------------------------


def test_vectors_of_the_analyses_are_stored_with_their_flags(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = analysed(project, 5)
    report = embed(project, key)
    assert (report.embedded, report.calls, len(voyage.requests)) == (5, 1, 1)
    assert voyage.requests[0].body["input_type"] == "document"
    assert report.tokens == voyage.requests[0].tokens
    vectors = project.vectors(key, UNDERSTANDING)
    for row in project.rows(key):
        expected = vector_of(analysis_to_text(analysis_of(row.content_hash)), DIMENSION)
        np.testing.assert_allclose(vectors[row.id], expected, atol=1e-6)
    check_flags_equal_vectors(project)
    assert embed(project, key).calls == 0


def test_vectors_and_flags_are_one_transaction(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = analysed(project, 3)
    embedder = project.understanding_embedder()
    real = embedder.write

    def crash(*arguments: Any) -> int:
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(embedder, "write", crash)
    with pytest.raises(KeyboardInterrupt):
        embedder.run("shop", embedder.pending(key))
    assert project.vectors(collection=UNDERSTANDING) == {}
    check_flags_equal_vectors(project)


def test_requests_hold_many_texts_under_both_limits(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = analysed(project, 45)
    embed(project, key, batch_size=20)
    assert [len(request) for request in voyage.texts] == [20, 20, 5]


def test_equal_images_of_equal_analyses_are_asked_for_once(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = project.ingested("shop/doc", [0, 1, 0])
    analyse(project, key)
    assert embed(project, key).embedded == 3
    assert [len(request) for request in voyage.texts] == [2]


def test_a_vector_is_not_copied_from_an_image_of_the_same_bytes_with_another_analysis(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    embed(project, analysed(project, 1, "shop/old"))
    analyzer.model = "better-model"
    key = analysed(project, 1, "shop/new")
    report = embed(project, key)
    assert (report.embedded, report.copied) == (1, 0)
    (vector,) = project.vectors(key, UNDERSTANDING).values()
    expected = vector_of(analysis_to_text(analysis_of(content(0), "better-model")), DIMENSION)
    np.testing.assert_allclose(vector, expected, atol=1e-6)


@pytest.mark.parametrize(("told", "waits"), [(7, [7, 7, 7, 7, 7]), (None, [2, 4, 8, 16, 32])])
def test_throttling_uses_no_attempts_and_keeps_the_batch_whole(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub, told: float | None, waits: list[float]
) -> None:
    key = analysed(project, 8)
    voyage.script = [refuse(429, retry_after=told)] * 5
    report = embed(project, key, max_retries=0)
    assert (report.embedded, report.retries, report.failed) == (8, 0, [])
    assert project.clock.sleeps == waits
    assert [len(request) for request in voyage.texts] == [8] * 6
    assert project.failures(key) == []


def test_a_poison_text_costs_one_failure(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = analysed(project, 16)
    voyage.poison = f"number {content(5)[:12]} "
    report = embed(project, key)
    assert (report.embedded, len(report.failed)) == (15, 1)
    (failure,) = project.failures(key)
    assert (failure.index, failure.stage, failure.error_class) == (5, "understanding", "permanent")
    assert project.clock.sleeps == []
    assert len(voyage.requests) <= 2 * 4 + 1
    assert counts(coverage(project, key)) == (15, 0, 1, 0)
    check_flags_equal_vectors(project)


def test_an_image_without_an_analysis_is_missing_and_one_whose_analysis_failed_is_rejected(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = project.ingested("shop/doc", range(4))
    assert counts(coverage(project, key)) == (0, 0, 0, 4)
    analyzer.faults[content(1)] = [AnalysisRejected("it says too little")]
    analyzer.faults[content(2)] = [TransientError("busy")] * 4
    analyse(project, key)
    assert embed(project, key).embedded == 2
    found = coverage(project, key)
    assert counts(found) == (2, 0, 1, 1)
    assert found.ratio == pytest.approx(0.5)
    assert [len(request) for request in voyage.texts] == [2]


def test_an_analysis_without_text_worth_embedding_is_skipped_with_the_reason(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    analyzer.answers[content(0)] = VisionAnalysis(material_type="oak")
    analyzer.answers[content(1)] = VisionAnalysis()
    key = analysed(project, 3)
    report = embed(project, key)
    assert (report.embedded, report.skipped, report.failed) == (1, 2, [])
    reasons = [row.stage_skips.get("understanding") for row in project.rows(key)]
    assert reasons == ["no text worth embedding", "no text", None]
    assert project.failures(key) == []
    assert counts(coverage(project, key)) == (1, 2, 0, 0)
    assert coverage(project, key).ratio == 1
    # a new analysis gives it another chance
    analyzer.answers.clear()
    analyzer.model = "better-model"
    analyse(project, key)
    assert embed(project, key).embedded == 3
    assert counts(coverage(project, key)) == (3, 0, 0, 0)


def test_a_refused_text_is_due_again_once_its_image_is_analysed_anew(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = analysed(project, 3)
    voyage.poison = "fake-model sees"
    assert embed(project, key).embedded == 0
    assert counts(coverage(project, key)) == (0, 0, 3, 0)
    analyzer.model = "better-model"
    analyse(project, key)
    assert counts(coverage(project, key)) == (0, 0, 0, 3)
    assert embed(project, key).embedded == 3
    assert project.failures(key) == []


def test_a_stored_analysis_that_cannot_be_read_fails_only_its_image(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = analysed(project, 4)
    with project.database.transaction() as connection:
        connection.execute(
            text(
                """UPDATE document_images SET vision_analysis = '{"colours": ["red"]}' WHERE image_index < 2"""
            )
        )
    report = embed(project, key)
    assert (report.embedded, len(report.failed)) == (2, 2)
    failures = project.failures(key)
    assert {failure.error_class for failure in failures} == {"permanent"}
    assert all("colours" in failure.message for failure in failures)


def test_a_bad_key_stops_at_once_and_blames_no_image(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = analysed(project, 45)
    voyage.key = "another-key"
    with pytest.raises(FatalError) as raised:
        embed(project, key, batch_size=20)
    assert "VOYAGE_API_KEY" in str(raised.value)
    assert "stub-key" not in str(raised.value)
    assert len(voyage.requests) == 1
    assert project.failures(key) == []
    assert project.clock.sleeps == []
    assert counts(coverage(project, key)) == (0, 0, 0, 45)


def test_another_provider_is_refused_with_what_to_do(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = analysed(project, 3)
    embed(project, key)
    project.text_provider = WordLlamaEmbedder
    vectors = project.vectors(collection=UNDERSTANDING)
    with pytest.raises(SpaceMismatch) as raised:
        embed(project, key)
    assert "EMBEDDING_ASSETS_TEXT_PROVIDER" in str(raised.value.hint)
    assert "256-D" in raised.value.message
    assert project.vectors(collection=UNDERSTANDING).keys() == vectors.keys()


def test_the_local_provider_works_without_key_or_network(project: Project, analyzer: FakeAnalyzer) -> None:
    key = analysed(project, 3)
    assert embed(project, key).embedded == 3
    check_flags_equal_vectors(project)


# -- vectors of caption and nearby text ------------------------------------------------------------------------


def test_caption_and_nearby_text_are_embedded_and_images_without_are_skipped(
    project: Project, voyage: VoyageStub
) -> None:
    key = project.ingested("shop/doc", range(5))
    ids = project.ids(key)
    give_texts(
        project,
        {
            ids[0]: ("Oak parquet", "laid in a herringbone"),
            ids[1]: ("Porcelain tile", "Porcelain tile, R10, 60x120 cm"),
            ids[2]: (None, "glazed wall tile\nfor kitchens"),
            ids[3]: ("oak", None),
        },
    )
    embedder = project.nearby_text_embedder()
    report = embedder.run("shop", embedder.pending(key))
    assert (report.embedded, report.skipped) == (3, 2)
    assert voyage.texts == [
        [
            "Oak parquet laid in a herringbone",
            "Porcelain tile, R10, 60x120 cm",
            "glazed wall tile for kitchens",
        ]
    ]
    reasons = [row.stage_skips.get("text") for row in project.rows(key)]
    assert reasons == [None, None, None, "no text worth embedding", "no text"]
    assert counts(coverage(project, key, "text")) == (3, 2, 0, 0)
    check_flags_equal_vectors(project, TEXT)
    assert embedder.pending(key) == []


def test_the_vecs_client_opens_both_collections(
    project: Project, analyzer: FakeAnalyzer, voyage: VoyageStub
) -> None:
    key = analysed(project, 3)
    give_texts(project, dict.fromkeys(project.ids(key), ("Porcelain tile", None)))
    embed(project, key)
    nearby = project.nearby_text_embedder()
    nearby.run("shop", nearby.pending(key))
    client = vecs.create_client(project.database.url)
    try:
        for name in (UNDERSTANDING, TEXT):
            collection = client.get_or_create_collection(name, dimension=DIMENSION)
            assert {record[0] for record in collection.fetch([str(i) for i in project.ids(key)])} == {
                str(i) for i in project.ids(key)
            }
    finally:
        client.disconnect()
