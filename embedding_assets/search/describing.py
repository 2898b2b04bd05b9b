"""Ranked images become hits: what a person wants to see of each, near-duplicates folded where asked."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from pydantic import ValidationError
from sqlalchemy import Connection

from embedding_assets.analysis.schema import VisionAnalysis
from embedding_assets.analysis.to_text import analysis_to_text
from embedding_assets.keys import DocumentKey
from embedding_assets.search.fusion import fold_duplicates
from embedding_assets.search.result import Hit
from embedding_assets.search.scoring import Scored
from embedding_assets.store.search import describe_hits, vectors_of_images
from embedding_assets.store.spaces import Collection


@dataclass(frozen=True)
class Folding:
    """How near-duplicates are folded into the best of them.

    Attributes:
        times: how many times the wanted number of images is looked at.
        most_alike: cosine of two visual vectors above which two images are near-duplicates.
    """

    times: int = 5
    most_alike: float = 0.98


def describe(
    connection: Connection,
    workspace_id: str,
    scored: Scored,
    order: Sequence[int],
    codes: Sequence[str],
    top_k: int,
    folding: Folding | None,
    visual: Collection | None,
) -> list[Hit]:
    """The first `top_k` of the order as hits.

    Args:
        scored: the scored images.
        order: positions in it from best to worst.
        codes: codes that the query holds.
        folding: how near-duplicates are folded; None: they are not.
        visual: collection of visual vectors, which near-duplicates are told by.
    """
    wanted = top_k * (folding.times if folding else 1)
    ranked = iter(order)
    rows: dict[uuid.UUID, Any] = {}
    looked_at: list[int] = []
    while part := list(islice(ranked, wanted - len(looked_at))):
        rows |= describe_hits(connection, workspace_id, [scored.table.ids[n] for n in part])
        looked_at += [n for n in part if scored.table.ids[n] in rows]  # the others were removed a moment ago
    ids = [scored.table.ids[n] for n in looked_at]
    groups: list[tuple[int, list[int]]] = [(n, []) for n in range(len(ids))]
    if folding:
        vectors = vectors_of_images(connection, workspace_id, ids, visual) if visual else {}
        hashes = [rows[i].content_hash for i in ids]
        groups = fold_duplicates(range(len(ids)), hashes, [vectors.get(i) for i in ids], folding.most_alike)
    hits = []
    for place, folded in groups[:top_k]:
        position, row = looked_at[place], rows[ids[place]]
        own = dict(zip(scored.arms, scored.scores[position].tolist(), strict=True))
        hits.append(
            Hit(
                image_id=ids[place],
                score=float(scored.fused[position]),
                scores={arm: None if np.isnan(score) else score for arm, score in own.items()},
                document=DocumentKey(workspace_id, row.document_id),
                page_number=row.page_number,
                reference=row.reference,
                caption=row.caption,
                store_key=row.store_key,
                width=row.width,
                height=row.height,
                matched_text=_matched_text(row, own),
                matched_codes=tuple(code for code in codes if code in (row.codes or ())),
                duplicates=tuple(ids[n] for n in folded),
            )
        )
    return hits


def _matched_text(row: Any, scores: dict[str, float]) -> str | None:
    """What the image is found by in words: its analysis, unless its document's own words fit the query better."""
    nearby = row.nearby_text or row.caption
    analysed = _analysis_text(row.vision_analysis)
    understood, said = scores.get("understanding", -np.inf), scores.get("text", -np.inf)
    first, second = (analysed, nearby) if not said > understood else (nearby, analysed)
    return first or second


def _analysis_text(analysis: dict[str, Any] | None) -> str | None:
    if not analysis:
        return None
    try:
        return analysis_to_text(VisionAnalysis(**analysis)) or None
    except ValidationError:
        return None  # of another schema version; the stage `understanding` reports it
