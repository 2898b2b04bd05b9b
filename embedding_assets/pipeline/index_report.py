"""What was done about the indexes of each collection, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from embedding_assets.store.index_recall import Recall
from embedding_assets.store.indexes import Kind


class Action(str, Enum):
    """What was done about an index."""

    BUILT = "built"
    REBUILT = "rebuilt"
    KEPT = "kept"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class IndexOutcome:
    """One index after the run.

    Attributes:
        name: None where there is none that queries can use.
        reason: why it was skipped, rebuilt, or kept though the settings ask for another one; else empty.
        size_bytes: on disk.
        seconds: that this run took to build it.
        notes: what an operator should know of the build.
    """

    action: Action
    name: str | None = None
    reason: str = ""
    size_bytes: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class IndexReport:
    """The indexes of one collection after the run.

    Attributes:
        rows: vectors, counted.
        kind: what the vector index holds; None where there is none.
        recall: recall@10 of the vector index; None where there is none, or it could not be measured.
    """

    logical_name: str
    table: str
    dimension: int
    rows: int
    kind: Kind | None
    vector: IndexOutcome
    metadata: IndexOutcome
    recall: Recall | None

    @property
    def remarks(self) -> str:
        """The reasons and notes in one line."""
        said = [self.vector.reason, *self.vector.notes]
        for remark in (self.metadata.reason, *self.metadata.notes):
            if remark and remark not in said:
                said.append(f"metadata index: {remark}")
        return "; ".join(filter(None, said))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def index_table(reports: Sequence[IndexReport]) -> list[dict[str, Any]]:
    """One row a collection, for people; the first row's keys are the columns."""
    return [
        {
            "collection": report.table,
            "rows": report.rows,
            "action": report.vector.action.value,
            "index": report.vector.name or "",
            "MiB": round(report.vector.size_bytes / 2**20, 1) if report.vector.name else "",
            "built in s": round(report.vector.seconds, 1) if report.vector.seconds else "",
            "recall@10": round(report.recall.value, 4) if report.recall else "",
            "metadata index": report.metadata.action.value,
            "remarks": report.remarks,
        }
        for report in reports
    ]
