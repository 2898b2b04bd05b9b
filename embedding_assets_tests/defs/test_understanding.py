"""Assets vision_analysis, understanding_embeddings and text_embeddings: a provider that is down holds up no other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedding_assets.encoders.text import TextEmbedder
from embedding_assets.encoders.voyage import VoyageEmbedder
from embedding_assets.errors import TransientError
from embedding_assets.store.spaces import UNDERSTANDING
from embedding_assets_tests.defs.dagster_project import DagsterProject
from embedding_assets_tests.pipeline.fake_analyzer import FakeAnalyzer
from embedding_assets_tests.pipeline.project import Project, png
from embedding_assets_tests.providers.clocks import FakeClock, no_quota
from embedding_assets_tests.providers.stubs import VoyageStub, refuse

IMAGES = 25


@pytest.fixture
def voyage(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[VoyageStub]:
    """The stub, as the project's text provider."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    clock = project.clock = FakeClock()  # type: ignore[assignment]
    with VoyageStub() as stub:

        def provider(template: str) -> TextEmbedder:
            return VoyageEmbedder(
                "stub-key", template=template, base_url=stub.url, dimension=256, budget=no_quota(clock)
            )

        project.text_provider = provider
        yield stub


def test_a_document_goes_the_whole_way(dagster: DagsterProject, voyage: VoyageStub) -> None:
    project = dagster.project
    key = project.land_images("shop/doc", range(IMAGES))
    (outcome,) = dagster.run("process_document", [key])
    assert outcome.success, outcome.reason
    assert dagster.metadata("vision_analysis", key)["embedded"] == IMAGES
    metadata = dagster.metadata("understanding_embeddings", key)
    assert (metadata["embedded"], metadata["coverage"]) == (IMAGES, 1)
    assert metadata["tokens"] == sum(request.tokens for request in voyage.requests) > 0
    assert "Voyage AI" in metadata["model"]
    assert len(voyage.requests) == 1
    assert len(project.vectors(key, UNDERSTANDING)) == IMAGES
    # the folder's images have no text: skipped, not missing
    assert dagster.metadata("text_embeddings", key)["skipped"] == IMAGES


def test_a_text_provider_that_is_down_for_good_holds_up_only_its_own_asset(
    dagster: DagsterProject, voyage: VoyageStub
) -> None:
    project = dagster.project
    key = project.land_images("shop/doc", range(IMAGES))
    voyage.always = refuse(503, "overloaded")
    (outcome,) = dagster.run("process_document", [key])
    assert not outcome.success
    assert dagster.materialized("slig_embeddings") == {str(key)}
    assert dagster.materialized("vision_analysis") == {str(key)}
    assert dagster.materialized("understanding_embeddings") == set()
    assert f"0 of {IMAGES} images embedded" in outcome.reason
    assert f"{IMAGES} missing" in outcome.reason
    assert project.clock.sleeps == [2, 4, 8]
    assert dagster.waits(outcome.run_id) == []
    assert len(voyage.requests) <= 4 + 2 * 6
    assert {failure.stage for failure in project.failures(key)} == {"understanding"}
    assert project.vectors(collection=UNDERSTANDING) == {}

    voyage.always = None
    voyage.requests.clear()
    calls = len(project.encoder.calls)
    (outcome,) = dagster.run("understand_document", [key])
    assert outcome.success, outcome.reason
    assert dagster.materialized("understanding_embeddings") == {str(key)}
    assert len(voyage.requests) == 1
    assert len(project.encoder.calls) == calls
    assert project.failures(key) == []
    assert len(project.vectors(key, UNDERSTANDING)) == IMAGES


def test_a_vision_provider_that_is_down_for_good_holds_up_what_needs_its_analyses(
    dagster: DagsterProject, voyage: VoyageStub
) -> None:
    project = dagster.project
    analyzer = project.analyzer = FakeAnalyzer()
    analyzer.down = TransientError("the endpoint answers 503")
    key = project.land_images("shop/doc", range(IMAGES))
    (outcome,) = dagster.run("process_document", [key])
    assert not outcome.success
    assert dagster.materialized("slig_embeddings") == dagster.materialized("text_embeddings") == {str(key)}
    assert (
        dagster.materialized("vision_analysis") == dagster.materialized("understanding_embeddings") == set()
    )
    assert voyage.requests == []

    analyzer.down = None
    (outcome,) = dagster.run("understand_document", [key])
    assert outcome.success, outcome.reason
    assert dagster.materialized("understanding_embeddings") == {str(key)}
    assert project.failures(key) == []


def test_a_bad_key_fails_the_run_with_one_message_and_blames_no_image(
    dagster: DagsterProject, voyage: VoyageStub
) -> None:
    project = dagster.project
    key = project.land_images("shop/doc", range(IMAGES))
    voyage.key = "another-key"
    (outcome,) = dagster.run("process_document", [key])
    assert not outcome.success
    assert outcome.reason.count("Voyage AI refuses the API key") == 1
    assert "stub-key" not in outcome.reason
    assert len(voyage.requests) == 1
    assert project.failures(key) == []
    assert dagster.materialized("slig_embeddings") == {str(key)}


def test_a_broken_file_without_text_is_no_gap_in_the_text_vectors(
    dagster: DagsterProject, voyage: VoyageStub
) -> None:
    key = dagster.project.land("shop/doc", {"a.png": png(1), "b.png": png(2)[:-40]})
    dagster.configure(min_coverage=0.5)
    (outcome,) = dagster.run("process_document", [key])
    assert outcome.success, outcome.reason
    metadata = dagster.metadata("text_embeddings", key)
    assert (metadata["skipped"], metadata["rejected"], metadata["coverage"]) == (2, 0, 1)
    metadata = dagster.metadata("understanding_embeddings", key)
    assert (metadata["embedded"], metadata["rejected"], metadata["coverage"]) == (1, 1, 0.5)
