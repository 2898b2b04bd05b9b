"""What the search page shows of an answer: hits with a bar an arm, and what became of every arm."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding_assets.search.profiles import AUTO
from embedding_assets.search.request import MAX_TOP_K, SearchRequest
from embedding_assets.search.result import ArmReport, Hit, SearchResult
from embedding_assets.store.browsing import DocumentSummary
from embedding_assets.web.labels import ARM_LABELS, PROFILE_LABELS, count

FIRST = 24
"""Images on the first page of hits; "more" shows as many again."""


@dataclass(frozen=True)
class SearchForm:
    """What the form holds.

    Attributes:
        q: text, "" for none.
        image_id: an image of the catalogue to search by.
        arm: the one arm that counts, "" for those of the profile.
        profile: name of a profile.
        document_id: only this document, "" for all.
        show: how many images.
    """

    q: str = ""
    image_id: uuid.UUID | None = None
    arm: str = ""
    profile: str = AUTO
    document_id: str = ""
    show: int = FIRST

    def request(self, workspace_id: str, image: bytes | None = None) -> SearchRequest:
        """The search that it asks for.

        Args:
            image: an uploaded file, which goes before `image_id`.
        """
        by_id = self.image_id if image is None else None
        return SearchRequest(
            workspace_id,
            text=self.q.strip() or None,
            image=image,
            image_id=by_id,
            document_id=self.document_id or None,
            profile=self.profile,
            weights={self.arm: 1.0} if self.arm and by_id else None,
            top_k=self.show,
        )

    def query(self, **changes: Any) -> dict[str, Any]:
        """It as the query of a link; what is as always is left out."""
        values = {
            "q": self.q,
            "image_id": self.image_id,
            "arm": self.arm,
            "profile": "" if self.profile == AUTO else self.profile,
            "document_id": self.document_id,
            "show": "" if self.show == FIRST else self.show,
        }
        return {**values, **changes}


@dataclass(frozen=True)
class ArmBar:
    """How one arm scores a hit. `share` is the length of the bar, 0 to 1; `most` marks what lifts the hit most."""

    label: str
    score: float | None
    share: float
    most: bool


@dataclass(frozen=True)
class HitView:
    """One hit."""

    image_id: uuid.UUID
    name: str
    score: float
    document: str
    document_path: str
    page_number: int | None
    width: int | None
    height: int | None
    arms: tuple[ArmBar, ...]
    codes: tuple[str, ...]


@dataclass(frozen=True)
class ArmView:
    """What became of an arm."""

    label: str
    weight: float
    left_out: str


@dataclass(frozen=True)
class AnswerView:
    """An answer. `more` is the address that shows more of it, "" where there is no more."""

    hits: tuple[HitView, ...]
    profile_label: str
    reason: str
    scored: str
    arms: tuple[ArmView, ...]
    left_out: int
    notes: tuple[str, ...]
    more: str = ""


def answer_view(
    result: SearchResult, documents: Mapping[str, DocumentSummary], form: SearchForm, more: str
) -> AnswerView:
    """What the page shows of a result.

    Args:
        documents: by document id, for their titles.
        more: address of the same search with more hits.
    """
    used = sorted((arm for arm in result.arms if arm.weight), key=lambda arm: -arm.weight)
    again = len(result.hits) == form.show and len(result.hits) < min(MAX_TOP_K, result.candidates)
    highest = max((score or 0.0 for hit in result.hits for score in hit.scores.values()), default=1.0)
    scored = f"{count(result.candidates)} images compared" + ("." if result.exact else ", found by index.")
    return AnswerView(
        hits=tuple(_hit(hit, used, documents, max(1.0, highest)) for hit in result.hits),
        profile_label="" if form.arm else PROFILE_LABELS.get(result.profile, result.profile),
        reason=f"By its {ARM_LABELS[form.arm]} alone" if form.arm else _sentence(result.profile_reason),
        scored=scored,
        arms=tuple(
            ArmView(ARM_LABELS[arm.arm], arm.weight, arm.left_out or ("" if arm.weight else "not asked"))
            for arm in result.arms
        ),
        left_out=sum(1 for arm in result.arms if arm.left_out),
        notes=result.notes,
        more=more if again else "",
    )


def _sentence(reason: str) -> str:
    return {"asked for": "as you chose", "the query is an image": reason}.get(reason, f"the text {reason}")


def _hit(hit: Hit, used: list[ArmReport], documents: Mapping[str, DocumentSummary], full: float) -> HitView:
    """`full` is the score that fills a bar: the same on the whole page, so that bars compare."""
    lifts = {arm.arm: arm.weight * (hit.scores.get(arm.arm) or 0.0) for arm in used}
    most = max(lifts, key=lambda arm: lifts[arm], default="")
    document_id = hit.document.document_id
    known = documents.get(document_id)
    bars = []
    for arm in used:
        score = hit.scores.get(arm.arm)
        share = 0.0 if score is None else max(0.0, score / full)
        bars.append(ArmBar(ARM_LABELS[arm.arm], score, share, arm.arm == most and len(used) > 1))
    return HitView(
        image_id=hit.image_id,
        name=hit.caption or hit.reference,
        score=hit.score,
        document=(known.title if known else None) or document_id,
        document_path=f"/documents/{document_id}",
        page_number=hit.page_number,
        width=hit.width,
        height=hit.height,
        arms=tuple(bars),
        codes=hit.matched_codes,
    )
