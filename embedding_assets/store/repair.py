"""Bringing flags, vectors and metadata back together, a range of keys at a time.

Named maintenance functions over all workspaces; `pipeline.reconciliation` calls them. Each works in the caller's
transaction, locks the images' rows in the order of their ids as every writer of vectors does, and then looks
again: what it changes is still wrong at the moment of the change. With `dry_run` it only counts.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import Connection, text

from embedding_assets.keys import DocumentKey
from embedding_assets.store.consistency import NO_FLAG, NO_VECTOR, ORPHAN
from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import Collection
from embedding_assets.store.vectors import METADATA

IMAGES_PER_RANGE = 20_000
"""About how many images one transaction looks at."""

_MAX_DIGITS = 4

_VECTOR_OF_IMAGE = (
    "i.status = 'ready' AND EXISTS (SELECT FROM {table} v WHERE v.id = i.id::text "
    "AND v.metadata ->> 'workspace_id' = i.workspace_id AND v.metadata ->> 'document_id' = i.document_id)"
)
"""Whether an unflagged vector is one that this package wrote for this very image, as SQL over document_images AS i."""


@dataclass(frozen=True)
class KeyRange:
    """Ids from `low` up to and without `high`, by their first hex digits; "" is open.

    Ids are UUIDv5, so ranges of equal width hold about equally many.
    """

    low: str = ""
    high: str = ""

    def images(self) -> str:
        """SQL over document_images AS i."""
        bounds = [
            f"i.id {operator} CAST('{digits.ljust(32, '0')}' AS uuid)"
            for operator, digits in ((">=", self.low), ("<", self.high))
            if digits
        ]
        return " AND ".join(bounds) or "true"

    def vectors(self) -> str:
        """SQL over a collection's table AS m. Ids of any spelling fall into one of the ranges."""
        bounds = [
            f"m.id {operator} '{digits}'"
            for operator, digits in ((">=", self.low), ("<", self.high))
            if digits
        ]
        return " AND ".join(bounds) or "true"


def key_ranges(connection: Connection) -> list[KeyRange]:
    """Ranges that together hold every id, cut by how many images Postgres estimates."""
    images = connection.execute(
        text("SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'document_images'::regclass")
    ).scalar_one()
    digits = 0
    while digits < _MAX_DIGITS and images / 16**digits > IMAGES_PER_RANGE:
        digits += 1
    count = 16**digits
    edges = [format(n, f"0{digits}x") if 0 < n < count else "" for n in range(count + 1)]
    return [KeyRange(low, high) for low, high in pairwise(edges)]


def _lock(connection: Connection, condition: str, dry_run: bool) -> list[uuid.UUID]:
    suffix = "" if dry_run else " FOR NO KEY UPDATE OF i"
    rows = connection.execute(
        text(f"SELECT i.id FROM document_images i WHERE {condition} ORDER BY i.id{suffix}")
    )
    return list(rows.scalars())


def _ids(ids: Sequence[uuid.UUID]) -> dict[str, list[str]]:
    return {"ids": [str(i) for i in ids]}


def lower_flags(
    connection: Connection, logical_name: str, collection: Collection | None, keys: KeyRange, dry_run: bool
) -> tuple[int, set[DocumentKey]]:
    """Takes the flag from images whose vector is gone, so that they are due again.

    Args:
        collection: the active one of the logical name; None where there is none, so that every flag lies.

    Returns:
        How many rows changed (or would), and the documents that they belong to.
    """
    flag = FLAGS[logical_name]
    wrong = NO_VECTOR.format(flag=flag, table=collection.qualified) if collection else f"i.{flag}"
    ids = _lock(connection, f"{keys.images()} AND {wrong}", dry_run)
    if not ids:
        return 0, set()
    if dry_run:
        statement = (
            "SELECT workspace_id, document_id FROM document_images i WHERE i.id = ANY(CAST(:ids AS uuid[]))"
        )
    else:
        statement = (
            f"UPDATE document_images i SET {flag} = false, updated_at = now() "
            f"WHERE i.id = ANY(CAST(:ids AS uuid[])) AND {wrong} RETURNING workspace_id, document_id"
        )
    rows = connection.execute(text(statement), _ids(ids)).all()
    return len(rows), {DocumentKey(row.workspace_id, row.document_id) for row in rows}


