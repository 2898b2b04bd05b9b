"""Keys of the API: who may do what in which workspaces. A key itself is never stored, only its SHA-256.

key    = "ea_" key_id "_" secret
key_id = 12 hexadecimal digits, public: it names the key in lists and logs
secret = 64 hexadecimal digits: 256 random bits, so that a plain hash is as good as a slow one
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, text

from embedding_assets.errors import PermanentError
from embedding_assets.keys import DocumentKey
from embedding_assets.store.json_text import clean_text

Role = Literal["reader", "writer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From the least to the most: each may do what those before it may."""

ALL_WORKSPACES = "*"
"""Stands for every workspace, those to come included."""

_KEY = re.compile(r"ea_([0-9a-f]{12})_([0-9a-f]{64})")
_NO_HASH = bytes(32)


@dataclass(frozen=True)
class ApiKey:
    """A key as it is stored.

    Attributes:
        key_id: names the key; not secret.
        name: what it is for, for people.
        role: what it may do.
        workspaces: where; `ALL_WORKSPACES` alone for everywhere.
        revoked_at: since when it is refused; None while it is good.
    """

    key_id: str
    name: str
    role: Role
    workspaces: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None = None


def create_key(
    connection: Connection, name: str, role: Role, workspaces: Sequence[str]
) -> tuple[str, ApiKey]:
    """Makes and stores a key.

    Returns:
        (the key, which nobody can read again; its row).

    Raises:
        PermanentError: no workspace, or one that is not valid; no such role.
    """
    if role not in ROLES:
        raise PermanentError(f"there is no role {role!r}; expected {', '.join(ROLES)}")
    if not workspaces:
        raise PermanentError("a key needs a workspace", hint=f"name one, or {ALL_WORKSPACES!r} for all")
    if ALL_WORKSPACES in workspaces:
        workspaces = [ALL_WORKSPACES]
    else:
        for workspace in workspaces:
            DocumentKey(workspace, "any")  # raises where it is not valid
    key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    row = connection.execute(
        text(
            "INSERT INTO api_keys (key_id, name, key_hash, role, workspaces) "
            "VALUES (:key_id, :name, :hash, :role, CAST(:workspaces AS text[])) RETURNING *"
        ),
        {
            "key_id": key_id,
            "name": clean_text(name),
            "hash": _hash(secret),
            "role": role,
            "workspaces": sorted(set(workspaces)),
        },
    ).one()
    return f"ea_{key_id}_{secret}", _to_key(row)


def find_key(connection: Connection, presented: str) -> ApiKey | None:
    """The key that was presented; None where it is malformed, unknown, wrong or revoked.

    Hashes are compared in constant time, and against nothing in particular where the id is unknown.
    """
    match = _KEY.fullmatch(presented)
    if match is None:
        return None
    row = connection.execute(
        text("SELECT * FROM api_keys WHERE key_id = :key_id"), {"key_id": match.group(1)}
    ).first()
    stored = bytes(row.key_hash) if row is not None else _NO_HASH
    same = hmac.compare_digest(stored, _hash(match.group(2)))
    if row is None or not same or row.revoked_at is not None:
        return None
    return _to_key(row)


def key_is_good(connection: Connection, key_id: str) -> bool:
    """Whether a key that was found before is still not revoked."""
    return bool(
        connection.execute(
            text("SELECT EXISTS (SELECT FROM api_keys WHERE key_id = :key_id AND revoked_at IS NULL)"),
            {"key_id": key_id},
        ).scalar_one()
    )


def list_keys(connection: Connection) -> list[ApiKey]:
    """All keys, revoked ones too, oldest first."""
    rows = connection.execute(text("SELECT * FROM api_keys ORDER BY created_at, key_id")).all()
    return [_to_key(row) for row in rows]


def any_key(connection: Connection) -> bool:
    """Whether a key was ever made: revoked ones count, so that revoking the last one opens nothing."""
    return bool(connection.execute(text("SELECT EXISTS (SELECT FROM api_keys)")).scalar_one())


def revoke_key(connection: Connection, key_id: str) -> ApiKey | None:
    """Has a key refused from now on; None where there is no such key. Once revoked, it stays as it was."""
    row = connection.execute(
        text(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = :key_id RETURNING *"
        ),
        {"key_id": key_id},
    ).first()
    return None if row is None else _to_key(row)


def forget_revoked_keys(connection: Connection) -> int:
    """Removes the rows of revoked keys; returns how many."""
    return connection.execute(text("DELETE FROM api_keys WHERE revoked_at IS NOT NULL")).rowcount


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _to_key(row: Any) -> ApiKey:
    return ApiKey(row.key_id, row.name, row.role, tuple(row.workspaces), row.created_at, row.revoked_at)
