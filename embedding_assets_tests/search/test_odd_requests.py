"""Texts and requests that nobody meant: an answer or a clear error, and nothing lost."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from sqlalchemy import text

from embedding_assets.errors import (
    EmbeddingAssetsError,
    PermanentError,
    StoreUnavailable,
)
from embedding_assets.search import engine as engine_module
from embedding_assets.search.request import SearchRequest
from embedding_assets.search.result import SearchResult
from embedding_assets_tests.search.corpus import (
    Corpus,
    TextsEmbedder,
    arms_of,
    found,
)


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


def test_an_image_that_is_removed_between_scoring_and_describing_is_no_hit(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill("shop/doc", 5)
    ranking = engine_module.fusion.ranking

    def after_removal(*arguments: Any) -> Any:
        with corpus.database.transaction() as connection:
            connection.execute(text("DELETE FROM document_images WHERE id = :id"), {"id": ranked[0]})
        return ranking(*arguments)

    ranked = found(corpus.engine().search(SearchRequest("shop", text="grey")))
    monkeypatch.setattr(engine_module.fusion, "ranking", after_removal)
    result = corpus.engine().search(SearchRequest("shop", text="grey", top_k=3))
    assert found(result) == ranked[1:4], "the next one takes its place"


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
