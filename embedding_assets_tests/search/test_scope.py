"""What a search may find: workspaces never mix, and documents, pages and filters narrow it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from embedding_assets.errors import (
    PermanentError,
)
from embedding_assets.search import engine as engine_module
from embedding_assets.search.arms import ARMS
from embedding_assets.search.request import SearchRequest
from embedding_assets_tests.search.corpus import (
    Corpus,
    found,
)


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
