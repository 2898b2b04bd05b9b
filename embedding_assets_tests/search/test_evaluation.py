"""Measures of rankings, against values worked out by hand, and what the search engine is asked for them."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from embedding_assets.search.arms import ARMS
from embedding_assets.search.evaluation import (
    MEASURES,
    MRR,
    NDCG,
    RECALL,
    GradedQuery,
    System,
    by_family,
    engine_systems,
    judge,
    lead_over,
)
from embedding_assets.search.request import SearchRequest

IDS = [uuid.UUID(int=number) for number in range(100)]


def query(
    name: str = "q", grades: dict[uuid.UUID, int] | None = None, family: str = "colour", **changes: Any
) -> GradedQuery:
    fields: dict[str, Any] = {"split": "gate", "text": "blue", "image": None, **changes}
    return GradedQuery(name, family, grades=grades or {IDS[0]: 1}, **fields)


def always(*answer: uuid.UUID) -> System:
    return lambda _: list(answer)


def row(judged: pd.DataFrame, name: str = "q", system: str = "s") -> dict[str, float]:
    (found,) = judged[(judged.query_id == name) & (judged.system == system)].to_dict("records")
    return found


def test_ndcg_takes_grades_as_gains_and_discounts_by_log2() -> None:
    judged = judge([query(grades={IDS[0]: 3, IDS[1]: 2, IDS[2]: 1})], {"s": always(IDS[2], IDS[9], IDS[0])})
    got = 1 / math.log2(2) + 3 / math.log2(4)
    best = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert row(judged)[NDCG] == pytest.approx(got / best)


def test_only_ten_ranks_count() -> None:
    late = judge([query(grades={IDS[50]: 1})], {"s": always(*IDS[:10], IDS[50])})
    assert [row(late)[measure] for measure in MEASURES] == [0, 0, 0]
    tenth = judge([query(grades={IDS[50]: 1})], {"s": always(*IDS[:9], IDS[50])})
    assert row(tenth)[MRR] == pytest.approx(0.1)
    assert row(tenth)[RECALL] == 1


def test_recall_can_reach_one_however_many_images_are_relevant() -> None:
    many = dict.fromkeys(IDS[:40], 1)
    assert row(judge([query(grades=many)], {"s": always(*IDS[:10])}))[RECALL] == pytest.approx(1)
    assert row(judge([query(grades=many)], {"s": always(*IDS[35:45])}))[RECALL] == pytest.approx(0.5)
    few = dict.fromkeys(IDS[:4], 1)
    assert row(judge([query(grades=few)], {"s": always(*IDS[3:13])}))[RECALL] == pytest.approx(0.25)


def test_recall_and_mrr_count_images_from_the_grade_that_is_asked_for() -> None:
    grades = {IDS[0]: 3, IDS[1]: 2}
    answer = always(IDS[1], IDS[0])
    assert row(judge([query(grades=grades)], {"s": answer}))[MRR] == 1
    strict = row(judge([query(grades=grades)], {"s": answer}, relevant_from=3))
    assert (strict[MRR], strict[RECALL]) == (0.5, 1)


def test_no_answer_counts_as_nothing_found_and_a_query_that_can_not_be_taken_as_no_measurement() -> None:
    judged = judge([query()], {"empty": always(), "unfit": lambda _: None})
    assert [row(judged, system="empty")[measure] for measure in MEASURES] == [0, 0, 0]
    assert all(math.isnan(row(judged, system="unfit")[measure]) for measure in MEASURES)


def test_ranks_decide_ties_nowhere() -> None:
    """trec_eval sorts equal scores by id; the order of an answer must survive whatever the ids are."""
    for answer in (IDS[:10], IDS[9::-1]):
        first = answer[0]
        assert row(judge([query(grades={first: 1})], {"s": always(*answer)}))[MRR] == 1


def test_families_and_systems_keep_their_order_and_are_averaged() -> None:
    queries = [
        query("a", {IDS[0]: 1}, "visual"),
        query("b", {IDS[1]: 1}, "visual"),
        query("c", {IDS[0]: 1}, "colour"),
    ]
    judged = judge(queries, {"z": always(IDS[0]), "y": always(IDS[1])})
    table = by_family(judged)
    assert list(table.index) == ["visual", "colour"]
    assert list(table.columns) == ["z", "y"]
    assert table.loc["visual"].tolist() == [0.5, 0.5]
    assert table.loc["colour"].tolist() == [1, 0]


def test_a_family_is_not_averaged_over_part_of_its_queries() -> None:
    queries = [query("a", text="blue"), query("b", text=None, image=b"picture")]
    judged = judge(queries, {"words": lambda q: None if q.text is None else [IDS[0]]})
    assert math.isnan(by_family(judged).loc["colour", "words"])


def test_a_lead_is_measured_against_the_best_other_of_each_family() -> None:
    queries = [query("a", {IDS[0]: 1}, "visual"), query("b", {IDS[1]: 1}, "colour")]
    systems = {
        "left": always(IDS[0]),
        "right": always(IDS[1]),
        "auto": always(IDS[0]),
        "unfit": lambda _: None,
    }
    leads = lead_over(judge(queries, systems), "auto", ["left", "right", "unfit"])
    assert leads.loc["visual"].to_dict() == {"auto": 1, "best": 1, "best_system": "left", "lead": 0}
    assert leads.loc["colour"].to_dict() == {"auto": 0, "best": 1, "best_system": "right", "lead": -1}


def test_queries_that_can_not_be_judged_are_refused() -> None:
    with pytest.raises(ValueError, match="same id"):
        judge([query("a"), query("a")], {"s": always()})
    with pytest.raises(ValueError, match="no image of grade 3 or better, the first: a"):
        judge([query("a", {IDS[0]: 2})], {"s": always()}, relevant_from=3)


class RecordingEngine:
    """Answers every request with one image, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[SearchRequest] = []

    def search(self, request: SearchRequest) -> Any:
        self.requests.append(request.checked())
        return SimpleNamespace(hits=[SimpleNamespace(image_id=IDS[7])])


def asked(name: str, **changes: Any) -> tuple[Sequence[uuid.UUID] | None, list[SearchRequest]]:
    engine = RecordingEngine()
    answer = engine_systems(engine, "shop")[name](query(**changes))  # type: ignore[arg-type]
    return answer, engine.requests


def test_the_engine_is_asked_for_each_arm_alone_and_for_all_of_them_fused() -> None:
    assert list(engine_systems(RecordingEngine(), "shop")) == [*ARMS, "auto", "balanced", "rrf"]  # type: ignore[arg-type]
    for arm in ARMS:
        answer, (request,) = asked(arm)
        assert answer == [IDS[7]]
        assert (request.workspace_id, request.text, request.weights) == ("shop", "blue", {arm: 1.0})
    ways = {name: asked(name)[1][0] for name in ("auto", "balanced", "rrf")}
    assert {name: (r.profile, r.fusion, r.weights) for name, r in ways.items()} == {
        "auto": ("auto", "convex", None),
        "balanced": ("balanced", "convex", None),
        "rrf": ("auto", "rrf", None),
    }


def test_arms_of_words_are_not_asked_for_pictures() -> None:
    for arm in ARMS:
        answer, requests = asked(arm, text=None, image=b"picture")
        if arm in ("text", "understanding"):
            assert answer is None
            assert not requests
        else:
            assert requests[0].image == b"picture"
