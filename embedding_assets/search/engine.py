"""One search, from request to result.

    request -> plan (one read: spaces, calibrations, indexes, codes, how many images are in scope)
            -> query vectors, an arm that can't be asked left out
            -> few images in scope: all of them get exact scores; many: candidates by index, then exact scores
            -> calibrated, fused, ranked -> described

What belongs here: the order of the steps. What does not: weights and rules (`profiles`), scaling (`calibration`),
adding up (`fusion`), SQL (`store.search`).
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import Connection

from embedding_assets.encoders.aspects import ASPECTS
from embedding_assets.encoders.protocol import Vectors
from embedding_assets.errors import EmbeddingAssetsError, InfrastructureError, PermanentError
from embedding_assets.search import fusion
from embedding_assets.search.arms import ARMS, COLLECTION_OF_ARM, LOOKS_ARMS, TEXT_ARMS
from embedding_assets.search.calibration import SAMPLE, Scale, measure, queries_for
from embedding_assets.search.describing import describe
from embedding_assets.search.profiles import (
    AUTO,
    BALANCED,
    PROFILES,
    TOGETHER,
    QueryWords,
    choose_profile,
    looks_of,
    read_query,
)
from embedding_assets.search.queries import QueryEncoder
from embedding_assets.search.request import SearchRequest
from embedding_assets.search.result import ArmReport, SearchResult
from embedding_assets.store.calibrations import (
    Calibration,
    count_vectors,
    estimate_vectors,
    read_calibrations,
    write_calibration,
)
from embedding_assets.store.database import Database
from embedding_assets.store.indexes import VectorIndex, usable_hnsw
from embedding_assets.store.search import (
    ArmQuery,
    Scope,
    ScoreTable,
    begin_search,
    codes_in,
    count_scope,
    exact_scores,
    holders_of_codes,
    nearest_by_arm,
    sample_vectors,
    vectors_of_images,
)
from embedding_assets.store.spaces import Collection, existing_collections

logger = logging.getLogger(__name__)

MIN_EXACT = 1_000
"""As many images in scope are always scored exactly."""

NEAR_DUPLICATE = 0.98
"""Cosine of two visual vectors above which `diversity` folds two images."""

FOLDED_FROM = 5
"""`diversity` looks at five times as many images as are asked for."""


@dataclass
class _Plan:
    """What is known before any query is embedded."""

    collections: dict[str, Collection]
    calibrations: dict[tuple[str, str], Calibration]
    indexes: dict[str, VectorIndex]
    sizes: dict[str, int]
    codes: list[str]
    in_scope: int
    own: dict[str, Vectors] = field(default_factory=dict)
    """Vectors, by arm, of the image that is searched by."""

    def exact_up_to(self, candidates: int) -> int:
        return _exact_up_to(candidates, max(self.sizes.values(), default=0))


@dataclass
class _Arm:
    """One arm on its way: a query vector, or why there is none."""

    name: str
    configured: float
    weight: float
    left_out: str = ""
    query: ArmQuery | None = None
    offset: float = 0.0
    """score = |query vector| * cosine - offset"""
    encode_ms: float = 0.0


def _exact_up_to(candidates: int, vectors: int) -> int:
    """Images in scope up to which scoring them all is cheaper than walking indexes under a filter.

    Scoring all touches n images an arm; an index under a filter that n of N vectors pass is walked by some k N / n
    vectors until k fit. The two are equal at n = sqrt(k N).
    """
    return max(MIN_EXACT, math.isqrt(candidates * vectors))


class SearchEngine:
    """Searches the images of a workspace by text, by image, or both. Safe to share between threads.

        engine = SearchEngine(database, queries)
        result = engine.search(SearchRequest("shop", text="matte grey porcelain R11"))

    Args:
        database: where rows and vectors are.
        queries: what embeds queries; a model or provider that did not make an arm's vectors leaves that arm out.
        candidates: nearest images asked of each arm's index, at least 100.
        timeout_s: seconds that one statement may take.
    """

    def __init__(
        self, database: Database, queries: QueryEncoder, *, candidates: int = 100, timeout_s: float = 10.0
    ) -> None:
        if candidates < 100:
            raise ValueError(f"a search takes at least 100 candidates an arm, got {candidates}")
        self.database = database
        self.queries = queries
        self.candidates = candidates
        self.timeout_s = timeout_s

    def search(self, request: SearchRequest) -> SearchResult:
        """Finds images.

        Raises:
            PermanentError: the request can't be answered as it is; the message says what was expected.
            ImageRejected: the image can't be decoded.
            StoreUnavailable: the database is gone, or a statement took too long.
            EmbeddingAssetsError: no arm is left, and this is why the first one failed.
        """
        clock = _Clock()
        request.checked()
        text = request.query_text()
        limit = max(self.candidates, request.top_k)
        plan = self._plan(request, text, limit)
        clock.lap("plan")
        profile, reason, arms = self._choose(request, text)
        notes = self._ask(request, text, arms, plan)
        asked = [arm.query for arm in arms if arm.query is not None]
        # Codes need no vectors: they count for the text arm even where it has none to compare.
        codes = plan.codes if any(arm.name == "text" and arm.weight for arm in arms) else []
        if not asked and not codes:
            self._refuse(arms)
        clock.lap("encode")
        exact = plan.in_scope <= plan.exact_up_to(limit)
        with self.database.transaction() as connection:
            begin_search(connection, self.timeout_s, limit)
            ids = None
            if not exact:
                ids = _candidates(connection, request.scope(), asked, codes, limit)
                clock.lap("candidates")
            table = exact_scores(connection, request.scope(), asked, codes, ids)
            clock.lap("scores")
            reports, scores, weights = _calibrated(arms, asked, table, codes, exact)
            if request.fusion == "rrf":
                fused = fusion.reciprocal_ranks(scores, weights, table.ids)
            else:
                fused = fusion.convex(scores, weights)
            order = fusion.ranking(fused, table.ids) if weights else []
            if request.min_score is not None:
                order = [n for n in order if fused[n] >= request.min_score]
            hits = describe(
                connection,
                request,
                [report.arm for report in reports if not report.left_out],
                table,
                scores,
                fused,
                order,
                codes,
                plan.collections.get("visual"),
                (FOLDED_FROM, NEAR_DUPLICATE),
            )
            clock.lap("details")
        return SearchResult(
            hits=hits,
            profile=profile,
            profile_reason=reason,
            arms=reports,
            fusion=request.fusion,
            codes=tuple(codes),
            candidates=len(table.ids),
            exact=exact,
            notes=tuple(notes),
            timings_ms=clock.done(),
        )

    # -- steps -----------------------------------------------------------------------------------------------
    def _plan(self, request: SearchRequest, text: str | None, limit: int) -> _Plan:
        with self.database.transaction() as connection:
            begin_search(connection, self.timeout_s, limit)
            existing = existing_collections(connection)
            collections = {arm: existing[name] for arm, name in COLLECTION_OF_ARM.items() if name in existing}
            listed = list(collections.values())
            sizes = estimate_vectors(connection, listed)
            plan = _Plan(
                collections,
                read_calibrations(connection, listed),
                usable_hnsw(connection, listed),
                sizes,
                codes_in(connection, text) if text else [],
                count_scope(connection, request.scope(), _exact_up_to(limit, max(sizes.values(), default=0))),
            )
            if request.image_id is not None:
                plan.own = _own_vectors(connection, request.workspace_id, request.image_id, collections)
        return plan

    def _choose(self, request: SearchRequest, text: str | None) -> tuple[str, str, list[_Arm]]:
        """Profile, why, and the arms with their weights; by `auto`, aspects that the text says nothing of are out."""
        if request.weights is not None:
            total = sum(request.weights.values())
            weights: Mapping[str, float] = {arm: request.weights.get(arm, 0.0) / total for arm in ARMS}
            return "custom", "weights were given", [_weighted(arm, weights[arm]) for arm in ARMS]
        if request.profile != AUTO:
            return request.profile, "asked for", [_weighted(a, PROFILES[request.profile][a]) for a in ARMS]
        if text is None:
            return BALANCED, "the query is an image", [_weighted(a, PROFILES[BALANCED][a]) for a in ARMS]
        words = read_query(text)
        profile, reason = choose_profile(words)
        arms = [_weighted(arm, PROFILES[profile][arm]) for arm in ARMS]
        if request.image is None and request.image_id is None:
            _leave_unsaid(arms, words, looks_of(text))
        return profile, reason, arms

    def _ask(self, request: SearchRequest, text: str | None, arms: list[_Arm], plan: _Plan) -> list[str]:
        """Gives each arm its query vector, or the reason why it is left out; returns notes."""
        notes: list[str] = []
        visual: Vectors | None = None
        if request.image is not None:
            visual = self.queries.of_image(
                request.image
            )  # an image that can't be decoded is the request's fault
        looks = (looks_of(text) or text) if text else None
        for arm in arms:
            if arm.left_out:
                continue
            collection = plan.collections.get(arm.name)
            if collection is None:
                arm.left_out = "there are no vectors of this kind yet"
                continue
            started = time.perf_counter()
            try:
                self.queries.check(arm.name, collection)
                own = plan.own.get(arm.name)
                if visual is not None and arm.name in LOOKS_ARMS:
                    own = visual if arm.name == "visual" else self.queries.aspect_of_image(collection, visual)
                wanted = text if arm.name in TEXT_ARMS else looks
                asked = {
                    "text": self.queries.of_text(arm.name, collection, wanted) if wanted else None,
                    "image": own,
                }
                vectors = {kind: vector for kind, vector in asked.items() if vector is not None}
                if not vectors:
                    arm.left_out = _nothing_to_ask(arm.name, request)
                    continue
                scales = {kind: self._scale(arm.name, collection, kind, plan, notes) for kind in vectors}
            except InfrastructureError:
                raise
            except EmbeddingAssetsError as error:
                logger.warning("search: arm %s is left out: %s", arm.name, error)
                arm.left_out = error.message
                continue
            arm.encode_ms = 1000 * (time.perf_counter() - started)
            # The mean of both kinds' scores is linear in the cosines, so one vector asks for both at once.
            share = 1 / len(vectors)
            combined = sum(share / scales[kind].span * vector for kind, vector in vectors.items())
            arm.offset = sum(share * scale.low / scale.span for scale in scales.values())
            arm.query = ArmQuery(
                arm.name,
                collection,
                np.asarray(combined, dtype=np.float32),
                plan.indexes.get(collection.table),
            )
        return notes

    def _refuse(self, arms: Sequence[_Arm]) -> None:
        reasons = "; ".join(f"{arm.name}: {arm.left_out}" for arm in arms if arm.configured)
        raise PermanentError(
            f"no arm of the search can be asked ({reasons})",
            hint="`embedding-assets coverage` shows what is embedded, `embedding-assets doctor` checks models and keys",
        )

    # -- calibration -----------------------------------------------------------------------------------------
    def _scale(self, arm: str, collection: Collection, kind: str, plan: _Plan, notes: list[str]) -> Scale:
        stored = plan.calibrations.get((collection.table, kind))
        if stored is None:
            stored = self.calibrate_arm(arm, collection, kind)
            if stored is None:
                return Scale(0.0, 1.0)
            notes.append(
                f"{arm}: scores of {kind} queries were calibrated just now, on {stored.vectors} vectors"
            )
        now = plan.sizes.get(collection.table, 0)
        if stored.rows and now > 2 * stored.rows + SAMPLE:
            notes.append(
                f"{arm}: calibrated on a collection of {stored.rows} vectors, which now has about {now}; "
                "materialize vector_indexes, or run `embedding-assets indexes`"
            )
        return Scale(stored.low, stored.high)

    def calibrate_arm(self, arm: str, collection: Collection, kind: str) -> Calibration | None:
        """Measures and stores one arm's calibration for "text" or "image" queries; None where it has no vectors."""
        with self.database.transaction() as connection:
            ids, sample = sample_vectors(connection, collection, SAMPLE)
            rows = count_vectors(connection, collection) if len(ids) == SAMPLE else len(ids)
        if not ids:
            return None
        same: list[int | None] = []
        if kind == "image":
            same = list(range(0, len(ids), max(1, len(ids) // 64)))
            asked = sample[[n for n in same if n is not None]]
        else:
            asked = self.queries.of_texts(arm, collection, queries_for(arm))
        calibration = measure(sample, asked, rows, kind=kind, same=same)
        with self.database.transaction() as connection:
            write_calibration(connection, collection, calibration)
        return calibration

    def calibrate(self) -> list[tuple[str, Calibration]]:
        """Measures every arm anew; arms whose model or provider can't be had keep what is stored.

        Returns:
            (arm, calibration) of those that were measured.

        Raises:
            InfrastructureError: the database is gone.
        """
        with self.database.transaction() as connection:
            existing = existing_collections(connection)
        measured = []
        for arm, name in COLLECTION_OF_ARM.items():
            if name not in existing:
                continue
            try:
                self.queries.check(arm, existing[name])
                found = [self.calibrate_arm(arm, existing[name], kind) for kind in ("text", "image")]
            except InfrastructureError:
                raise
            except EmbeddingAssetsError as error:
                logger.warning("calibration of %s is left as it is: %s", arm, error)
                continue
            measured += [(arm, calibration) for calibration in found if calibration is not None]
        return measured


def _weighted(arm: str, weight: float) -> _Arm:
    return _Arm(arm, weight, weight, "" if weight > 0 else "its weight is 0")


def _leave_unsaid(arms: Sequence[_Arm], words: QueryWords, looks: str) -> None:
    """Leaves out what a text says nothing of: its vector there would be noise.

    An aspect's weight goes to the visual arm, which sees the whole picture. A text that names no aspect by words of
    the vocabulary may still mean one: then all stay.
    """
    visual = next(arm for arm in arms if arm.name == "visual")
    for arm in arms:
        if arm.name in LOOKS_ARMS and not looks:
            arm.left_out = "the text names nothing that a picture shows"
        elif arm.name in ASPECTS and words.aspects and arm.name not in words.aspects:
            arm.left_out = f"the text says nothing of {arm.name}; its weight goes to visual"
            visual.weight += arm.weight
            arm.weight = 0.0
    if words.aspects and visual.weight:
        visual.weight += TOGETHER * (words.attributes - 1)


def _nothing_to_ask(arm: str, request: SearchRequest) -> str:
    if request.image_id is not None:
        return "the image has no vector of this kind"
    return "an uploaded image has no text" if arm in TEXT_ARMS else "there is nothing to ask"


def _own_vectors(
    connection: Connection, workspace_id: str, image_id: uuid.UUID, collections: Mapping[str, Collection]
) -> dict[str, Vectors]:
    found = {
        arm: vectors_of_images(connection, workspace_id, [image_id], collection).get(image_id)
        for arm, collection in collections.items()
    }
    own = {arm: vector for arm, vector in found.items() if vector is not None}
    if not own:
        raise PermanentError(
            f"workspace {workspace_id} has no embedded image {image_id}",
            hint="`embedding-assets search --json` shows the ids of images",
        )
    return own


def _candidates(
    connection: Connection, scope: Scope, asked: Sequence[ArmQuery], codes: Sequence[str], limit: int
) -> list[uuid.UUID]:
    near = nearest_by_arm(connection, scope, asked, limit) if asked else {}
    found = [image_id for hits in near.values() for image_id, _ in hits]
    return list(dict.fromkeys([*found, *holders_of_codes(connection, scope, codes, limit)]))


def _calibrated(
    arms: Sequence[_Arm], asked: Sequence[ArmQuery], table: ScoreTable, codes: Sequence[str], exact: bool
) -> tuple[list[ArmReport], fusion.Scores, list[float]]:
    """Reports of all arms, and calibrated scores (n, used arms) with the weights of those that were used."""
    columns: dict[str, fusion.Scores] = {}
    for number, query in enumerate(asked):
        arm = next(arm for arm in arms if arm.name == query.arm)
        cosines = table.cosines[:, number]
        if len(cosines) and np.isnan(cosines).all():
            arm.left_out = "no image in scope has a vector of this kind"
            continue
        columns[query.arm] = float(np.linalg.norm(query.vector)) * cosines - arm.offset
    how = {query.arm: "exact" if exact or query.index is None else "index" for query in asked}
    if codes:
        text_arm = next(arm for arm in arms if arm.name == "text")
        if "text" not in columns:
            how["text"] = "codes"
        columns["text"] = fusion.with_codes(columns.get("text"), table.codes, len(codes))
        text_arm.left_out = ""
    used = [arm for arm in arms if arm.name in columns]
    total = sum(arm.weight for arm in used)
    weights = {arm.name: arm.weight / total for arm in used}
    reports = [
        ArmReport(
            arm.name,
            arm.configured,
            weights.get(arm.name, 0.0),
            arm.left_out if arm.name not in columns else "",
            how.get(arm.name, "") if arm.name in columns else "",
            round(arm.encode_ms, 3),
        )
        for arm in arms
    ]
    scores = np.stack([columns[arm.name] for arm in used], axis=1) if used else np.empty((len(table.ids), 0))
    return reports, scores, [weights[arm.name] for arm in used]


class _Clock:
    """Milliseconds of each step."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = round(1000 * (now - self._last), 3)
        self._last = now

    def done(self) -> dict[str, float]:
        return {**self._laps, "total": round(1000 * (time.perf_counter() - self._start), 3)}
