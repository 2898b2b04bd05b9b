"""The two ways of a search, all images or candidates by index: the same answers, also between two states."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from embedding_assets.errors import (
    ImageRejected,
    InfrastructureError,
    PermanentError,
)
from embedding_assets.search import engine as engine_module
from embedding_assets.search import scoring
from embedding_assets.search.arms import ARMS
from embedding_assets.search.request import SearchRequest
from embedding_assets.store.calibrations import estimate_shares
from embedding_assets.store.search import ArmQuery, ScoreTable
from embedding_assets.store.search_scope import Scope
from embedding_assets_tests.search.corpus import (
    Corpus,
    arms_of,
    build_index,
    found,
    only,
)


def by_index_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "exact_up_to", lambda candidates, vectors: 0)


# -- indexes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"filters": {"page_number": {"$gt": 10}}},
        {"text": "anything R10"},
        {"fusion": "rrf"},
        {"diversity": True},
        {"weights": {"visual": 3.0, "text": 1.0}},
    ],
    ids=str,
)
def test_the_way_by_indexes_gives_what_scoring_everything_gives(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any]
) -> None:
    corpus.fill("shop/a", 180, caption="Oak R10")
    corpus.fill("rival/a", 150)
    for arm in ARMS:
        build_index(corpus, arm, kind)
    engine = corpus.engine(candidates=200)  # all of them, so that nothing but the way differs
    request = SearchRequest(
        **{"workspace_id": "shop", "text": "anything", "profile": "balanced", "top_k": 20, **changes}
    )
    exact = engine.search(request)
    monkeypatch.setattr(engine_module, "exact_up_to", lambda candidates, vectors: 0)
    by_index = engine.search(request)
    assert (exact.exact, by_index.exact) == (True, False)
    assert {report.how for report in by_index.arms if report.weight} == {"index"}
    assert found(by_index) == found(exact)
    for one, other in zip(by_index.hits, exact.hits, strict=True):
        assert one.scores == pytest.approx(other.scores)
        assert one.score == pytest.approx(other.score)


def test_what_is_given_up_early_is_no_hit_and_arms_keep_their_own_scores(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most candidates are scored arm by arm here, in an order that is neither that of the arms nor its own inverse."""
    monkeypatch.setattr(scoring, "FIRST", 10)
    corpus.fill("shop/a", 300)
    weights = {"text": 0.2, "visual": 0.05, "understanding": 0.3, "color": 0.4, "style": 0.05}
    engine = corpus.engine()
    engine.calibrate()
    request = SearchRequest("shop", text="anything", weights=weights, top_k=5)
    exact = engine.search(request)
    asked: list[list[str]] = []
    above = engine._reader.scores_above

    def spied(scope: Scope, queries: Sequence[ArmQuery], *arguments: Any) -> ScoreTable:
        asked.append([query.arm for query in queries])
        return above(scope, queries, *arguments)

    monkeypatch.setattr(engine._reader, "scores_above", spied)
    by_index_always(monkeypatch)
    result = engine.search(request)
    assert (exact.exact, result.exact) == (True, False)
    (order,) = asked
    places = [[report.arm for report in result.arms if report.weight].index(arm) for arm in order]
    assert [places[place] for place in places] != list(range(len(places))), "the order tells nothing"
    for one, other in zip(result.hits, exact.hits, strict=True):
        assert one.image_id == other.image_id
        assert one.scores == pytest.approx(other.scores)


