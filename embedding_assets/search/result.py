"""What a search answers with."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from embedding_assets.keys import DocumentKey


@dataclass(frozen=True)
class Hit:
    """One found image.

    Attributes:
        image_id: its id.
        score: the fused score. Of convex fusion: 0 is an image like any other, 1 as good as the best of most queries;
            neither is a bound.
        scores: calibrated score by arm, on the same scale; None where the image has no vector in an arm.
        document: its document.
        page_number, reference, caption, store_key, width, height: of its row.
        matched_text: the text by which it can be found: its analysis, or what its document says of it.
        matched_codes: codes of the query that its texts hold.
        duplicates: near-duplicates that were folded into it.
    """

    image_id: uuid.UUID
    score: float
    scores: dict[str, float | None]
    document: DocumentKey
    page_number: int | None
    reference: str
    caption: str | None
    store_key: str
    width: int | None = None
    height: int | None = None
    matched_text: str | None = None
    matched_codes: tuple[str, ...] = ()
    duplicates: tuple[uuid.UUID, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "image_id": str(self.image_id),
            "score": self.score,
            "scores": self.scores,
            "workspace_id": self.document.workspace_id,
            "document_id": self.document.document_id,
            "page_number": self.page_number,
            "reference": self.reference,
            "caption": self.caption,
            "store_key": self.store_key,
            "width": self.width,
            "height": self.height,
            "matched_text": self.matched_text,
            "matched_codes": list(self.matched_codes),
            "duplicates": [str(i) for i in self.duplicates],
        }


@dataclass(frozen=True)
class ArmReport:
    """What became of an arm in a search.

    Attributes:
        arm: its name.
        configured: its weight in the profile.
        weight: its weight in this search: 0 where it was left out, and the others' grow so that they sum to 1.
        left_out: why it was left out; "" where it was used.
        how: how its candidates were found: "exact", "index", "codes", or "" where it was left out.
        encode_ms: milliseconds that its query vector took, its calibration included; 0 where there was none.
    """

    arm: str
    configured: float
    weight: float
    left_out: str = ""
    how: str = ""
    encode_ms: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "arm": self.arm,
            "configured": self.configured,
            "weight": self.weight,
            "left_out": self.left_out,
            "how": self.how,
            "encode_ms": self.encode_ms,
        }


@dataclass(frozen=True)
class SearchResult:
    """The answer to one search.

    Attributes:
        hits: best first.
        profile: the profile that was used; "custom" where weights were given.
        profile_reason: why it was chosen.
        arms: every arm with its weight, and why it was left out.
        fusion: "convex" or "rrf".
        codes: codes of the query that were looked for exactly.
        candidates: images that were looked at.
        exact: whether every image in scope was scored, so that nothing is approximate.
        notes: what an operator should know, a calibration that was measured just now, say.
        timings_ms: milliseconds by step: plan, encode, candidates, scores, details, total.
    """

    hits: list[Hit]
    profile: str
    profile_reason: str
    arms: list[ArmReport]
    fusion: str
    codes: tuple[str, ...] = ()
    candidates: int = 0
    exact: bool = True
    notes: tuple[str, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "hits": [hit.as_dict() for hit in self.hits],
            "profile": self.profile,
            "profile_reason": self.profile_reason,
            "arms": [arm.as_dict() for arm in self.arms],
            "fusion": self.fusion,
            "codes": list(self.codes),
            "candidates": self.candidates,
            "exact": self.exact,
            "notes": list(self.notes),
            "timings_ms": self.timings_ms,
        }
