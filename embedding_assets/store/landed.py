"""What the landing folder was last seen to hold (maintenance: one folder holds all workspaces)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey

CHUNK = 5_000
"""Rows written in one statement."""


@dataclass(frozen=True)
class LandedRow:
    """What is known of a landed document; see `models.LandedDocument`.

    Attributes:
        seen_at: when its fingerprint became what it is, in seconds since 1970.
        age_s: seconds since then, by the database's clock.
        missing_s: seconds since it was first not found any more; None where it is there.
    """

    fingerprint: str
    seen_at: float
    age_s: float
    handled: str | None
    content_hash: str | None
    run_key: str | None
    missing_s: float | None


@dataclass(frozen=True)
class Seen:
    """A document whose fingerprint is new."""

    key: DocumentKey
    kind: str
    uri: str
    fingerprint: str


@dataclass(frozen=True)
class Handled:
    """A document whose content was read: with the run that is requested for it, or none where none is needed."""

    key: DocumentKey
    fingerprint: str
    content_hash: str
    run_key: str | None


def read_landed(connection: Connection) -> dict[DocumentKey, LandedRow]:
    """All rows, by document."""
    rows = connection.execute(
        text(
            "SELECT workspace_id, document_id, fingerprint, extract(epoch FROM seen_at)::float8, "
            "extract(epoch FROM now() - seen_at)::float8, "
            "handled, content_hash, run_key, extract(epoch FROM now() - missing_since)::float8 "
            "FROM landed_documents"
        )
    )
    return {DocumentKey(row[0], row[1]): LandedRow(*row[2:]) for row in rows}


def save_seen(connection: Connection, seen: Sequence[Seen]) -> None:
    """Remembers new fingerprints: they begin to age now."""
    for chunk in _chunks(seen):
        connection.execute(
            text(
                "INSERT INTO landed_documents AS l (workspace_id, document_id, kind, uri, fingerprint) "
                "SELECT * FROM unnest(CAST(:workspaces AS text[]), CAST(:documents AS text[]), "
                "CAST(:kinds AS text[]), CAST(:uris AS text[]), CAST(:fingerprints AS text[])) ORDER BY 1, 2 "
                "ON CONFLICT (workspace_id, document_id) DO UPDATE SET kind = excluded.kind, uri = excluded.uri, "
                "fingerprint = excluded.fingerprint, seen_at = now(), missing_since = NULL"
            ),
            {
                **_keys(item.key for item in chunk),
                "kinds": [item.kind for item in chunk],
                "uris": [item.uri for item in chunk],
                "fingerprints": [item.fingerprint for item in chunk],
            },
        )


def mark_handled(connection: Connection, handled: Sequence[Handled]) -> None:
    """Says that the content behind these fingerprints was read and, where a run is needed, requested."""
    for chunk in _chunks(handled):
        connection.execute(
            text(
                "UPDATE landed_documents l SET handled = n.fingerprint, content_hash = n.hash, "
                "run_key = coalesce(n.run_key, l.run_key) "
                "FROM unnest(CAST(:workspaces AS text[]), CAST(:documents AS text[]), "
                "CAST(:fingerprints AS text[]), CAST(:hashes AS text[]), CAST(:run_keys AS text[])) "
                "AS n(workspace_id, document_id, fingerprint, hash, run_key) "
                "WHERE l.workspace_id = n.workspace_id AND l.document_id = n.document_id"
            ),
            {
                **_keys(item.key for item in chunk),
                "fingerprints": [item.fingerprint for item in chunk],
                "hashes": [item.content_hash for item in chunk],
                "run_keys": [item.run_key for item in chunk],
            },
        )


def unconfirmed_requests(connection: Connection) -> dict[str, list[tuple[DocumentKey, str]]]:
    """Requests of which it is not known yet whether their run exists: run key -> documents and content hashes."""
    rows = connection.execute(
        text(
            "SELECT run_key, workspace_id, document_id, content_hash FROM landed_documents "
            "WHERE run_key IS NOT NULL ORDER BY run_key, workspace_id, document_id"
        )
    )
    requests: dict[str, list[tuple[DocumentKey, str]]] = {}
    for row in rows:
        requests.setdefault(row[0], []).append((DocumentKey(row[1], row[2]), row[3]))
    return requests


def confirm_requests(connection: Connection, run_keys: Iterable[str]) -> int:
    """Says that the runs of these keys exist; returns how many documents they are for."""
    return connection.execute(
        text("UPDATE landed_documents SET run_key = NULL WHERE run_key = ANY(CAST(:keys AS text[]))"),
        {"keys": list(run_keys)},
    ).rowcount


def mark_missing(connection: Connection, keys: Sequence[DocumentKey]) -> None:
    """Says of exactly these documents that they are not found any more, since now or since when it was said first."""
    connection.execute(
        text(
            "UPDATE landed_documents l SET missing_since = CASE WHEN m.missing THEN coalesce(missing_since, now()) "
            "END FROM (SELECT l.workspace_id, l.document_id, n.document_id IS NOT NULL AS missing "
            "FROM landed_documents l LEFT JOIN unnest(CAST(:workspaces AS text[]), CAST(:documents AS text[])) "
            "AS n(workspace_id, document_id) USING (workspace_id, document_id)) m "
            "WHERE l.workspace_id = m.workspace_id AND l.document_id = m.document_id "
            "AND m.missing <> (l.missing_since IS NOT NULL)"
        ),
        _keys(keys),
    )


def forget_landed(connection: Connection, keys: Sequence[DocumentKey]) -> int:
    """Removes rows; returns how many."""
    return connection.execute(
        text(
            "DELETE FROM landed_documents l USING unnest(CAST(:workspaces AS text[]), CAST(:documents AS text[])) "
            "AS n(workspace_id, document_id) "
            "WHERE l.workspace_id = n.workspace_id AND l.document_id = n.document_id"
        ),
        _keys(keys),
    ).rowcount


def landing_hashes(connection: Connection, keys: Sequence[DocumentKey]) -> dict[DocumentKey, str]:
    """Content hashes that the image rows of ingested documents stand for."""
    rows: Iterable[Any] = connection.execute(
        text(
            "SELECT d.workspace_id, d.document_id, d.content_hash FROM documents d "
            "JOIN unnest(CAST(:workspaces AS text[]), CAST(:documents AS text[])) AS n(workspace_id, document_id) "
            "USING (workspace_id, document_id) WHERE d.status = 'ingested' AND d.content_hash IS NOT NULL"
        ),
        _keys(keys),
    )
    return {DocumentKey(row[0], row[1]): row[2] for row in rows}


def _keys(keys: Iterable[DocumentKey]) -> dict[str, list[str]]:
    listed = list(keys)
    return {
        "workspaces": [key.workspace_id for key in listed],
        "documents": [key.document_id for key in listed],
    }


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