def test_an_arm_whose_index_is_not_there_yet_is_scanned(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill("shop/a", 120)
    build_index(corpus, "visual", "vector")
    engine = corpus.engine()
    request = SearchRequest("shop", text="anything", profile="balanced", top_k=20)
    exact = engine.search(request)
    monkeypatch.setattr(engine_module, "exact_up_to", lambda candidates, vectors: 0)
    result = engine.search(request)
    assert {report.arm: report.how for report in result.arms} == {
        arm: "index" if arm == "visual" else "exact" for arm in ARMS
    }
    assert found(result) == found(exact)


def test_vectors_of_other_clients_are_never_hits(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.fill("shop/a", 20)
    with corpus.database.transaction() as connection:
        for stranger in ("their-own", str(uuid.uuid4())):
            connection.execute(
                text(
                    "INSERT INTO vecs.image_slig_embeddings SELECT :id, vec, metadata "
                    "FROM vecs.image_slig_embeddings LIMIT 1"
                ),
                {"id": stranger},
            )
    request = SearchRequest("shop", text="anything", weights=only("visual"), top_k=50)
    engine = corpus.engine()
    assert len(engine.search(request).hits) == 20
    monkeypatch.setattr(engine_module, "exact_up_to", lambda candidates, vectors: 0)
    assert len(engine.search(request).hits) == 20


@pytest.mark.parametrize(
    ("candidates", "share", "walked"),
    [(100, None, 100), (100, 1.0, 100), (100, 0.75, 147), (100, 0.01, 200), (200, 0.5, 400)],
)
def test_a_walk_keeps_more_in_sight_where_a_workspace_is_a_part_of_the_index(
    candidates: int, share: float | None, walked: int
) -> None:
    assert engine_module.ef_search(candidates, share) == walked


def test_the_planner_knows_what_part_of_all_images_a_workspace_has(corpus: Corpus) -> None:
    corpus.fill("shop/a", 30, arms=("visual",))
    corpus.fill("rival/a", 10, arms=("visual",))
    with corpus.database.transaction() as connection:
        connection.execute(text("ANALYZE document_images"))
        assert estimate_shares(connection) == {"shop": 0.75, "rival": 0.25}


# -- between two states ---------------------------------------------------------------------------------------


def test_an_arm_that_few_images_have_yet_counts_alike_on_both_ways(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill("shop/a", 300, arms=("visual",))
    corpus.fill("shop/b", 110, seed=3, arms=("visual", "text"))
    for arm in ("visual", "text"):
        build_index(corpus, arm, "vector")
    engine = corpus.engine(candidates=410)
    request = SearchRequest("shop", text="anything", weights={"visual": 0.9, "text": 0.1}, top_k=20)
    exact = engine.search(request)
    by_index_always(monkeypatch)
    result = engine.search(request)
    assert not result.exact
    assert arms_of(result) == arms_of(exact)
    assert [(hit.image_id, pytest.approx(hit.score)) for hit in exact.hits] == [
        (hit.image_id, hit.score) for hit in result.hits
    ]


def test_folding_looks_at_as_many_candidates_by_index(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for copy in range(4):
        corpus.fill(f"shop/copy{copy}", 40, seed=1, arms=("visual",))
    build_index(corpus, "visual", "vector")
    engine = corpus.engine()
    request = SearchRequest("shop", text="anything", weights=only("visual"), top_k=40, diversity=True)
    assert len(engine.search(request).hits) == 40
    by_index_always(monkeypatch)
    assert len(engine.search(request).hits) == 40


def test_a_calibration_of_a_few_images_is_measured_again_when_they_are_many(corpus: Corpus) -> None:
    corpus.fill("shop/a", 3, arms=("visual",))
    engine = corpus.engine()
    request = SearchRequest("shop", text="anything", weights=only("visual"))
    engine.search(request)
    corpus.fill("shop/b", 200, seed=5, arms=("visual",))
    result = engine.search(request)
    assert "calibrated just now, on 203 vectors" in result.notes[0]
    before = [hit.score for hit in result.hits]
    corpus.engine().calibrate()
    assert [hit.score for hit in corpus.engine().search(request).hits] == pytest.approx(before)


def test_a_collection_that_is_dropped_between_two_searches_costs_its_arm_only(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20)
    engine = corpus.engine()
    request = SearchRequest("shop", text="anything", profile="balanced")
    assert arms_of(engine.search(request)) == {}
    with corpus.database.transaction() as connection:
        connection.execute(text("DROP TABLE vecs.image_style_embeddings"))
    assert set(arms_of(engine.search(request))) == {"style"}


def test_words_with_digits_that_are_no_specification_are_asked_of_the_looks(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20, arms=("visual",))
    for query in ("3d tiles", "1920s", "5"):
        result = corpus.engine().search(SearchRequest("shop", text=query))
        assert {report.arm for report in result.arms if report.weight} >= {"visual"}, query
        assert len(result.hits) == 10


def test_an_image_model_that_fails_leaves_the_text_arms(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill("shop/a", 20)

    def lost(data: bytes) -> bytes:
        raise InfrastructureError("the device was lost")

    monkeypatch.setattr(corpus.looks, "prepare", lost)
    result = corpus.engine().search(
        SearchRequest("shop", text="anything", image=b"picture", profile="balanced")
    )
    assert set(arms_of(result).values()) == {"the device was lost"}
    assert {report.arm for report in result.arms if report.weight} == {"text", "understanding"}


def test_an_image_that_can_not_be_decoded_is_the_requests_fault(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill("shop/a", 20)

    def broken(data: bytes) -> bytes:
        raise ImageRejected("no image")

    monkeypatch.setattr(corpus.looks, "prepare", broken)
    with pytest.raises(ImageRejected, match="no image"):
        corpus.engine().search(SearchRequest("shop", text="anything", image=b"picture"))


def test_numbers_of_any_size_can_be_filtered_by(corpus: Corpus) -> None:
    ids, _ = corpus.fill("shop/a", 5, extra={"stock": 10**400})
    engine = corpus.engine()
    assert set(
        found(engine.search(SearchRequest("shop", text="blue", filters={"stock": {"$gt": 10**30}})))
    ) == set(ids)
    with pytest.raises(PermanentError, match="finite number"):
        engine.search(SearchRequest("shop", text="blue", filters={"stock": 10**400}))


def test_one_engine_serves_many_threads(corpus: Corpus) -> None:
    corpus.fill("shop/a", 60)
    engine = corpus.engine()
    requests = [SearchRequest("shop", text=f"anything {'x' * n}", profile="balanced") for n in range(8)]
    expected = [found(corpus.engine().search(request)) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert [found(result) for result in pool.map(engine.search, requests)] == expected


@pytest.mark.parametrize("ending", ["in peace", "killed"])
def test_searches_go_on_while_an_index_is_built_and_after_its_build_was_killed(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    corpus.fill("shop/a", 2_500, arms=("visual",))
    by_index_always(monkeypatch)
    engine = corpus.engine()
    request = SearchRequest("shop", text="anything", weights=only("visual"))
    expected = found(engine.search(request))
    collection = corpus.collection("visual")

    def build() -> None:
        with corpus.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(
                text(
                    f"CREATE INDEX CONCURRENTLY ON {collection.qualified} USING hnsw (vec vector_cosine_ops) "
                    "WITH (m = 48, ef_construction = 400)"
                )
            )

    during = 0
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(build)
        while not building.done():
            with corpus.database.transaction() as connection:
                builder = connection.execute(
                    text("SELECT pid FROM pg_stat_progress_create_index WHERE datname = current_database()")
                ).scalar()
            assert found(corpus.engine().search(request)) == expected
            if builder is None:
                continue
            during += 1
            if ending == "killed" and during == 2:
                with corpus.database.transaction() as connection:
                    connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": builder})
    assert during >= 2
    assert (building.exception() is not None) == (ending == "killed")
    result = corpus.engine().search(request)
    assert found(result) == expected
    assert [report.how for report in result.arms if report.weight] == [
        "exact" if ending == "killed" else "index"
    ]
