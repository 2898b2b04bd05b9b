"""The engine on real rows, vectors and indexes: what is found, what is left out and why, and what is never mixed."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from embedding_assets.errors import (
    EmbeddingAssetsError,
    ImageRejected,
    InfrastructureError,
    PermanentError,
    StoreUnavailable,
    TransientError,
)
from embedding_assets.search import engine as engine_module
from embedding_assets.search.arms import ARMS
from embedding_assets.search.profiles import PROFILES
from embedding_assets.search.request import SearchRequest
from embedding_assets.search.result import SearchResult
from embedding_assets.store.calibrations import read_calibrations
from embedding_assets.store.spaces import Collection
from embedding_assets_tests.factories import space
from embedding_assets_tests.search.corpus import LOOKS, TEXTS, Corpus, TextsEmbedder, planted


def arms_of(result: SearchResult) -> dict[str, str]:
    """Arm -> why it was left out."""
    return {report.arm: report.left_out for report in result.arms if report.left_out}


def found(result: SearchResult) -> list[uuid.UUID]:
    return [hit.image_id for hit in result.hits]


def only(arm: str) -> dict[str, float]:
    return {arm: 1.0}


# -- ranking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ARMS)
def test_one_arm_ranks_by_the_cosine_to_the_query_in_its_own_space(corpus: Corpus, arm: str) -> None:
    ids, vectors = corpus.fill("shop/a", 30)
    result = corpus.engine().search(SearchRequest("shop", text="anything", weights=only(arm), top_k=30))
    query = planted("anything", TEXTS if arm in corpus.texts else LOOKS)
    expected = [ids[n] for n in np.argsort(-(vectors[arm] @ query), kind="stable")]
    assert found(result) == expected
    assert result.exact
    assert [hit.score for hit in result.hits] == [hit.scores[arm] for hit in result.hits]


def test_the_fused_score_is_the_weighted_sum_of_the_shown_scores(corpus: Corpus) -> None:
    corpus.fill("shop/a", 30)
    result = corpus.engine().search(SearchRequest("shop", text="anything", profile="balanced", top_k=30))
    weights = {report.arm: report.weight for report in result.arms}
    assert weights == pytest.approx(dict(PROFILES["balanced"]))
    for hit in result.hits:
        total = sum(weights[arm] * score for arm, score in hit.scores.items() if score is not None)
        assert hit.score == pytest.approx(total)
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)


def test_scores_do_not_depend_on_what_else_is_found(corpus: Corpus) -> None:
    corpus.fill("shop/a", 30)
    corpus.fill("shop/b", 30, seed=50)
    engine = corpus.engine()
    engine.search(SearchRequest("shop", text="anything", profile="balanced"))  # calibrates
    whole = engine.search(SearchRequest("shop", text="anything", profile="balanced", top_k=60))
    part = engine.search(
        SearchRequest("shop", text="anything", profile="balanced", document_id="a", top_k=60)
    )
    scores = {hit.image_id: hit.score for hit in whole.hits}
    assert len(part.hits) == 30
    for hit in part.hits:
        assert hit.score == pytest.approx(scores[hit.image_id])


def test_an_image_query_finds_the_image_and_text_arms_say_that_they_have_nothing_to_go_by(
    corpus: Corpus,
) -> None:
    ids, vectors = corpus.fill("shop/a", 20)
    corpus.looks.answers[b"picture"] = vectors["visual"][7]
    result = corpus.engine().search(SearchRequest("shop", image=b"picture"))
    assert found(result)[0] == ids[7]
    assert result.profile == "balanced"
    assert arms_of(result) == dict.fromkeys(("text", "understanding"), "an uploaded image has no text")


def test_more_like_this_uses_all_vectors_of_the_image_and_leaves_it_out(corpus: Corpus) -> None:
    ids, _ = corpus.fill("shop/a", 20)
    result = corpus.engine().search(SearchRequest("shop", image_id=ids[3], top_k=50))
    assert sorted(found(result)) == sorted(set(ids) - {ids[3]})
    assert arms_of(result) == {}


def test_text_and_image_together_count_half_each(corpus: Corpus) -> None:
    _, vectors = corpus.fill("shop/a", 25)
    corpus.looks.answers[b"picture"] = vectors["visual"][7]
    engine = corpus.engine()

    def scores(**query: Any) -> dict[uuid.UUID, float]:
        result = engine.search(SearchRequest("shop", weights=only("visual"), top_k=25, **query))
        return {hit.image_id: hit.score for hit in result.hits}

    by_text, by_image = scores(text="anything"), scores(image=b"picture")
    for image_id, score in scores(text="anything", image=b"picture").items():
        assert score == pytest.approx((by_text[image_id] + by_image[image_id]) / 2, abs=1e-5)


def test_reciprocal_rank_fusion_is_an_option(corpus: Corpus) -> None:
    corpus.fill("shop/a", 30)
    result = corpus.engine().search(SearchRequest("shop", text="anything", profile="balanced", fusion="rrf"))
    assert result.fusion == "rrf"
    assert len(result.hits) == 10
    assert all(0 < hit.score <= 1 / 61 for hit in result.hits)


def test_hits_below_the_minimum_are_left_out(corpus: Corpus) -> None:
    corpus.fill("shop/a", 30)
    engine = corpus.engine()
    every = engine.search(SearchRequest("shop", text="anything", top_k=30))
    limit = every.hits[4].score
    assert (
        found(engine.search(SearchRequest("shop", text="anything", top_k=30, min_score=limit)))
        == found(every)[:5]
    )


def test_near_duplicates_are_folded_when_asked(corpus: Corpus) -> None:
    first, _ = corpus.fill("shop/a", 12, seed=1)
    second, _ = corpus.fill("shop/b", 12, seed=1)
    engine = corpus.engine()
    request = SearchRequest("shop", text="anything", weights=only("visual"), top_k=24)
    assert len(engine.search(request).hits) == 24
    folded = engine.search(
        SearchRequest("shop", text="anything", weights=only("visual"), top_k=24, diversity=True)
    )
    assert len(folded.hits) == 12
    pairs = {frozenset((a, b)) for a, b in zip(first, second, strict=True)}
    assert {frozenset((hit.image_id, *hit.duplicates)) for hit in folded.hits} == pairs


# -- arms that are left out --------------------------------------------------------------------------------------


def test_arms_without_vectors_are_left_out_and_the_other_weights_grow(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20, arms=("visual", "color"))
    result = corpus.engine().search(SearchRequest("shop", text="anything", profile="balanced"))
    assert set(arms_of(result)) == set(ARMS) - {"visual", "color"}
    assert set(arms_of(result).values()) == {"there are no vectors of this kind yet"}
    weights = {report.arm: report.weight for report in result.arms if report.weight}
    assert weights == pytest.approx({"visual": 0.15 / 0.275, "color": 0.125 / 0.275})


def test_an_arm_that_another_workspace_has_is_no_arm_of_this_one(corpus: Corpus) -> None:
    corpus.fill("rival/a", 20)
    corpus.fill("shop/a", 20, arms=("visual",))
    result = corpus.engine().search(SearchRequest("shop", text="anything", profile="balanced"))
    assert set(arms_of(result).values()) == {"no image in scope has a vector of this kind"}
    assert {report.arm for report in result.arms if report.weight} == {"visual"}


def test_an_image_without_a_vector_in_an_arm_counts_there_like_an_average_one(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20)
    bare, _ = corpus.fill("shop/b", 1, seed=9, arms=("visual",))
    result = corpus.engine().search(SearchRequest("shop", text="anything", profile="balanced", top_k=21))
    (hit,) = [hit for hit in result.hits if hit.image_id == bare[0]]
    assert hit.scores["understanding"] is None
    assert hit.scores["visual"] is not None
    assert hit.score == pytest.approx(0.15 * hit.scores["visual"])


def test_an_image_that_has_nothing_to_be_found_by_is_no_hit(corpus: Corpus) -> None:
    ids, _ = corpus.fill("shop/a", 20)
    corpus.fill("shop/waiting", 5, arms=())
    bare, _ = corpus.fill("shop/b", 1, seed=9, arms=("visual",))
    engine = corpus.engine()
    result = engine.search(SearchRequest("shop", text="anything", profile="balanced", top_k=50))
    assert set(found(result)) == {*ids, *bare}
    result = engine.search(SearchRequest("shop", text="anything", weights=only("understanding"), top_k=50))
    assert set(found(result)) == set(ids)


def test_vectors_of_another_model_are_never_compared(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20)
    corpus.looks.space = space(LOOKS, model="another")
    result = corpus.engine().search(SearchRequest("shop", text="anything", profile="balanced"))
    left_out = arms_of(result)
    assert set(left_out) == {"visual", "color", "texture", "style", "material"}
    assert "looks" in left_out["visual"]
    assert "another" in left_out["visual"]
    assert corpus.looks.asked == []


def test_a_provider_that_is_down_costs_its_arms_only(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20)
    for embedder in corpus.texts.values():
        embedder.failure = TransientError("connection reset by the provider")
    result = corpus.engine().search(SearchRequest("shop", text="anything", profile="balanced"))
    assert arms_of(result) == dict.fromkeys(("text", "understanding"), "connection reset by the provider")
    assert sum(report.weight for report in result.arms) == pytest.approx(1)
    assert len(result.hits) == 10


def test_a_collection_that_somebody_dropped_costs_its_arm_only(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20)
    with corpus.database.transaction() as connection:
        connection.execute(text("DROP TABLE vecs.image_style_embeddings"))
    result = corpus.engine().search(SearchRequest("shop", text="anything", profile="balanced"))
    assert set(arms_of(result)) == {"style"}


def test_where_no_arm_is_left_the_error_says_what_each_lacks(corpus: Corpus) -> None:
    with pytest.raises(PermanentError, match="visual: there are no vectors of this kind yet") as caught:
        corpus.engine().search(SearchRequest("shop", text="blue"))
    assert "doctor" in (caught.value.hint or "")


def test_what_a_text_says_nothing_of_gives_its_weight_to_the_visual_arm(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20)
    result = corpus.engine().search(SearchRequest("shop", text="blue"))
    assert result.profile == "color_finish"
    assert set(arms_of(result)) == {"texture", "style", "material"}
    weights = {report.arm: report.weight for report in result.arms if report.weight}
    assert weights == pytest.approx({"text": 0.1, "visual": 0.45, "understanding": 0.15, "color": 0.3})


def test_a_text_of_specifications_only_is_not_asked_of_the_looks(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20)
    engine = corpus.engine()
    corpus.looks.asked.clear()
    result = engine.search(SearchRequest("shop", text="60x120 R10"))
    assert {report.arm for report in result.arms if report.weight} == {"text", "understanding"}
    assert corpus.looks.asked == []


def test_a_profile_that_was_asked_for_keeps_all_its_arms(corpus: Corpus) -> None:
    corpus.fill("shop/a", 20)
    result = corpus.engine().search(SearchRequest("shop", text="blue", profile="texture_pattern"))
    assert arms_of(result) == {}
    assert result.profile_reason == "asked for"


# -- codes ---------------------------------------------------------------------------------------------------


def test_codes_find_what_vectors_miss_however_they_are_spelled(corpus: Corpus) -> None:
    ids, _ = corpus.fill("shop/a", 40, arms=("visual", "text"))
    with corpus.database.transaction() as connection:
        for number, caption in (
            (11, "Oak, 60 x 120 cm, R10"),
            (23, "60×120cm"),
            (31, "R10"),
            (35, "60x1200 R100"),
        ):
            connection.execute(
                text("UPDATE document_images SET caption = :caption WHERE id = :id"),
                {"caption": caption, "id": ids[number]},
            )
    result = corpus.engine().search(SearchRequest("shop", text="60x120cm R10", top_k=40))
    assert result.codes == ("60x120", "r10")
    assert found(result)[0] == ids[11]
    assert set(found(result)[1:3]) == {ids[23], ids[31]}
    assert result.hits[0].matched_codes == ("60x120", "r10")


def test_codes_alone_make_a_text_arm(corpus: Corpus) -> None:
    ids, _ = corpus.fill("shop/a", 10, arms=("visual",))
    with corpus.database.transaction() as connection:
        connection.execute(
            text("UPDATE document_images SET caption = 'SKU POR-00123' WHERE id = :id"), {"id": ids[6]}
        )
    result = corpus.engine().search(SearchRequest("shop", text="POR-00123"))
    assert found(result)[0] == ids[6]
    (report,) = [report for report in result.arms if report.arm == "text"]
    assert (report.how, report.left_out) == ("codes", "")


# -- scope ---------------------------------------------------------------------------------------------------


def test_document_pages_and_filters_narrow_the_search(corpus: Corpus) -> None:
    ids, _ = corpus.fill("shop/a", 24, quality_score=0.25, extra={"brand": "Nordhavn", "stock": 3})
    other, _ = corpus.fill(
        "shop/b", 12, seed=4, quality_score=0.75, extra={"brand": "Lumen", "stock": "many"}
    )
    engine = corpus.engine()

    def search(**narrow: Any) -> set[uuid.UUID]:
        return set(found(engine.search(SearchRequest("shop", text="anything", top_k=200, **narrow))))

    assert search(document_id="a") == set(ids)
    assert search(document_id="a", first_page=2, last_page=3) == set(ids[4:12])
    assert search(first_page=6) == set(ids[20:])
    assert search(filters={"quality_score": {"$gte": 0.5}}) == set(other)
    assert search(filters={"brand": "Lumen"}) == set(other)
    assert search(filters={"brand": {"$in": ["Lumen", "Nordhavn"]}, "page_number": {"$lt": 2}}) == {
        *ids[:4],
        *other[:4],
    }
    assert search(filters={"stock": {"$gt": 2}}) == set(ids)
    assert search(filters={"brand": {"$ne": "Lumen"}}) == set(ids)
    assert search(filters={"no_such_key": 1}) == set()


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"quality_score": {"$near": 1}}, "no operator '\\$near'"),
        ({"quality_score": "high"}, "expected a number"),
        ({"a; DROP TABLE": 1}, "expected a name"),
        ({"brand": {"$in": []}}, "list of 1 to 100"),
        ({"brand": {"$in": ["a", 1]}}, "one type"),
        ({"brand": None}, "expected a text"),
        ({"stock": float("nan")}, "finite number"),
        ({"flag": {"$gt": True}}, "only be compared"),
        ({f"k{n}": 1 for n in range(17)}, "16 is the limit"),
    ],
)
def test_filters_that_are_not_understood_are_refused(
    corpus: Corpus, filters: dict[str, Any], message: str
) -> None:
    with pytest.raises(PermanentError, match=message):
        corpus.engine().search(SearchRequest("shop", text="blue", filters=filters))


def test_an_image_of_another_workspace_is_as_absent_as_one_that_does_not_exist(corpus: Corpus) -> None:
    theirs, _ = corpus.fill("rival/a", 5)
    corpus.fill("shop/a", 5)
    engine = corpus.engine()
    messages = []
    for image_id in (theirs[0], uuid.uuid4()):
        with pytest.raises(PermanentError) as caught:
            engine.search(SearchRequest("shop", image_id=image_id))
        messages.append(caught.value.message.replace(str(image_id), "?"))
    assert messages[0] == messages[1] == "workspace shop has no embedded image ?"


WORKSPACES = ("shop", "rival", "third")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_workspaces_never_mix(corpus: Corpus, data: st.DataObject) -> None:
    with corpus.database.transaction() as connection:
        connection.execute(text("DELETE FROM documents"))
        for (table,) in connection.execute(text("SELECT collection FROM embedding_spaces")).all():
            connection.execute(text(f'DELETE FROM vecs."{table}"'))
    for arm in ARMS:
        corpus.collection(arm)
    own: dict[str, set[uuid.UUID]] = {}
    for name in WORKSPACES:
        count = data.draw(st.integers(1, 8), label=f"images of {name}")
        # The same vectors, texts and pages everywhere: nothing but the workspace tells them apart.
        arms = data.draw(st.sets(st.sampled_from(ARMS)), label="arms") | {"visual"}
        ids, _ = corpus.fill(
            f"{name}/doc", count, arms=sorted(arms), caption="Oak R10 60x120", extra={"brand": "Lumen"}
        )
        own[name] = set(ids)
    filters = data.draw(
        st.sampled_from(
            [
                {},
                {"brand": "Lumen"},
                {"page_number": {"$gte": 0}},
                {"workspace_id": "rival"},
                {"document_id": "doc"},
            ]
        )
    )
    query = data.draw(st.sampled_from(["R10 60x120", "blue", "oak' OR workspace_id = 'rival", "rival"]))
    name = data.draw(st.sampled_from(WORKSPACES))
    request = SearchRequest(
        name,
        text=query,
        filters=filters,
        document_id=data.draw(st.sampled_from([None, "doc"])),
        profile=data.draw(st.sampled_from(["auto", "balanced"])),
        fusion=data.draw(st.sampled_from(["convex", "rrf"])),
        diversity=data.draw(st.booleans()),
        top_k=200,
    )
    by_index = data.draw(st.booleans(), label="by index")
    with pytest.MonkeyPatch.context() as patch:
        if by_index:
            patch.setattr(engine_module, "exact_up_to", lambda candidates, vectors: 0)
        result = corpus.engine().search(request)
    shown = {image for hit in result.hits for image in (hit.image_id, *hit.duplicates)}
    assert shown <= own[name]
    assert all(hit.document.workspace_id == name for hit in result.hits)
    if "workspace_id" not in filters and request.profile == "balanced":  # which always asks the visual arm
        assert shown == own[name]


# -- indexes -------------------------------------------------------------------------------------------------


def build_index(corpus: Corpus, arm: str, kind: str) -> None:
    collection = corpus.collection(arm)
    operand = "vec" if kind == "vector" else f"(vec::halfvec({collection.dimension}))"
    with corpus.database.transaction() as connection:
        connection.execute(
            text(f"CREATE INDEX ON {collection.qualified} USING hnsw ({operand} {kind}_cosine_ops)")
        )


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


# -- calibration and cache -----------------------------------------------------------------------------------


def stored(corpus: Corpus, *arms: str) -> dict[tuple[str, str], Any]:
    collections: list[Collection] = [corpus.collection(arm) for arm in arms]
    with corpus.database.transaction() as connection:
        return dict(read_calibrations(connection, collections))


def test_the_first_search_calibrates_says_so_and_the_next_finds_it_stored(corpus: Corpus) -> None:
    corpus.fill("shop/a", 40)
    engine = corpus.engine()
    request = SearchRequest("shop", text="anything", profile="balanced")
    first = engine.search(request)
    assert len(first.notes) == 7
    assert "calibrated just now, on 40 vectors" in first.notes[0]
    before = stored(corpus, *ARMS)
    corpus.fill("shop/b", 30, seed=7)
    again = corpus.engine().search(request)
    assert again.notes == ()
    assert stored(corpus, *ARMS) == before
    assert len(corpus.engine().calibrate()) == 14
    assert stored(corpus, "visual")[("image_slig_embeddings", "text")].rows == 70


def test_query_vectors_are_kept_by_space_and_text(corpus: Corpus) -> None:
    corpus.fill("shop/a", 10)
    engine = corpus.engine()
    engine.calibrate()
    for embedder in (corpus.looks, *corpus.texts.values()):
        embedder.asked.clear()
    for _ in range(3):
        engine.search(SearchRequest("shop", text="anything", profile="balanced"))
    assert corpus.looks.asked == ["anything"]
    # Both text arms are of one provider: the query is embedded once for both.
    assert [text for embedder in corpus.texts.values() for text in embedder.asked] == ["anything"]


def test_a_cache_of_one_keeps_the_last(corpus: Corpus) -> None:
    corpus.fill("shop/a", 10, arms=("visual",))
    engine = corpus.engine()
    engine.queries._cache_size = 1
    engine.calibrate()
    corpus.looks.asked.clear()
    for query in ("a", "a", "b", "a"):
        engine.search(SearchRequest("shop", text=query, weights=only("visual")))
    assert corpus.looks.asked == ["a", "b", "a"]


# -- odd requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "🟦🧱",
        "'; DROP TABLE document_images; --",
        "R10 & | ! ( ) :* <-> 'R10' \\",
        "%_[]{}~^$",
        "\0blue\0",
        "\ud800 lone",
        "R10 " * 400,
        "ﬁﬂ x̄ ﷽ ｆｕｌｌｗｉｄｔｈ",
        "60x120" + "x1" * 500,
        "NULL",
        "1' UNION SELECT 1",
        " \t\nblue \r\n ",
    ],
)
def test_odd_texts_get_an_answer(corpus: Corpus, query: str) -> None:
    corpus.fill("shop/a", 15, caption="Oak R10 60x120")
    result = corpus.engine().search(SearchRequest("shop", text=query, top_k=5))
    assert len(result.hits) == 5
    with corpus.database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM document_images")).scalar() == 15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": ""}, "the query is empty"),
        ({"text": " \0\t "}, "the query is empty"),
        ({"text": "x" * 10_000}, "10000 characters; 2000 is the limit"),
        ({"text": None}, "nothing to search for"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 201}, "expected 1 to 200"),
        ({"profile": "colour"}, "no profile 'colour'"),
        ({"fusion": "sum"}, "no fusion 'sum'; expected convex or rrf"),
        ({"weights": {"sound": 1.0}}, "no arm 'sound'"),
        ({"weights": {"visual": -1.0}}, "visual=-1.0"),
        ({"weights": {"visual": float("nan")}}, "visual=nan"),
        ({"weights": {"visual": 0.0}}, "all weights are 0"),
        ({"first_page": 0}, "pages count from 1"),
        ({"first_page": 5, "last_page": 2}, "5 to 2 are no range"),
        ({"workspace_id": "a/b"}, "workspace_id 'a/b' is not valid"),
        ({"document_id": ".."}, "document_id '..' is not valid"),
        ({"image": b"x", "image_id": uuid.UUID(int=1)}, "not both"),
    ],
)
def test_requests_that_make_no_sense_are_refused_before_anything_is_asked(
    corpus: Corpus, changes: dict[str, Any], message: str
) -> None:
    request = SearchRequest(**{"workspace_id": "shop", "text": "blue", **changes})
    with pytest.raises(PermanentError, match=message):
        corpus.engine().search(request)
    assert corpus.looks.asked == []


def test_a_search_reads_only_and_ends_in_time(corpus: Corpus) -> None:
    corpus.fill("shop/a", 10)
    corpus.engine().calibrate()
    with corpus.database.transaction() as connection:
        connection.execute(text("LOCK TABLE document_images IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(StoreUnavailable, match="statement timeout"):
            corpus.engine(timeout_s=0.2).search(SearchRequest("shop", text="blue"))


def test_an_image_that_is_removed_during_a_search_is_described_all_the_same(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, _ = corpus.fill("shop/doc", 5)
    described = engine_module.describe

    def after_removal(*arguments: Any) -> Any:
        with corpus.database.transaction() as connection:
            connection.execute(text("DELETE FROM document_images"))
        return described(*arguments)

    monkeypatch.setattr(engine_module, "describe", after_removal)
    assert set(found(corpus.engine().search(SearchRequest("shop", text="grey")))) == set(ids)


def test_fewer_candidates_than_a_hundred_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="at least 100"):
        corpus.engine(candidates=50)


def test_an_embedder_of_each_text_arm_is_asked_in_its_own_space(corpus: Corpus) -> None:
    corpus.fill("shop/a", 10)
    corpus.texts["understanding"] = TextsEmbedder("analysis of another version")
    result = corpus.engine().search(SearchRequest("shop", text="anything", profile="balanced"))
    assert set(arms_of(result)) == {"understanding"}
    assert isinstance(result, SearchResult)
    assert issubclass(PermanentError, EmbeddingAssetsError)


# -- between two states ---------------------------------------------------------------------------------------


def by_index_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "exact_up_to", lambda candidates, vectors: 0)


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
