"""Rows of documents, and coverage counted from the rows of their images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey
from embedding_assets.store.json_text import clean_text, to_json
from embedding_assets.store.stages import CountedStage, blamed_stages, excused_by


@dataclass(frozen=True)
class DocumentRow:
    """A document as the database knows it."""

    key: DocumentKey
    source_kind: str
    source_uri: str | None
    posted_images: list[dict[str, Any]] | None
    content_hash: str | None
    title: str | None
    page_count: int | None
    status: str


class _Stage(NamedTuple):
    """A stage by its name and flag alone."""

    name: str
    flag: str


@dataclass(frozen=True)
class Coverage:
    """How far one document is at one stage.

    `total` = embedded + skipped + rejected + missing. All are counts of images.

    Attributes:
        embedded: images with a vector in the active space.
        skipped: images left out for a stated reason.
        rejected: images with a permanent failure.
        missing: images still to do: not tried yet, not fetched yet, or failed for a passing reason.
        ingested: whether the rows stand for the document's latest content; without it, nothing is complete.
    """

    key: DocumentKey
    total: int
    embedded: int
    skipped: int
    rejected: int
    missing: int
    ingested: bool = True

    @property
    def ratio(self) -> float:
        """Embedded / (total - skipped); 1 where there is nothing to embed."""
        wanted = self.total - self.skipped
        return self.embedded / wanted if wanted else 1.0

    def is_complete(self, minimum: float) -> bool:
        """Whether it is ingested, nothing is missing and the coverage is at least `minimum` (0 to 1)."""
        return self.ingested and self.missing == 0 and self.ratio >= minimum


def _where(key: DocumentKey) -> dict[str, str]:
    return {"workspace": key.workspace_id, "document": key.document_id}


def register_document(
    connection: Connection,
    key: DocumentKey,
    source_kind: str,
    source_uri: str | None = None,
    posted_images: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Makes the document's row, or brings its source up to date; never touches its images."""
    connection.execute(
        text(
            "INSERT INTO documents AS d (workspace_id, document_id, source_kind, source_uri, posted_images) "
            "VALUES (:workspace, :document, :kind, :uri, CAST(:posted AS jsonb)) "
            "ON CONFLICT (workspace_id, document_id) DO UPDATE SET source_kind = excluded.source_kind, "
            "  source_uri = excluded.source_uri, posted_images = excluded.posted_images, updated_at = now() "
            "WHERE (d.source_kind, d.source_uri, d.posted_images) "
            "  IS DISTINCT FROM (excluded.source_kind, excluded.source_uri, excluded.posted_images)"
        ),
        {
            **_where(key),
            "kind": source_kind,
            "uri": None if source_uri is None else clean_text(source_uri),
            "posted": None if posted_images is None else to_json(list(posted_images)),
        },
    )


def get_document(connection: Connection, key: DocumentKey) -> DocumentRow | None:
    """The document's row; None where it is not registered."""
    row = connection.execute(
        text("SELECT * FROM documents WHERE workspace_id = :workspace AND document_id = :document"),
        _where(key),
    ).first()
    if row is None:
        return None
    return DocumentRow(
        key,
        row.source_kind,
        row.source_uri,
        row.posted_images,
        row.content_hash,
        row.title,
        row.page_count,
        row.status,
    )


def list_documents(connection: Connection, workspace_id: str) -> list[DocumentKey]:
    """Keys of a workspace's documents, sorted."""
    rows = connection.execute(
        text("SELECT document_id FROM documents WHERE workspace_id = :workspace ORDER BY document_id"),
        {"workspace": workspace_id},
    ).scalars()
    return [DocumentKey(workspace_id, document_id) for document_id in rows]


def list_workspaces(connection: Connection) -> list[str]:
    """All workspaces that have documents (maintenance: not scoped to a workspace)."""
    return list(
        connection.execute(
            text("SELECT DISTINCT workspace_id FROM documents ORDER BY workspace_id")
        ).scalars()
    )


