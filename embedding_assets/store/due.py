"""Failures whose time has come (maintenance: over all workspaces, as one sensor looks after all)."""

from __future__ import annotations

from collections.abc import Sequence
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
        taken_at: when they were taken, by the database's clock.
    """

    key: DocumentKey
    stage: str
    failures: int
    attempts: int
    taken_at: datetime


_DUE = (
    "f.resolved_at IS NULL AND f.next_retry_at <= now() AND f.attempts < :most AND f.stage = ANY(:stages) "
    "AND f.error_class IN ('transient', 'throttled', 'too_large')"
)


def take_due(
    connection: Connection, stages: Sequence[str], *, most: int, limit: int, leave_for: timedelta
) -> list[DueDocument]:
    """Takes the documents whose failures are due, longest due first, and leaves these alone for a while.

    So that the next look does not take them again: by then their run has recorded what became of them, or has died.

    Args:
        stages: of these only.
        most: attempts of an image, over all runs, after which it is left to a person.
        limit: documents and stages, at most.
        leave_for: how long a taken failure is not due.
    """
    rows = connection.execute(
        text(
            "WITH due AS (SELECT workspace_id, document_id, stage FROM embedding_failures f "
            f"WHERE {_DUE} GROUP BY workspace_id, document_id, stage ORDER BY min(next_retry_at), 1, 2, 3 "
            "LIMIT :limit), taken AS (UPDATE embedding_failures f SET next_retry_at = now() + :leave FROM due "
            "WHERE f.workspace_id = due.workspace_id AND f.document_id = due.document_id AND f.stage = due.stage "
            f"AND {_DUE} RETURNING f.workspace_id, f.document_id, f.stage, f.attempts) "
            "SELECT workspace_id, document_id, stage, count(*), sum(attempts), now() FROM taken "
            "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ),
        {"stages": list(stages), "most": most, "limit": limit, "leave": leave_for},
    ).all()
    return [DueDocument(DocumentKey(row[0], row[1]), row[2], row[3], int(row[4]), row[5]) for row in rows]
