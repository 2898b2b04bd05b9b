"""What an image's page shows: its analysis as rows, and which vectors it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedding_assets.search.arms import COLLECTION_OF_ARM
from embedding_assets.store.browsing import ImageDetail
from embedding_assets.store.failures import OpenFailure
from embedding_assets.store.stages import stage_of
from embedding_assets.web.labels import ANALYSIS_LABELS, ARM_LABELS


@dataclass(frozen=True)
class AnalysisRow:
    """A field of the analysis. `color` is "#RRGGBB" where it is shown as a swatch too."""

    label: str
    value: str
    color: str = ""


@dataclass(frozen=True)
class VectorView:
    """One kind of vector: whether the image has it, and if not, why it never will."""

    label: str
    present: bool
    reason: str = ""


def analysis_rows(analysis: dict[str, Any] | None) -> list[AnalysisRow]:
    """The fields that are filled, in the order of `labels.ANALYSIS_LABELS`; others have no place in the table."""
    if not analysis:
        return []
    rows = []
    for name, label in ANALYSIS_LABELS.items():
        value = analysis.get(name)
        if value in (None, "", [], {}):
            continue
        rows.append(AnalysisRow(label, _words(value), str(value) if name == "primary_color_hex" else ""))
    return rows


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{str(name).replace('_', ' ')} {words}" for name, words in value.items())
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def vector_views(detail: ImageDetail, failures: Sequence[OpenFailure]) -> list[VectorView]:
    """The seven kinds of vectors, by arm."""
    failed = {failure.stage for failure in failures}
    views = []
    for arm, collection in COLLECTION_OF_ARM.items():
        stage = stage_of(collection)
        present = collection in detail.summary.vectors
        reason = "" if present else "failed" if stage in failed else detail.stage_skips.get(stage, "")
        views.append(VectorView(ARM_LABELS[arm], present, reason))
    return views
