"""Candidates get exact, calibrated scores, and no more of them than can still be among the hits.

Where indexes give the candidates, each arm has told the cosines of its own nearest; as far as the index finds what is
near, no other image is nearer than its floor. So every candidate has a bound on its fused score, and only those
whose bound reaches the worst hit need their missing scores (the threshold algorithm of Fagin, Lotem and Naor, 2001).
What is a hit has exact scores in every arm.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedding_assets.search import fusion
from embedding_assets.search.arm_reader import ArmReader, joined
from embedding_assets.search.asking import Arm, Choice
from embedding_assets.search.fusion import Scores
from embedding_assets.search.result import ArmReport
from embedding_assets.store.search import Near, ScoreTable, Share
from embedding_assets.store.search_scope import Scope

Nearest = Mapping[str, Near]

FIRST = 64
"""Candidates that are scored before the others' bounds are looked at, at least."""

SLACK = 0.002
"""Cosines that an index of 16-bit numbers tells are off by some 0.0005."""

ROUNDING = 1e-9
"""By so much a bound may be below the score that it is a bound of, for nothing but the order of additions."""


@dataclass(frozen=True)
class Scored:
    """Scored images.

    Attributes:
        table: ids, cosines by asked arm, codes found.
        reports: every arm, and what became of it.
        arms: names of the used arms, the columns of `scores`.
        scores: calibrated, shape (n, used arms), NaN where an image has no vector.
        fused: shape (n,).
        candidates: images that were looked at.
        answering: shape (n,), whether an image has anything to be found by: a vector in a used arm, or a code.
    """

    table: ScoreTable
    reports: list[ArmReport]
    arms: list[str]
    scores: Scores
    fused: Scores
    candidates: int
    answering: NDArray[np.bool_]


def score_all(reader: ArmReader, scope: Scope, choice: Choice, codes: Sequence[str], method: str) -> Scored:
    """Scores every image in scope; `method` is "convex" or "rrf"."""
    table = reader.scores(scope, [arm.query for arm in choice.arms if arm.query], codes)
    return fuse(table, choice, codes, method, candidates=len(table.ids))


def score_candidates(
    reader: ArmReader,
    scope: Scope,
    choice: Choice,
    codes: Sequence[str],
    method: str,
    near: Nearest,
    holders: Sequence[uuid.UUID],
    wanted: int,
) -> Scored:
    """Scores the candidates that indexes and codes give.

    Args:
        near: what each arm's index gave (`ArmReader.nearest`).
        holders: images that hold codes of the query.
        wanted: best images that have to be right.
    """
    queries = [arm.query for arm in choice.arms if arm.query]
    found = [image_id for one in near.values() for image_id, _ in one.hits]
    ids = list(dict.fromkeys([*found, *holders]))
    present = frozenset(arm for arm, one in near.items() if one.hits)

    def scored(some: Sequence[uuid.UUID]) -> ScoreTable:
        return reader.scores(scope, queries, codes, some)

    if method != "convex" or codes or len(ids) <= FIRST or not all(one.hits for one in near.values()):
        # Ranks need every candidate, what codes one holds has no bound but the highest, and an arm that found
        # nothing tells no bound.
        return fuse(scored(ids), choice, codes, method, present=present, candidates=len(ids))
    shares = shares_of(choice.asked, near)
    bounds = upper_bounds(ids, near, choice.asked, shares)
    order = np.argsort(-bounds, kind="stable")
    first = max(FIRST, 2 * wanted)
    table = scored([ids[n] for n in order[:first]])
    result = fuse(table, choice, codes, method, present=present, candidates=len(ids))
    ranked = np.sort(result.fused)[::-1]
    worst_hit = float(ranked[wanted - 1]) - ROUNDING if len(ranked) >= wanted else -np.inf
    rest = [n for n in order[first:] if bounds[n] >= worst_hit]
    if rest:
        # The arms that can add most tell most: they are read first.
        by_share = sorted(range(len(shares)), key=lambda n: -shares[n].highest)
        more = reader.scores_above(
            scope,
            [queries[n] for n in by_share],
            [shares[n] for n in by_share],
            [ids[n] for n in rest],
            bounds[rest].tolist(),
            worst_hit,
        )
        more = replace(more, cosines=more.cosines[:, np.argsort(by_share)])
        result = fuse(joined([table, more]), choice, codes, method, present=present, candidates=len(ids))
    return result


