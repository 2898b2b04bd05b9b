"""The engine on real rows and vectors: what is found, what is left out and why, codes, calibration."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from embedding_assets.errors import (
    PermanentError,
    TransientError,
)
from embedding_assets.search.arms import ARMS
from embedding_assets.search.profiles import PROFILES
from embedding_assets.search.request import SearchRequest
from embedding_assets.store.calibrations import read_calibrations
from embedding_assets.store.spaces import Collection
from embedding_assets_tests.factories import space
from embedding_assets_tests.search.corpus import (
    LOOKS,
    TEXTS,
    Corpus,
    arms_of,
    found,
    only,
    planted,
)

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
