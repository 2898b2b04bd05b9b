"""How good a search is: queries with graded answers, asked of several systems, and the usual measures of the rankings.

    graded queries  x  systems (query -> ranked images)  ->  judge: one row a query and system
                                                         ->  by_family: means;  lead_over: one system against others

What belongs here: measuring. What does not: where queries and grades come from (`judged_file`, or the demo's judged
set), and how a search works (`engine`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from embedding_assets.search.arms import ARMS, TEXT_ARMS
from embedding_assets.search.engine import SearchEngine
from embedding_assets.search.profiles import AUTO, BALANCED
from embedding_assets.search.request import SearchRequest

DEPTH = 10
"""Ranks that count."""

NDCG = f"nDCG@{DEPTH}"
RECALL = f"recall@{DEPTH}"
MRR = f"MRR@{DEPTH}"
MEASURES = (NDCG, RECALL, MRR)

RRF = "rrf"
"""The system that fuses by reciprocal ranks what `auto` fuses by scores."""


@dataclass(frozen=True)
class GradedQuery:
    """A query whose answers are known.

    Attributes:
        query_id: unique among the queries that are judged together.
        family: what kind of query it is; measures are averaged by it.
        split: "tuning" or "gate"; what is chosen on one half is judged on the other.
        text: what is typed, or None.
        image: bytes of the image file that is searched by, or None.
        grades: relevant images with their grades, 1 or more; all others have 0.
    """

    query_id: str
    family: str
    split: str
    text: str | None
    image: bytes | None = field(repr=False)
    grades: Mapping[uuid.UUID, int] = field(repr=False)


System = Callable[[GradedQuery], "Sequence[uuid.UUID] | None"]
"""Answers a query with image ids, best first and none twice; None where it can't take such a query at all."""


def engine_systems(engine: SearchEngine, workspace_id: str) -> dict[str, System]:
    """The search engine as systems to compare: each arm by itself, then fused: auto, balanced, rrf.

    An arm that embeds texts only can't take a query without a text.
    """

    def arm_alone(arm: str) -> System:
        def ask(query: GradedQuery) -> Sequence[uuid.UUID] | None:
            if arm in TEXT_ARMS and query.text is None:
                return None
            return _found(engine, SearchRequest(workspace_id, query.text, query.image, weights={arm: 1.0}))

        return ask

    return {
        **{arm: arm_alone(arm) for arm in ARMS},
        AUTO: lambda query: _found(engine, SearchRequest(workspace_id, query.text, query.image)),
        BALANCED: lambda query: _found(
            engine, SearchRequest(workspace_id, query.text, query.image, profile=BALANCED)
        ),
        RRF: lambda query: _found(engine, SearchRequest(workspace_id, query.text, query.image, fusion="rrf")),
    }


def _found(engine: SearchEngine, request: SearchRequest) -> list[uuid.UUID]:
    return [hit.image_id for hit in engine.search(request).hits[:DEPTH]]


def judge(
    queries: Sequence[GradedQuery], systems: Mapping[str, System], *, relevant_from: int = 1
) -> pd.DataFrame:
    """Asks every system every query.

    nDCG uses the grades as gains and log2 discounts (Järvelin and Kekäläinen 2002, as trec_eval). Recall is the
    share of relevant images among the first ten, of those that fit there: found / min(10, relevant), so that 1 can
    be reached however many there are (BEIR's capped recall). MRR is 1 / rank of the first relevant image.

    Args:
        queries: no id twice, each with a relevant image.
        systems: by name.
        relevant_from: the grade from which an image counts as relevant for recall and MRR.

    Returns:
        One row a query and system: query_id, family, split, system, and `MEASURES`, which are NaN where the system
        can't take the query.

    Raises:
        ValueError: a query id stands twice, or a query has no image of grade `relevant_from`.
    """
    import ir_measures

    if len({query.query_id for query in queries}) != len(queries):
        raise ValueError("two judged queries have the same id")
    relevant = {q.query_id: sum(grade >= relevant_from for grade in q.grades.values()) for q in queries}
    unanswerable = [query_id for query_id, images in relevant.items() if not images]
    if unanswerable:
        raise ValueError(
            f"{len(unanswerable)} judged queries have no image of grade {relevant_from} or better, "
            f"the first: {unanswerable[0]}"
        )
    ndcg = ir_measures.nDCG @ DEPTH
    precision = ir_measures.P(rel=relevant_from) @ DEPTH
    first = ir_measures.RR(rel=relevant_from) @ DEPTH
    truth = {query.query_id: {str(i): grade for i, grade in query.grades.items()} for query in queries}
    evaluator = ir_measures.evaluator([ndcg, precision, first], truth)
    rows = []
    for name, system in systems.items():
        answers = {query.query_id: system(query) for query in queries}
        run = {
            query_id: {str(image_id): -float(rank) for rank, image_id in enumerate(found)}
            for query_id, found in answers.items()
            if found is not None
        }
        values: dict[tuple[str, str], float] = {
            (metric.query_id, str(metric.measure)): metric.value for metric in evaluator.iter_calc(run)
        }
        for query in queries:
            row = {
                "query_id": query.query_id,
                "family": query.family,
                "split": query.split,
                "system": name,
                **dict.fromkeys(MEASURES, float("nan")),
            }
            if query.query_id in run:
                row[NDCG] = values[query.query_id, str(ndcg)]
                found_relevant = values[query.query_id, str(precision)] * DEPTH
                row[RECALL] = found_relevant / min(DEPTH, relevant[query.query_id])
                row[MRR] = values[query.query_id, str(first)]
            rows.append(row)
    judged: pd.DataFrame = pd.DataFrame(rows)
    return judged


def by_family(judged: pd.DataFrame, measure: str = NDCG) -> pd.DataFrame:
    """Means of a measure over the queries of each family.

    Args:
        judged: what `judge` returned.
        measure: one of `MEASURES`.

    Returns:
        Families as index and systems as columns, both in the order in which they were judged; NaN where a system
        can't take some query of the family.
    """
    means = judged.groupby(["family", "system"], sort=False)[measure].agg(
        lambda values: values.mean(skipna=False)
    )
    families, systems = judged["family"].unique(), judged["system"].unique()
    table: pd.DataFrame = means.unstack("system").reindex(index=families, columns=systems)
    return table


def lead_over(judged: pd.DataFrame, system: str, others: Sequence[str], measure: str = NDCG) -> pd.DataFrame:
    """How far a system leads the best of some others, family by family.

    Returns:
        Families as index; columns `system` (its name) with its mean, "best" with the best other's, "best_system"
        with the name of that one, and "lead", negative where the system is behind.
    """
    table = by_family(judged, measure)
    best = table[list(others)]
    leads: pd.DataFrame = pd.DataFrame(
        {
            system: table[system],
            "best": best.max(axis=1),
            "best_system": best.idxmax(axis=1),
            "lead": table[system] - best.max(axis=1),
        }
    )
    return leads