def raise_flags(
    connection: Connection, collection: Collection, stage: str, keys: KeyRange, dry_run: bool
) -> int:
    """Gives the flag back to ready images that have their vector, and closes their failure records of the stage.

    Only for collections whose vectors are made of the image's bytes alone: an image's id is derived from its bytes,
    so that a vector under this id, in the table of the active space, is the one that would be made again. The
    vector's metadata has to name the image's document: one that a vecs client put there does not count.

    Returns:
        How many rows changed (or would).
    """
    names = {"flag": collection.flag, "table": collection.qualified}
    wrong = f"NOT i.{collection.flag} AND {_VECTOR_OF_IMAGE.format(**names)}"
    ids = _lock(connection, f"{keys.images()} AND {wrong}", dry_run)
    if dry_run or not ids:
        return len(ids)
    raised = (
        connection.execute(
            text(
                f"UPDATE document_images i SET {collection.flag} = true, updated_at = now() "
                f"WHERE i.id = ANY(CAST(:ids AS uuid[])) AND {wrong} RETURNING i.id"
            ),
            _ids(ids),
        )
        .scalars()
        .all()
    )
    connection.execute(
        text(
            "UPDATE embedding_failures SET resolved_at = now() WHERE image_id = ANY(CAST(:ids AS uuid[])) "
            "AND stage = :stage AND resolved_at IS NULL"
        ),
        {**_ids(raised), "stage": stage},
    )
    return len(raised)


def drop_unproven(connection: Connection, collection: Collection, keys: KeyRange, dry_run: bool) -> int:
    """Removes vectors of images that do not have the flag: they are made again.

    Returns:
        How many vectors went (or would).
    """
    wrong = NO_FLAG.format(flag=collection.flag, table=collection.qualified)
    ids = _lock(connection, f"{keys.images()} AND {wrong}", dry_run)
    if dry_run or not ids:
        return len(ids)
    return connection.execute(
        text(
            f"DELETE FROM {collection.qualified} v USING document_images i "
            f"WHERE i.id = ANY(CAST(:ids AS uuid[])) AND NOT i.{collection.flag} AND v.id = i.id::text"
        ),
        _ids(ids),
    ).rowcount


def delete_orphans(connection: Connection, collection: Collection, keys: KeyRange, dry_run: bool) -> int:
    """Removes vectors that this package wrote and whose image is gone; those of other vecs clients stay.

    Returns:
        How many vectors went (or would).
    """
    where = f"{keys.vectors()} AND {ORPHAN}"
    if dry_run:
        statement = f"SELECT count(*) FROM {collection.qualified} m WHERE {where}"
        return int(connection.execute(text(statement)).scalar_one())
    # Image and vector are judged in one snapshot: an image that comes back at this moment keeps its new vector.
    return connection.execute(text(f"DELETE FROM {collection.qualified} m WHERE {where}")).rowcount


def renew_metadata(connection: Connection, collection: Collection, keys: KeyRange, dry_run: bool) -> int:
    """Brings the metadata of vectors up to their image rows; keys that others added stay.

    Returns:
        How many vectors changed (or would).
    """
    stale = f"EXISTS (SELECT FROM {collection.qualified} v WHERE v.id = i.id::text AND NOT v.metadata @> {METADATA})"
    ids = _lock(connection, f"{keys.images()} AND {stale}", dry_run)
    if dry_run or not ids:
        return len(ids)
    return connection.execute(
        text(
            f"UPDATE {collection.qualified} v SET metadata = v.metadata || {METADATA} FROM document_images i "
            f"WHERE i.id = ANY(CAST(:ids AS uuid[])) AND v.id = i.id::text AND NOT v.metadata @> {METADATA}"
        ),
        _ids(ids),
    ).rowcount
