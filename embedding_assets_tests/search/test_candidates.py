"""Candidates over several connections: the same as over one, and errors of any part are the search's."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import text

from embedding_assets.errors import SchemaError
from embedding_assets.search.arms import ARMS
from embedding_assets.search.candidates import CandidateFinder, split
from embedding_assets.store.search import ArmQuery, Scope
from embedding_assets_tests.search.corpus import Corpus


def queries_of(corpus: Corpus) -> list[ArmQuery]:
    found = []
    for arm in ARMS:
        collection = corpus.collection(arm)
        found.append(ArmQuery(arm, collection, np.ones(collection.dimension, np.float32)))
    return found


@pytest.mark.parametrize("connections", [2, 3, 7])
def test_several_connections_find_what_one_finds(corpus: Corpus, connections: int) -> None:
    corpus.fill("shop/a", 40)
    queries = queries_of(corpus)
    one = CandidateFinder(corpus.database, 1, 10).find(Scope("shop"), queries, 15)
    assert {arm: len(hits) for arm, hits in one.items()} == dict.fromkeys(ARMS, 15)
    assert CandidateFinder(corpus.database, connections, 10).find(Scope("shop"), queries, 15) == one


def test_every_arm_is_in_one_part_and_parts_have_about_the_same_work(corpus: Corpus) -> None:
    parts = split(queries_of(corpus), 2)
    assert sorted(query.arm for part in parts for query in part) == sorted(ARMS)
    work = [sum(query.collection.dimension for query in part) for part in parts]
    assert max(work) - min(work) <= max(query.collection.dimension for part in parts for query in part)
    assert split([], 2) == []


def test_a_part_that_fails_fails_the_whole(corpus: Corpus) -> None:
    corpus.fill("shop/a", 10)
    queries = queries_of(corpus)
    with corpus.database.transaction() as connection:
        connection.execute(text("DROP TABLE vecs.image_material_embeddings"))
    with pytest.raises(SchemaError):
        CandidateFinder(corpus.database, 3, 10).find(Scope("shop"), queries, 5)
