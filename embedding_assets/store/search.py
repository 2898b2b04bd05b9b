"""What search asks of the database: who is near, and how near exactly. Which images it may find: `search_scope`.

Two ways to the same answer. Where few images are in scope, all of them get all scores (`exact_scores`), and nothing is
approximate. Where many are, each arm's nearest come from its HNSW index, filtered while the index is walked (pgvector's
iterative scan); the best of them get all scores, the others while they may still be hits (`exact_scores_above`).
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from embedding_assets.encoders.protocol import Vectors
from embedding_assets.store.indexes import VectorIndex
from embedding_assets.store.search_scope import Scope, scope_sql
from embedding_assets.store.spaces import Collection

Scores = NDArray[np.float64]

MAX_WALKED = 40_000
"""Vectors that one arm's index is walked by at most (pgvector's own limit is 20,000), however few fit a filter."""

MAX_CODES = 16
"""Codes of a query that are looked for."""


@dataclass(frozen=True)
class ArmQuery:
    """One arm's question.

    Attributes:
        arm: its name.
        collection: where its vectors are.
        vector: float32, shape (collection.dimension,), of any length but zero.
        index: the index to use; None scans exactly.
    """

    arm: str
    collection: Collection
    vector: Vectors
    index: VectorIndex | None = None

    @cached_property
    def literal(self) -> str:
        """The vector as pgvector reads it; orjson writes float32 fifty times as fast as repr does."""
        return orjson.dumps(np.ascontiguousarray(self.vector), option=orjson.OPT_SERIALIZE_NUMPY).decode()


@dataclass(frozen=True)
class Near:
    """What an arm's index gave.

    Attributes:
        hits: images with their cosines, most similar first.
        floor: cosine that images which the index did not give have at most, as far as it finds what is near. Not always
            the last hit's: a walk that is taken up again may come upon images that are nearer than earlier ones.
    """

    hits: list[tuple[uuid.UUID, float]]
    floor: float = -1.0


@dataclass(frozen=True)
class ScoreTable:
    """Exact scores of images.

    Attributes:
        ids: n images.
        cosines: shape (n, arms); NaN where an image has no vector in an arm.
        codes: shape (n,), how many of the query's codes the image's texts hold.
    """

    ids: list[uuid.UUID]
    cosines: Scores
    codes: NDArray[np.int64]


def codes_in(connection: Connection, query: str) -> list[str]:
    """Sizes, ratings and article numbers in a text, spelled as `document_images.codes` spells them."""
    found = connection.execute(
        text("SELECT tsvector_to_array(embedding_assets_codes(:query))"), {"query": query}
    ).scalar()
    return list(found or [])[:MAX_CODES]


def count_scope(connection: Connection, scope: Scope, most: int) -> int:
    """How many images are in scope, counted up to `most` + 1."""
    where, parameters = scope_sql(scope)
    return int(
        connection.execute(
            text(f"SELECT count(*) FROM (SELECT FROM document_images i WHERE {where} LIMIT :most) n"),
            {**parameters, "most": most + 1},
        ).scalar_one()
    )


def begin_search(connection: Connection, timeout_s: float, ef_search: int) -> None:
    """Makes the transaction read-only and bounded, and sets how the indexes are walked; all ends with it.

    All statements of the transaction see the same rows.
    """
    connection.execute(
        text(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; "
            "SELECT set_config('statement_timeout', :timeout, true), set_config('hnsw.ef_search', :ef, true), "
            "set_config('hnsw.iterative_scan', 'relaxed_order', true), "
            "set_config('hnsw.max_scan_tuples', :most, true), set_config('jit', 'off', true)"
        ),
        {
            "timeout": str(max(1, round(timeout_s * 1000))),
            "ef": str(min(1_000, max(1, ef_search))),
            "most": str(MAX_WALKED),
        },
    )


_AS_WRITTEN = "SELECT set_config('join_collapse_limit', '1', true);"
"""Joins in the order of the statement: the order of eight tables is dear to plan, and there is but one good one."""


def exact_scores(
    connection: Connection,
    scope: Scope,
    arms: Sequence[ArmQuery],
    codes: Sequence[str] = (),
    ids: Sequence[uuid.UUID] | None = None,
    *,
    part: tuple[int, int] = (0, 1),
) -> ScoreTable:
    """Scores of every image in scope, or of those among `ids` that are.

    Args:
        arms: what to score by; may be empty where there are codes.
        codes: the query's codes, of `codes_in`.
        part: (k, n): the k-th of n parts of the images, of about the same size: ids are hashes.
    """
    where, parameters = scope_sql(scope)
    if ids is not None:
        where += " AND i.id = ANY(CAST(:ids AS uuid[]))"
        parameters["ids"] = [str(i) for i in ids]
    where += _part_sql(part, parameters)
    selected = ["i.id"]
    joins = []
    for number, arm in enumerate(arms):
        selected.append(f"1 - (v{number}.vec <=> CAST(:q{number} AS vector)) AS s{number}")
        joins.append(f"LEFT JOIN {arm.collection.qualified} v{number} ON v{number}.id = i.id::text")
        parameters[f"q{number}"] = arm.literal
    selected.append(f"{_codes_sql(codes, parameters)} AS found")
    rows = connection.execute(
        text(
            f"{_AS_WRITTEN} SELECT {', '.join(selected)} FROM document_images i {' '.join(joins)} "
            f"WHERE {where} ORDER BY i.id"
        ),
        parameters,
    ).all()
    cosines = np.asarray([row[1:-1] for row in rows], dtype=np.float64).reshape(len(rows), len(arms))
    return ScoreTable(
        [row[0] for row in rows], cosines, np.asarray([row[-1] for row in rows], dtype=np.int64)
    )


@dataclass(frozen=True)
class Share:
    """What an arm adds to the fused score of an image: `factor * cosine - offset`, 0 where it has no vector.

    Attributes:
        highest: what it adds at most to an image that the arm's index did not give; at least 0.
    """

    factor: float
    offset: float
    highest: float


def exact_scores_above(
    connection: Connection,
    scope: Scope,
    arms: Sequence[ArmQuery],
    shares: Sequence[Share],
    ids: Sequence[uuid.UUID],
    bounds: Sequence[float],
    least: float,
) -> ScoreTable:
    """Scores of those among `ids` whose fused score may be `least` or more; each arm that is read tightens the bound.

    An image is given up as soon as its bound falls below `least`, so that most images cost a few of the arms only.

    Args:
        arms: what to score by, at least one; read in this order.
        shares: for each arm what it adds.
        bounds: for each image the highest fused score that it can have: the sum of at least `highest` of each arm.
    """
    where, parameters = scope_sql(scope)
    parameters |= {"ids": [str(i) for i in ids], "bounds": list(bounds), "least": least}
    joins = []
    bound = "t.bound"
    for number, (arm, share) in enumerate(zip(arms, shares, strict=True)):
        # OFFSET 0: a condition that is not met keeps the row from being looked up, and no vector is read twice.
        joins.append(
            f"LEFT JOIN LATERAL (SELECT 1 - (v.vec <=> CAST(:q{number} AS vector)) AS cosine "
            f"FROM {arm.collection.qualified} v WHERE {bound} >= :least AND v.id = i.id::text OFFSET 0) s{number} "
            "ON true"
        )
        bound += f" - greatest(:u{number} - coalesce(:f{number} * s{number}.cosine - :o{number}, 0), 0)"
        parameters[f"q{number}"] = arm.literal
        parameters |= {f"f{number}": share.factor, f"o{number}": share.offset, f"u{number}": share.highest}
    cosines = ", ".join(f"s{number}.cosine" for number in range(len(arms)))
    rows = connection.execute(
        text(
            f"{_AS_WRITTEN} SELECT t.place, {cosines} "
            "FROM unnest(CAST(:ids AS uuid[]), CAST(:bounds AS double precision[])) "
            f"WITH ORDINALITY t(id, bound, place) JOIN document_images i ON i.id = t.id {' '.join(joins)} "
            f"WHERE {where} AND {bound} >= :least ORDER BY t.place"
        ),
        parameters,
    ).all()
    return ScoreTable(
        [ids[row[0] - 1] for row in rows],
        np.asarray([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), len(arms)),
        np.zeros(len(rows), dtype=np.int64),
    )


def _part_sql(part: tuple[int, int], parameters: dict[str, Any]) -> str:
    """The k-th of n parts of all ids as SQL over document_images AS i; "" for the whole."""
    number, count = part
    sql = ""
    if number > 0:
        sql += " AND i.id >= CAST(:part_from AS uuid)"
        parameters["part_from"] = str(uuid.UUID(int=2**128 * number // count))
    if number < count - 1:
        sql += " AND i.id < CAST(:part_to AS uuid)"
        parameters["part_to"] = str(uuid.UUID(int=2**128 * (number + 1) // count))
    return sql


def _codes_sql(codes: Sequence[str], parameters: dict[str, Any]) -> str:
    """How many of the codes an image's texts hold, as SQL over document_images AS i."""
    parts = []
    for number, code in enumerate(codes):
        parameters[f"code{number}"] = _lexeme(code)
        parts.append(f"coalesce((i.codes @@ CAST(:code{number} AS tsquery))::int, 0)")
    return " + ".join(parts) or "0"