def settled_documents(
    connection: Connection, workspace_id: str, unchanged_for: timedelta
) -> list[DocumentKey]:
    """Keys of ingested documents of which no row was changed in that time, sorted."""
    rows = connection.execute(
        text(
            "SELECT d.document_id FROM documents d WHERE d.workspace_id = :workspace AND d.status = 'ingested' "
            "AND d.updated_at < now() - CAST(:age AS interval) AND NOT EXISTS ("
            "  SELECT FROM document_images i WHERE i.workspace_id = d.workspace_id "
            "  AND i.document_id = d.document_id AND i.updated_at >= now() - CAST(:age AS interval)) "
            "ORDER BY d.document_id"
        ),
        {"workspace": workspace_id, "age": unchanged_for},
    ).scalars()
    return [DocumentKey(workspace_id, document_id) for document_id in rows]


def mark_ingested(
    connection: Connection, key: DocumentKey, content_hash: str, title: str | None, page_count: int | None
) -> None:
    """Says that the image rows stand for this content."""
    connection.execute(
        text(
            "UPDATE documents SET status = 'ingested', content_hash = :hash, title = :title, "
            "page_count = :pages, ingested_at = now(), updated_at = now() "
            "WHERE workspace_id = :workspace AND document_id = :document"
        ),
        {
            **_where(key),
            "hash": content_hash,
            "title": None if title is None else clean_text(title),
            "pages": page_count,
        },
    )


def mark_failed(connection: Connection, key: DocumentKey) -> None:
    """Says that the document could not be read. Rows and vectors of an earlier reading stay."""
    connection.execute(
        text(
            "UPDATE documents SET status = 'failed', content_hash = NULL, updated_at = now() "
            "WHERE workspace_id = :workspace AND document_id = :document"
        ),
        _where(key),
    )


def coverage_sql(stages: Sequence[CountedStage], some: bool = False) -> str:
    """SELECT of document_id, ingested, total, and skipped_n, rejected_n, missing_n for stage number n.

    It counts each document's images, and apart from that only those which some stage has not done: where most is
    done, most images are counted in an index and never looked at.

    Args:
        some: only documents of the parameter `documents`.
    """
    counts = []
    for n, stage in enumerate(stages):
        todo = f"(i.status = 'ready' AND NOT i.{stage.flag})"
        excused = f"({excused_by(stage.name)})"
        left_out = f"jsonb_exists(i.stage_skips, :stage_{n})"
        blamed = f"coalesce(f.stages && CAST(:blamed_{n} AS text[]), false)"
        counts += [
            f"count(*) FILTER (WHERE i.status = 'skipped' OR {excused} OR ({todo} AND {left_out})) AS skipped_{n}",
            f"count(*) FILTER (WHERE i.status = 'rejected' AND NOT {excused} "
            f"OR ({todo} AND NOT {left_out} AND {blamed})) AS rejected_{n}",
            f"count(*) FILTER (WHERE i.status = 'pending' AND NOT {excused} "
            f"OR ({todo} AND NOT {left_out} AND NOT {blamed})) AS missing_{n}",
        ]

    def scope(alias: str) -> str:
        documents = f" AND {alias}.document_id = ANY(:documents)" if some else ""
        return f"{alias}.workspace_id = :workspace{documents}"

    names = [f"{what}_{n}" for n in range(len(stages)) for what in ("skipped", "rejected", "missing")]
    return f"""
WITH totals AS (
    SELECT document_id, count(*) AS total FROM document_images i
    WHERE {scope("i")} GROUP BY document_id
), blamed AS (
    SELECT image_id, array_agg(stage) AS stages FROM embedding_failures e
    WHERE {scope("e")} AND resolved_at IS NULL AND error_class = 'permanent' AND image_id IS NOT NULL
    GROUP BY image_id
), open AS (
    SELECT i.document_id, {", ".join(counts)} FROM document_images i LEFT JOIN blamed f ON f.image_id = i.id
    WHERE {scope("i")} AND (i.status <> 'ready' OR NOT ({" AND ".join(f"i.{stage.flag}" for stage in stages)}))
    GROUP BY i.document_id
)
SELECT d.document_id, d.status = 'ingested' AS ingested, coalesce(t.total, 0) AS total,
    {", ".join(f"coalesce(o.{name}, 0) AS {name}" for name in names)}
FROM documents d LEFT JOIN totals t USING (document_id) LEFT JOIN open o USING (document_id)
WHERE {scope("d")}
"""


