"""Coverage of whole workspaces: sums, and the documents that are not complete, picked out by the database.

Handing every document over one by one takes a program with many objects in memory seconds at 100,000 documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, text

from embedding_assets.store.documents import (
    Coverage,
    coverage_parameters,
    coverage_sql,
    read_coverage_rows,
)
from embedding_assets.store.stages import CountedStage


@dataclass(frozen=True)
class CoverageTotal:
    """Coverage summed over documents: how many there are and are complete, and counts of their images."""

    documents: int = 0
    complete: int = 0
    images: int = 0
    embedded: int = 0
    skipped: int = 0
    rejected: int = 0
    missing: int = 0

    @property
    def ratio(self) -> float:
        """Embedded / (images - skipped); 1 where there is nothing to embed."""
        wanted = self.images - self.skipped
        return self.embedded / wanted if wanted else 1.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {**asdict(self), "coverage": round(self.ratio, 6)}

    def __add__(self, other: CoverageTotal) -> CoverageTotal:
        return CoverageTotal(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


def coverage_totals(
    connection: Connection,
    workspace_id: str,
    stages: Sequence[CountedStage],
    minimum: float,
    document_ids: Sequence[str] | None = None,
) -> dict[str, CoverageTotal]:
    """Sums of a workspace's documents, for each stage by name.

    Args:
        minimum: coverage that a document needs to be complete, 0 to 1.
        document_ids: only these documents; None for all.
    """
    counts = []
    for n in range(len(stages)):
        done = f"(total - skipped_{n} - rejected_{n} - missing_{n})"
        sums = ("total", done, f"skipped_{n}", f"rejected_{n}", f"missing_{n}")
        counts += [
            "count(*)",
            f"count(*) FILTER (WHERE {_complete(n)})",
            *(f"coalesce(sum({what}), 0)::bigint" for what in sums),
        ]
    parameters = {**coverage_parameters(workspace_id, stages), "minimum": minimum}
    if document_ids is not None:
        parameters["documents"] = list(document_ids)
    row = connection.execute(
        text(f"SELECT {', '.join(counts)} FROM ({coverage_sql(stages, document_ids is not None)}) c"),
        parameters,
    ).one()
    return {stage.name: CoverageTotal(*row[7 * n : 7 * n + 7]) for n, stage in enumerate(stages)}


def incomplete_documents(
    connection: Connection, workspace_id: str, stages: Sequence[CountedStage], minimum: float
) -> dict[str, list[Coverage]]:
    """Coverage at each stage of those documents that are not complete at some stage, sorted by document id."""
    complete = " AND ".join(_complete(n) for n in range(len(stages)))
    rows = connection.execute(
        text(f"SELECT * FROM ({coverage_sql(stages)}) c WHERE NOT ({complete}) ORDER BY document_id"),
        {**coverage_parameters(workspace_id, stages), "minimum": minimum},
    ).all()
    return read_coverage_rows(workspace_id, stages, rows)


def _complete(n: int) -> str:
    """`Coverage.is_complete` as SQL over the columns of stage number `n`, with the same arithmetic."""
    wanted = f"(total - skipped_{n})"
    embedded = f"({wanted} - rejected_{n} - missing_{n})"
    return (
        f"(ingested AND missing_{n} = 0 AND "
        f"({wanted} = 0 AND 1 >= CAST(:minimum AS float8) "
        f"OR {embedded}::float8 / nullif({wanted}, 0) >= CAST(:minimum AS float8)))"
    )
