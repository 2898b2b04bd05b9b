"""What a search may ask for, checked before anything is done."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from embedding_assets.errors import PermanentError
from embedding_assets.keys import DocumentKey
from embedding_assets.search.arms import ARMS
from embedding_assets.search.profiles import AUTO, PROFILES
from embedding_assets.store.search_scope import Condition, Scope, parse_filters

MAX_QUERY_CHARACTERS = 2_000
MAX_TOP_K = 200
MAX_WEIGHT = 1_000_000

Fusion = Literal["convex", "rrf"]


@dataclass(frozen=True)
class SearchRequest:
    """One search. `checked()` refuses what can't be answered.

    Attributes:
        workspace_id: the workspace to search; nothing outside it is ever read.
        text: free text, up to 2,000 characters.
        image: bytes of an image file to search by.
        image_id: an image of the workspace to search by ("more like this"); it is not among the hits. Not both.
        document_id: only images of this document.
        first_page, last_page: only images of these pages, both included.
        filters: conditions on images, {"quality_score": {"$gte": 0.5}}; see `store.search_scope.parse_filters`.
        profile: "auto", or a name of `profiles.PROFILES`.
        weights: weight by arm, instead of a profile: not negative, at least one positive; arms left out have none.
        top_k: how many hits, 1 to 200.
        min_score: hits below this fused score are left out.
        fusion: "convex" adds calibrated scores, "rrf" adds reciprocal ranks (Cormack et al. 2009).
        diversity: whether near-duplicates are folded into the best of them.
    """

    workspace_id: str
    text: str | None = None
    image: bytes | None = field(default=None, repr=False)
    image_id: uuid.UUID | None = None
    document_id: str | None = None
    first_page: int | None = None
    last_page: int | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)
    profile: str = AUTO
    weights: Mapping[str, float] | None = None
    top_k: int = 10
    min_score: float | None = None
    fusion: Fusion = "convex"
    diversity: bool = False

    def checked(self) -> SearchRequest:
        """The request itself, or PermanentError that says what was expected and what came."""
        DocumentKey(self.workspace_id, self.document_id or "any")  # raises where a part is not valid
        self.query_text()
        if self.image is not None and self.image_id is not None:
            raise PermanentError("a search takes an image or an image_id, not both")
        if self.text is None and self.image is None and self.image_id is None:
            raise PermanentError("there is nothing to search for", hint="give a text, an image or both")
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise PermanentError(f"top_k is {self.top_k}; expected 1 to {MAX_TOP_K}")
        for name, page in (("first_page", self.first_page), ("last_page", self.last_page)):
            if page is not None and page < 1:
                raise PermanentError(f"{name} is {page}; pages count from 1")
        if self.first_page and self.last_page and self.first_page > self.last_page:
            raise PermanentError(f"pages {self.first_page} to {self.last_page} are no range")
        if self.profile not in (AUTO, *PROFILES):
            raise PermanentError(
                f"there is no profile {self.profile!r}", hint=f"expected {AUTO}, {', '.join(PROFILES)}"
            )
        if self.fusion not in get_args(Fusion):
            raise PermanentError(
                f"there is no fusion {self.fusion!r}; expected {' or '.join(get_args(Fusion))}"
            )
        if self.weights is not None:
            _check_weights(self.weights)
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise PermanentError(f"min_score is {self.min_score}; expected a finite number")
        parse_filters(self.filters)
        return self

    def query_text(self) -> str | None:
        """The text on one line without blanks around it; PermanentError where it is empty or too long."""
        if self.text is None:
            return None
        # What Postgres and tokenizers can't take (NUL, lone surrogates) means nothing in a query either.
        cleaned = self.text.replace("\0", " ").encode("utf-8", "replace").decode()
        query = re.sub(r"\s+", " ", cleaned).strip()
        if not query:
            raise PermanentError(
                "the query is empty", hint="say what to look for, such as 'blue herringbone'"
            )
        if len(query) > MAX_QUERY_CHARACTERS:
            raise PermanentError(
                f"the query has {len(query)} characters; {MAX_QUERY_CHARACTERS} is the limit"
            )
        return query

    def scope(self) -> Scope:
        """Which images may be found."""
        conditions: tuple[Condition, ...] = parse_filters(self.filters)
        return Scope(
            self.workspace_id,
            self.document_id,
            self.first_page,
            self.last_page,
            conditions,
            (self.image_id,) if self.image_id else (),
        )


def _check_weights(weights: Mapping[str, float]) -> None:
    unknown = sorted(set(weights) - set(ARMS))
    if unknown:
        raise PermanentError(
            f"there is no arm {', '.join(map(repr, unknown))}", hint=f"expected {', '.join(ARMS)}"
        )
    bad = [f"{arm}={weight}" for arm, weight in weights.items() if not 0 <= weight <= MAX_WEIGHT]
    if bad:
        raise PermanentError(f"weights have to be 0 to {MAX_WEIGHT:,}, got {', '.join(bad)}")
    if not any(weights.values()):
        raise PermanentError("all weights are 0: at least one arm has to count")