def shares_of(arms: Sequence[Arm], near: Nearest) -> list[Share]:
    """What each arm adds to fused scores.

    Args:
        arms: the asked arms; weights may have any sum.
        near: what each arm's index gave; at least one image each.
    """
    total = sum(arm.weight for arm in arms)
    found = []
    for arm in arms:
        assert arm.query is not None
        weight, length = arm.weight / total, float(np.linalg.norm(arm.query.vector))
        highest = weight * (length * (near[arm.name].floor + SLACK) - arm.offset)
        # An image without a vector scores 0, which may be more than the bound of those that have one.
        found.append(Share(weight * length, weight * arm.offset, max(highest, 0.0)))
    return found


def upper_bounds(
    ids: Sequence[uuid.UUID], near: Nearest, arms: Sequence[Arm], shares: Sequence[Share]
) -> Scores:
    """The highest fused score that each of `ids` can have, shape (n,); `shares` are those of `shares_of`."""
    place = {image_id: n for n, image_id in enumerate(ids)}
    bounds = np.zeros(len(ids))
    for arm, share in zip(arms, shares, strict=True):
        adds = np.full(len(ids), share.highest)
        for image_id, cosine in near[arm.name].hits:
            n = place[image_id]
            adds[n] = max(adds[n], share.factor * (cosine + SLACK) - share.offset)
        bounds += adds
    return bounds


def fuse(
    table: ScoreTable,
    choice: Choice,
    codes: Sequence[str],
    method: str,
    *,
    candidates: int,
    present: frozenset[str] | None = None,
) -> Scored:
    """Calibrates and adds up; arms in which no image has a vector are left out, and the other weights grow.

    Args:
        table: exact scores, of all images in scope or of candidates.
        candidates: images that were looked at.
        present: arms whose indexes found images in scope; None where all images in scope were scored.
    """
    columns: dict[str, Scores] = {}
    how: dict[str, str] = {}
    for number, arm in enumerate(choice.asked):
        assert arm.query is not None
        cosines = table.cosines[:, number]
        if len(cosines) and np.isnan(cosines).all() and arm.name not in (present or ()):
            arm.left_out = "no image in scope has a vector of this kind"
            continue
        arm.left_out = ""
        columns[arm.name] = float(np.linalg.norm(arm.query.vector)) * cosines - arm.offset
        how[arm.name] = "exact" if present is None or arm.query.index is None else "index"
    if codes:
        how.setdefault("text", "codes")
        columns["text"] = fusion.with_codes(columns.get("text"), table.codes, len(codes))
    used = [arm for arm in choice.arms if arm.name in columns]
    total = sum(arm.weight for arm in used)
    weights = {arm.name: arm.weight / total for arm in used}
    reports = [
        ArmReport(
            arm.name,
            arm.configured,
            weights.get(arm.name, 0.0),
            "" if arm.name in columns else arm.left_out,
            how.get(arm.name, ""),
            round(arm.encode_ms, 3),
        )
        for arm in choice.arms
    ]
    names = [arm.name for arm in used]
    scores = np.stack([columns[name] for name in names], axis=1) if used else np.empty((len(table.ids), 0))
    shares = [weights[name] for name in names]
    by_rank = method == "rrf"
    fused = fusion.reciprocal_ranks(scores, shares, table.ids) if by_rank else fusion.convex(scores, shares)
    asked = [number for number, arm in enumerate(choice.asked) if arm.name in columns]
    answering = ~np.isnan(table.cosines[:, asked]).all(axis=1) | (table.codes > 0)
    return Scored(table, reports, names, scores, fused, candidates, answering)
