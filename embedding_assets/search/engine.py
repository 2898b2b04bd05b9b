"""One search, from request to result.

    request -> choose arms and weights (`profiles`, `asking`)
            -> plan: what the database holds (`snapshot`), codes in the text, how many images are in scope
            -> query vectors; an arm that can't be asked is left out (`asking`)
            -> few images in scope: all of them are scored; many: candidates by index (`scoring`)
            -> ranked -> described (`describing`)

What belongs here: the order of the steps. What does not: each step, and SQL (`store.search`).
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Mapping

from sqlalchemy import Connection

from embedding_assets.encoders.protocol import Vectors
from embedding_assets.errors import PermanentError, SchemaError
from embedding_assets.search import fusion
from embedding_assets.search.arm_reader import ArmReader
from embedding_assets.search.asking import ask, choose
from embedding_assets.search.describing import Folding, describe
from embedding_assets.search.queries import QueryEncoder
from embedding_assets.search.request import SearchRequest
from embedding_assets.search.result import SearchResult
from embedding_assets.search.scoring import score_all, score_candidates
from embedding_assets.search.snapshot import SnapshotKeeper
from embedding_assets.store.calibrations import Calibration
from embedding_assets.store.database import Database
from embedding_assets.store.search import (
    begin_search,
    codes_in,
    count_scope,
    holders_of_codes,
    vectors_of_images,
)
from embedding_assets.store.spaces import Collection

MIN_CANDIDATES = 100
"""Nearest images asked of each arm's index, at least."""

MIN_EXACT = 1_000
"""As many images in scope are always scored exactly."""

SPARE = 1.1
"""Vectors walked beyond those that are needed on average: images of a workspace lie together."""

MOST_AT_ONCE = 2
"""Times the candidates that a walk has in sight at most: with 4, the small workspace of benchmarks/search_speed.py was
slower than with 2."""


def exact_up_to(candidates: int, vectors: int) -> int:
    """Images in scope up to which scoring them all is cheaper than walking indexes under a filter.

    Scoring all touches n images an arm; an index under a filter that n of N vectors pass is walked by some k N / n
    vectors until k fit. The two are equal at n = sqrt(k N).
    """
    return max(MIN_EXACT, math.isqrt(candidates * vectors))


def ef_search(candidates: int, share: float | None) -> int:
    """Vectors that the walk of an index keeps in sight, so that `candidates` of them are of the workspace.

    With fewer, pgvector has to take the walk up again, which costs more than to walk on. Of a workspace that is a small
    part of the collection, it is taken up again all the same.

    Args:
        share: part of all images that is the workspace's; None: not known.
    """
    if share is None or not 0 < share < 1:
        return candidates
    return max(candidates, min(math.ceil(SPARE * candidates / share), MOST_AT_ONCE * candidates))


class SearchEngine:
    """Searches the images of a workspace by text, by image, or both. Safe to share between threads.

        engine = SearchEngine(database, queries)
        result = engine.search(SearchRequest("shop", text="matte grey porcelain R11"))

    Args:
        database: where rows and vectors are.
        queries: what embeds queries; a model or provider that did not make an arm's vectors leaves that arm out.
        candidates: nearest images asked of each arm's index, at least 100.
        timeout_s: seconds that one statement may take.
        connections: connections that one search uses at once while no other one is running.
    """

    def __init__(
        self,
        database: Database,
        queries: QueryEncoder,
        *,
        candidates: int = MIN_CANDIDATES,
        timeout_s: float = 10.0,
        connections: int = 2,
    ) -> None:
        if candidates < MIN_CANDIDATES:
            raise ValueError(f"a search takes at least {MIN_CANDIDATES} candidates an arm, got {candidates}")
        self.database = database
        self.queries = queries
        self.candidates = candidates
        self.timeout_s = timeout_s
        self._keeper = SnapshotKeeper(database, queries)
        self._reader = ArmReader(database, connections, timeout_s)

    def search(self, request: SearchRequest) -> SearchResult:
        """Finds images.

        Raises:
            PermanentError: the request can't be answered as it is, or no arm is left that could be asked; the message
                says what was expected.
            ImageRejected: the image can't be decoded.
            StoreUnavailable: the database is gone, or a statement took too long.
        """
        request.checked()
        try:
            return self._search(request)
        except SchemaError:  # a collection that the snapshot knows has been dropped meanwhile
            self._keeper.forget()
            return self._search(request)

    def _search(self, request: SearchRequest) -> SearchResult:
        clock = _Clock()
        text, scope = request.query_text(), request.scope()
        folding = Folding() if request.diversity else None
        wanted = request.top_k * (folding.times if folding else 1)
        limit = max(self.candidates, wanted) + len(scope.without)
        choice = choose(request)
        own: dict[str, Vectors] = {}
        with self.database.transaction() as connection:
            begin_search(connection, self.timeout_s, limit)
            snapshot = self._keeper.get(connection)
            # Codes need no vectors: they count for the text arm even where it has none to compare.
            codes = codes_in(connection, text) if text and choice.arm("text").weight else []
            most = exact_up_to(limit, snapshot.largest)
            exact = count_scope(connection, scope, most) <= most
            holders = [] if exact else holders_of_codes(connection, scope, codes, limit)
            if request.image_id is not None:
                own = _own_vectors(connection, request.workspace_id, request.image_id, snapshot.collections)
        clock.lap("plan")
        notes = ask(request, choice, snapshot, own, self.queries, self._keeper)
        if not choice.asked and not codes:
            raise choice.refuse()
        clock.lap("encode")
        if exact:
            scored = score_all(self._reader, scope, choice, codes, request.fusion)
        else:
            share = snapshot.shares.get(request.workspace_id)
            near = self._reader.nearest(
                scope, [a.query for a in choice.asked if a.query], limit, ef_search(limit, share)
            )
            clock.lap("candidates")
            scored = score_candidates(
                self._reader, scope, choice, codes, request.fusion, near, holders, wanted
            )
        clock.lap("scores")
        order = [n for n in fusion.ranking(scored.fused, scored.table.ids) if scored.answering[n]]
        if request.min_score is not None:
            order = [n for n in order if scored.fused[n] >= request.min_score]
        with self.database.transaction() as connection:
            begin_search(connection, self.timeout_s, limit)
            visual = snapshot.collections.get("visual")
            hits = describe(
                connection, request.workspace_id, scored, order, codes, request.top_k, folding, visual
            )
        clock.lap("details")
        return SearchResult(
            hits=hits,
            profile=choice.profile,
            profile_reason=choice.reason,
            arms=scored.reports,
            fusion=request.fusion,
            codes=tuple(codes),
            candidates=scored.candidates,
            exact=exact,
            notes=tuple(notes),
            timings_ms=clock.done(),
        )

    def calibrate(self) -> list[tuple[str, Calibration]]:
        """Measures how high scores are in every arm; see `SnapshotKeeper.calibrate`."""
        return self._keeper.calibrate()


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