def _lexeme(code: str) -> str:
    """A tsquery of one lexeme as it is; codes hold a-z 0-9 . _ - only, and quotes keep those from being syntax."""
    return f"'{code}'"


def nearest_by_arm(
    connection: Connection, scope: Scope, arms: Sequence[ArmQuery], limit: int
) -> dict[str, Near]:
    """For each arm the nearest images in scope by its index, one statement for all arms.

    Postgres plans the rest of the transaction without sequential and bitmap scans: look for codes before.

    Vectors that belong to no image (a vecs client may store its own) and images of other workspaces are left out here;
    `exact_scores` and `exact_scores_above` ask the image rows once more.

    Returns:
        By arm at most `limit` images.
    """
    where, parameters = scope_sql(scope)
    parameters["limit"] = limit
    parts = []
    for number, arm in enumerate(arms):
        parameters[f"q{number}"] = arm.literal
        distance = _distance(arm, number)
        conditions = "v.metadata ->> 'workspace_id' = :workspace"
        if not scope.is_whole_workspace:
            # Asked of each vector that the index walks by, so that the walk goes on until enough fit.
            conditions += (
                f" AND EXISTS (SELECT FROM document_images i WHERE i.id = {_AS_UUID} AND {where} OFFSET 0)"
            )
        parts.append(
            f"(SELECT {number} AS arm, v.id, 1 - ({distance}) AS cosine FROM {arm.collection.qualified} v "
            f"WHERE {conditions} ORDER BY {distance} LIMIT :limit)"
        )
    # The only sensible plan walks the index; the planner, which can't tell how many fit a filter, might not see that.
    plan = "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true); "
    rows = connection.execute(text(plan + " UNION ALL ".join(parts)), parameters).all()
    found: dict[str, list[tuple[uuid.UUID, float]]] = {arm.arm: [] for arm in arms}
    floors: dict[str, float] = {}
    for number, own_id, cosine in rows:  # in the order in which each index gave them
        image_id = _as_uuid(own_id)
        if image_id is not None and not math.isnan(cosine):  # a client's zero vector is near to nothing
            found[arms[number].arm].append((image_id, cosine))
            floors[arms[number].arm] = cosine
    return {
        arm: Near(sorted(hits, key=lambda one: (-one[1], one[0])), floors.get(arm, -1.0))
        for arm, hits in found.items()
    }