def coverage_parameters(workspace_id: str, stages: Sequence[CountedStage]) -> dict[str, Any]:
    """The parameters of `coverage_sql`."""
    parameters: dict[str, Any] = {"workspace": workspace_id}
    for n, stage in enumerate(stages):
        parameters |= {f"stage_{n}": stage.name, f"blamed_{n}": blamed_stages(stage.name)}
    return parameters


def read_coverage_rows(
    workspace_id: str, stages: Sequence[CountedStage], rows: Iterable[Sequence[Any]]
) -> dict[str, list[Coverage]]:
    """What rows of `coverage_sql` say, for each stage by name."""
    found: dict[str, list[Coverage]] = {stage.name: [] for stage in stages}
    for document_id, ingested, total, *counts in rows:
        key = DocumentKey(workspace_id, document_id)
        for n, coverages in enumerate(found.values()):
            skipped, rejected, missing = counts[3 * n : 3 * n + 3]
            embedded = total - skipped - rejected - missing
            coverages.append(Coverage(key, total, embedded, skipped, rejected, missing, ingested))
    return found


def coverage_by_stage(
    connection: Connection,
    workspace_id: str,
    stages: Sequence[CountedStage],
    document_ids: Sequence[str] | None = None,
) -> dict[str, list[Coverage]]:
    """Coverage of a workspace's documents at several stages, counted in one statement.

    Args:
        stages: at least one.
        document_ids: only these documents; None for all. Unknown ones are left out.

    Returns:
        For each stage, by name, one `Coverage` a document, sorted by document id.
    """
    parameters = coverage_parameters(workspace_id, stages)
    if document_ids is not None:
        parameters["documents"] = list(document_ids)
    statement = f"{coverage_sql(stages, document_ids is not None)} ORDER BY d.document_id"
    return read_coverage_rows(workspace_id, stages, connection.execute(text(statement), parameters))


def coverage_of_workspace(
    connection: Connection, workspace_id: str, flag: str, stage: str, document_id: str | None = None
) -> list[Coverage]:
    """Coverage of each document of a workspace, counted from image rows and open failures.

    Args:
        flag: column of document_images that says that the stage has done an image.
        stage: the stage of the failure records that count as rejections.
        document_id: only this document.
    """
    only = None if document_id is None else [document_id]
    return coverage_by_stage(connection, workspace_id, [_Stage(stage, flag)], only)[stage]


def coverage_of_document(connection: Connection, key: DocumentKey, flag: str, stage: str) -> Coverage:
    """Coverage of one document; all zero, and not ingested, where it is not registered."""
    rows = coverage_of_workspace(connection, key.workspace_id, flag, stage, key.document_id)
    return rows[0] if rows else Coverage(key, 0, 0, 0, 0, 0, ingested=False)


def coverage_of_documents(
    connection: Connection, keys: Sequence[DocumentKey], stage: CountedStage
) -> list[Coverage]:
    """Coverage of documents of any workspaces at one stage, in the order of `keys`; see `coverage_of_document`."""
    by_workspace: dict[str, list[str]] = {}
    for key in keys:
        by_workspace.setdefault(key.workspace_id, []).append(key.document_id)
    found = {
        coverage.key: coverage
        for workspace_id, documents in by_workspace.items()
        for coverage in coverage_by_stage(connection, workspace_id, [stage], documents)[stage.name]
    }
    return [found.get(key) or Coverage(key, 0, 0, 0, 0, 0, ingested=False) for key in keys]
