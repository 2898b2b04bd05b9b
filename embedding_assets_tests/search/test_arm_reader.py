"""Arms asked over several connections: the same answers as over one, and errors of any part are the search's."""

from __future__ import annotations

import threading
import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from embedding_assets.errors import SchemaError
from embedding_assets.search import arm_reader
from embedding_assets.search.arm_reader import ArmReader, split
from embedding_assets.search.arms import ARMS
from embedding_assets.store.search import ArmQuery, ScoreTable, Share
from embedding_assets.store.search_scope import Scope
from embedding_assets_tests.search.corpus import Corpus


def queries_of(corpus: Corpus) -> list[ArmQuery]:
    found = []
    for arm in ARMS:
        collection = corpus.collection(arm)
        found.append(ArmQuery(arm, collection, np.ones(collection.dimension, np.float32)))
    return found


def scores_by_id(table: ScoreTable) -> dict[uuid.UUID, tuple[list[float], int]]:
    return {
        i: (row.tolist(), int(codes))
        for i, row, codes in zip(table.ids, table.cosines, table.codes, strict=True)
    }


@pytest.mark.parametrize("connections", [2, 3, 7])
def test_several_connections_find_what_one_finds(corpus: Corpus, connections: int) -> None:
    ids, _ = corpus.fill("shop/a", 40, caption="Oak R10")
    corpus.fill("rival/a", 10)
    queries = queries_of(corpus)
    scope = Scope("shop")
    one, several = (ArmReader(corpus.database, number, 10) for number in (1, connections))
    nearest = one.nearest(scope, queries, 15)
    assert {arm: len(near.hits) for arm, near in nearest.items()} == dict.fromkeys(ARMS, 15)
    assert {arm: near.floor for arm, near in nearest.items()} == {
        arm: near.hits[-1][1] for arm, near in nearest.items()
    }
    assert several.nearest(scope, queries, 15) == nearest

    scores = scores_by_id(one.scores(scope, queries, ["r10"]))
    assert set(scores) == set(ids)
    assert {codes for _, codes in scores.values()} == {1}
    assert scores_by_id(several.scores(scope, queries, ["r10"])) == scores
    some = [*ids[:11], uuid.uuid4()]
    assert scores_by_id(several.scores(scope, queries, ["r10"], some)) == {i: scores[i] for i in ids[:11]}
    shares = [Share(1.0, 0.0, 1.0)] * len(queries)
    above = several.scores_above(scope, queries, shares, ids, [7.0] * 40, -10.0)
    assert {i: row for i, (row, _) in scores_by_id(above).items()} == {
        i: row for i, (row, _) in scores.items()
    }


def test_searches_at_the_same_time_share_the_connections(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.fill("shop/a", 10)
    reader = ArmReader(corpus.database, 3, 10)
    inside, go_on = threading.Event(), threading.Event()
    parts: list[list[tuple[int, int]]] = [[], []]
    exact_scores = arm_reader.exact_scores

    def waiting(connection: Connection, *arguments: object, part: tuple[int, int]) -> ScoreTable:
        first = not go_on.is_set() and threading.current_thread().name == "first"
        if first:
            inside.set()
            assert go_on.wait(30)
        parts[0 if part[1] == 3 else 1].append(part)
        return exact_scores(connection, *arguments, part=part)  # type: ignore[arg-type]

    monkeypatch.setattr(arm_reader, "exact_scores", waiting)
    queries = queries_of(corpus)
    thread = threading.Thread(name="first", target=reader.scores, args=(Scope("shop"), queries))
    thread.start()
    assert inside.wait(30)
    second = reader.scores(Scope("shop"), queries)
    go_on.set()
    thread.join()
    assert len(second.ids) == 10
    assert [sorted(used) for used in parts] == [[(0, 3), (1, 3), (2, 3)], [(0, 1)]]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), least=st.floats(-0.5, 1.5))
def test_no_image_that_can_reach_the_list_is_given_up(corpus: Corpus, seed: int, least: float) -> None:
    """Against all scores: whoever has `least` is there, with the exact cosines, also where vectors are missing."""
    with corpus.database.transaction() as connection:
        lacking = connection.execute(text("SELECT count(*) FROM document_images")).scalar_one() == 0
    if lacking:
        corpus.fill("shop/a", 30)
        corpus.fill("shop/b", 20, seed=5, arms=("visual", "text"))
    generator = np.random.default_rng(seed)
    queries = [
        ArmQuery(
            query.arm,
            query.collection,
            generator.standard_normal(query.collection.dimension).astype(np.float32),
        )
        for query in queries_of(corpus)
    ]
    reader = ArmReader(corpus.database, 2, 10)
    table = reader.scores(Scope("shop"), queries)
    factors, offsets = generator.uniform(0.1, 1, 7), generator.uniform(-0.1, 0.2, 7)
    adds = np.nan_to_num(factors * table.cosines - offsets, nan=0.0)
    # An arm's index gave the upper half; of the others it is only known that they add no more than the best of them.
    highest = np.maximum(np.median(adds, axis=0), 0.0)
    bounds = np.maximum(adds, highest).sum(axis=1)
    shares = [Share(*one) for one in zip(factors.tolist(), offsets.tolist(), highest.tolist(), strict=True)]
    found = scores_by_id(
        reader.scores_above(Scope("shop"), queries, shares, table.ids, bounds.tolist(), least)
    )
    for image_id, row, fused in zip(table.ids, table.cosines, adds.sum(axis=1), strict=True):
        if fused >= least + 1e-9:
            assert image_id in found
        if image_id in found:
            np.testing.assert_allclose(found[image_id][0], row)
    if least > bounds.max():
        assert found == {}


def test_every_arm_is_in_one_part_and_parts_have_about_the_same_work(corpus: Corpus) -> None:
    parts = split(queries_of(corpus), 2)
    assert sorted(query.arm for part in parts for query in part) == sorted(ARMS)
    work = [sum(query.collection.dimension for query in part) for part in parts]
    assert max(work) - min(work) <= max(query.collection.dimension for part in parts for query in part)
    assert split([], 2) == []


def test_a_part_that_fails_fails_the_whole(corpus: Corpus) -> None:
    corpus.fill("shop/a", 10)
    queries = queries_of(corpus)
    reader = ArmReader(corpus.database, 3, 10)
    with corpus.database.transaction() as connection:
        connection.execute(text("DROP TABLE vecs.image_material_embeddings"))
    with pytest.raises(SchemaError):
        reader.nearest(Scope("shop"), queries, 5)
    with pytest.raises(SchemaError):
        reader.scores(Scope("shop"), queries)
    assert reader._asking == 0
    assert corpus.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_a_vector_without_direction_is_near_to_nothing(corpus: Corpus) -> None:
    """A vecs client may store a zero vector; its cosine is NaN, which would spoil every bound."""
    ids, _ = corpus.fill("shop/a", 5)
    with corpus.database.transaction() as connection:
        connection.execute(
            text(
                "UPDATE vecs.image_slig_embeddings SET vec = array_fill(0, ARRAY[24])::vector WHERE id = :id"
            ),
            {"id": str(ids[0])},
        )
    near = ArmReader(corpus.database, 1, 10).nearest(Scope("shop"), queries_of(corpus), 100)["visual"]
    assert {image_id for image_id, _ in near.hits} == set(ids[1:])
    assert near.floor == near.hits[-1][1]