_AS_UUID = (
    "CASE WHEN v.id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN v.id::uuid END"
)


def _as_uuid(value: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(value)
    except ValueError:
        return None


def _distance(arm: ArmQuery, number: int) -> str:
    dimension = arm.collection.dimension
    if arm.index is None:
        return f"v.vec <=> CAST(:q{number} AS vector)"
    kind = arm.index.type_name(dimension)
    return f"({arm.index.operand(dimension, 'v')}) <=> CAST(:q{number} AS {kind})"


def holders_of_codes(
    connection: Connection, scope: Scope, codes: Sequence[str], limit: int
) -> list[uuid.UUID]:
    """Images in scope whose texts hold codes of the query: those with all of them first, then any."""
    if not codes:
        return []
    where, parameters = scope_sql(scope)
    found: list[uuid.UUID] = []
    for joint in (" & ", " | "):
        rows = connection.execute(
            text(
                f"SELECT i.id FROM document_images i WHERE {where} AND i.codes @@ CAST(:codes AS tsquery) "
                "ORDER BY i.id LIMIT :limit"
            ),
            {**parameters, "codes": joint.join(map(_lexeme, codes)), "limit": limit},
        ).scalars()
        found = list(dict.fromkeys([*found, *rows]))
        if len(found) >= limit or len(codes) == 1:
            break
    return found[:limit]


def describe_hits(
    connection: Connection, workspace_id: str, ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, Any]:
    """What a hit shows of images, by id: document_id, page_number, reference, caption, nearby_text, store_key,
    content_hash, width, height, vision_analysis, codes."""
    rows = connection.execute(
        text(
            "SELECT id, document_id, page_number, reference, caption, nearby_text, store_key, content_hash, width, "
            "height, vision_analysis, tsvector_to_array(codes) AS codes "
            "FROM document_images WHERE workspace_id = :workspace AND id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"workspace": workspace_id, "ids": [str(i) for i in ids]},
    ).all()
    return {row.id: row for row in rows}


def vectors_of_images(
    connection: Connection, workspace_id: str, ids: Sequence[uuid.UUID], collection: Collection
) -> dict[uuid.UUID, Vectors]:
    """Stored vectors of a workspace's images by id, float32 of shape (dimension,); images without one are left out."""
    rows = connection.execute(
        text(
            f"SELECT i.id, CAST(v.vec AS real[]) AS vec FROM document_images i JOIN {collection.qualified} v "
            "ON v.id = i.id::text WHERE i.workspace_id = :workspace AND i.id = ANY(CAST(:ids AS uuid[]))"
        ),
        {"workspace": workspace_id, "ids": [str(i) for i in ids]},
    ).all()
    return {row.id: np.asarray(row.vec, dtype=np.float32) for row in rows}


def sample_vectors(connection: Connection, collection: Collection, count: int) -> tuple[list[str], Vectors]:
    """Vectors of a collection, as good as drawn at random: ids are hashes, and the first of them are taken.

    Maintenance: not scoped to a workspace; what is made of them are statistics of the whole collection.

    Returns:
        Ids, and float32 of shape (n, dimension), n <= `count`.
    """
    rows = connection.execute(
        text(
            f"SELECT v.id, CAST(v.vec AS real[]) AS vec FROM {collection.qualified} v ORDER BY v.id LIMIT :count"
        ),
        {"count": count},
    ).all()
    vectors = np.asarray([row.vec for row in rows], dtype=np.float32).reshape(len(rows), collection.dimension)
    return [row.id for row in rows], vectors
