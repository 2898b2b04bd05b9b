"""What the coverage page shows: sums, stages with their speed, history, and documents page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from embedding_assets.pipeline.asset_stages import AssetStage
from embedding_assets.pipeline.coverage_report import images_per_hour, time_left
from embedding_assets.store.browsing import DocumentSummary
from embedding_assets.store.coverage_history import CoverageRecord
from embedding_assets.store.coverage_totals import CoverageTotal
from embedding_assets.store.documents import Coverage
from embedding_assets.web.bars import StageView, stage_view
from embedding_assets.web.labels import SOURCE_LABELS, STAGE_LABELS, count, duration, percent

DOCUMENTS = 50
"""Documents on a page."""


@dataclass(frozen=True)
class Totals:
    """Sums of a workspace. A document is complete when every stage is; images are those of the visual vectors."""

    documents: int
    complete: int
    images: int
    embedded: int
    missing: int
    rejected: int
    left_out: int


@dataclass(frozen=True)
class DocumentView:
    """A row of the table of documents."""

    document_id: str
    path: str
    title: str
    about: str
    images: int
    stages: tuple[StageView, ...]
    state: str
    state_kind: str
    failed: int


class Workspace:
    """Coverage of a workspace's documents.

    Args:
        by_stage: stage -> coverage of each document, as `coverage_by_stage` gives it.
        minimum: coverage that a document needs to be complete, 0 to 1.
    """

    def __init__(self, by_stage: dict[str, list[Coverage]], minimum: float) -> None:
        self.minimum = minimum
        self.documents: list[dict[str, Coverage]] = [
            dict(zip(by_stage, rows, strict=True)) for rows in zip(*by_stage.values(), strict=True)
        ]

    def is_complete(self, stages: dict[str, Coverage]) -> bool:
        """Whether every stage of a document is complete."""
        return all(coverage.is_complete(self.minimum) for coverage in stages.values())

    def totals(self) -> Totals:
        """Sums over all documents."""
        visual = [next(iter(stages.values())) for stages in self.documents]
        return Totals(
            documents=len(visual),
            complete=sum(self.is_complete(stages) for stages in self.documents),
            images=sum(row.total for row in visual),
            embedded=sum(row.embedded for row in visual),
            missing=sum(row.missing for row in visual),
            rejected=sum(row.rejected for row in visual),
            left_out=sum(row.skipped for row in visual),
        )

    def with_failures(self) -> int:
        """Documents in which an image failed for good."""
        return sum(_failed(stages) > 0 for stages in self.documents)

    def pick(self, only: str, after: str) -> tuple[list[dict[str, Coverage]], str]:
        """Documents of one page, and the key that the next page begins after ("" where there is none).

        Args:
            only: "incomplete", "failed", or "" for all.
            after: document id that the page before ended with.
        """
        wanted = [
            stages
            for stages in self.documents
            if _document_id(stages) > after
            and not (only == "incomplete" and self.is_complete(stages))
            and not (only == "failed" and not _failed(stages))
        ]
        shown = wanted[:DOCUMENTS]
        return shown, _document_id(shown[-1]) if len(wanted) > DOCUMENTS else ""


def _document_id(stages: dict[str, Coverage]) -> str:
    return next(iter(stages.values())).key.document_id


def _failed(stages: dict[str, Coverage]) -> int:
    return max(coverage.rejected for coverage in stages.values())


def document_view(
    stages: dict[str, Coverage], known: DocumentSummary | None, minimum: float, complete: bool
) -> DocumentView:
    """A document's row."""
    first = next(iter(stages.values()))
    kind, state = "ok", "complete"
    if not first.ingested:
        kind, state = "warn", "not read" if known is None or known.status != "failed" else "can't be read"
    elif any(row.missing for row in stages.values()):
        kind, state = "warn", f"{count(max(row.missing for row in stages.values()))} to do"
    elif not complete:
        kind, state = "bad", f"below {percent(minimum)}"
    document_id = first.key.document_id
    return DocumentView(
        document_id=document_id,
        path=f"/documents/{document_id}",
        title=(known.title if known else None) or document_id,
        about=about(known),
        images=first.total,
        stages=tuple(stage_view(name, coverage) for name, coverage in stages.items()),
        state=state,
        state_kind=kind,
        failed=_failed(stages),
    )


def about(known: DocumentSummary | None) -> str:
    """A document's kind and length in words."""
    if known is None:
        return ""
    kind = SOURCE_LABELS.get(known.source_kind, known.source_kind)
    if not known.page_count:
        return kind
    return f"{kind}, {count(known.page_count)} {'page' if known.page_count == 1 else 'pages'}"


def stage_totals(
    stages: Sequence[AssetStage],
    totals: dict[str, CoverageTotal],
    history: dict[str, list[tuple[datetime, CoverageTotal]]],
) -> list[StageView]:
    """One bar a stage, with its speed of late and the time that what is missing takes."""
    now = datetime.now(timezone.utc)
    views = []
    for stage in stages:
        total = totals[stage.name]
        recorded = [(when, sums.embedded) for when, sums in history.get(stage.name, [])]
        speed = images_per_hour([*recorded, (now, total.embedded)])
        left = time_left(total.missing, speed)
        words = f"{count(round(speed))} images/h" if speed else ""
        if total.missing and left is not None:
            words += f", {duration(left)} left"
        views.append(stage_view(stage.name, total, words))
    return views


def by_stage(
    records: Sequence[CoverageRecord], stages: Sequence[AssetStage]
) -> dict[str, list[tuple[datetime, CoverageTotal]]]:
    """History of each stage in use, oldest first, under the stage's name."""
    found: dict[str, list[tuple[datetime, CoverageTotal]]] = {stage.name: [] for stage in stages}
    for record in records:
        if record.stage in found:
            found[record.stage].append((record.taken_at, record.total))
    return {name: points for name, points in found.items() if points}


def labelled(
    history: dict[str, list[tuple[datetime, CoverageTotal]]],
) -> dict[str, list[tuple[datetime, CoverageTotal]]]:
    """The same under the stages' labels."""
    return {STAGE_LABELS.get(name, name): points for name, points in history.items()}
