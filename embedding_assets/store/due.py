"""Failures whose time has come (maintenance: over all workspaces, as one sensor looks after all)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey


@dataclass(frozen=True)
class DueDocument:
    """A document with failures of one stage that may pass, and are to be tried again now.

    Attributes:
        failures: how many.
        attempts: of all of them together, so far.
        last_seen_at: when the latest of them was seen.
    """

    key: DocumentKey
    stage: str
    failures: int
    attempts: int
    last_seen_at: datetime


_DUE = (
    "resolved_at IS NULL AND next_retry_at <= now() AND attempts < :most "
    "AND error_class IN ('transient', 'throttled', 'too_large')"
)


def take_due(connection: Connection, *, most: int, limit: int, leave_for: timedelta) -> list[DueDocument]:
    """Takes the documents whose failures are due, longest due first, and leaves these alone for a while.

    So that the next look does not take them again: by then their run has recorded what became of them, or has died.

    Args:
        most: attempts of an image, over all runs, after which it is left to a person.
        limit: documents and stages, at most.
        leave_for: how long a taken failure is not due.
    """
    rows = connection.execute(
        text(
            "WITH due AS (SELECT workspace_id, document_id, stage FROM embedding_failures "
            f"WHERE {_DUE} GROUP BY workspace_id, document_id, stage ORDER BY min(next_retry_at), 1, 2, 3 "
            "LIMIT :limit), taken AS (UPDATE embedding_failures f SET next_retry_at = now() + :leave FROM due "
            "WHERE f.workspace_id = due.workspace_id AND f.document_id = due.document_id AND f.stage = due.stage "
            f"AND {_DUE} RETURNING f.workspace_id, f.document_id, f.stage, f.attempts, f.last_seen_at) "
            "SELECT workspace_id, document_id, stage, count(*), sum(attempts), max(last_seen_at) FROM taken "
            "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ),
        {"most": most, "limit": limit, "leave": leave_for},
    ).all()
    return [DueDocument(DocumentKey(row[0], row[1]), row[2], row[3], int(row[4]), row[5]) for row in rows]


def due_stages(connection: Connection, *, most: int) -> dict[str, int]:
    """How many failures are due, by stage."""
    rows = connection.execute(
        text(f"SELECT stage, count(*) FROM embedding_failures WHERE {_DUE} GROUP BY stage"), {"most": most}
    ).all()
    return {row[0]: row[1] for row in rows}
