"""Documents that vanished from the landing folder: which of them may be removed, and which look like a mishap.

A folder that is not mounted looks like one from which everybody has removed everything. So nothing is removed from
a workspace (or a landing root) that lists no document at all, nor where more is gone than people remove in a day; and
whatever goes has to be gone on two looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from embedding_assets.errors import DocumentError
from embedding_assets.ingest.listing import list_landing
from embedding_assets.keys import DocumentKey
from embedding_assets.settings import PREFIX
from embedding_assets.store.database import Database
from embedding_assets.store.documents import get_document
from embedding_assets.store.landed import Seen, mark_missing, read_landed, save_seen
from embedding_assets.store.removal import landing_documents, remove_documents

CHUNK = 100
"""Documents removed in one transaction."""
HINT = "if they were removed on purpose, use `embedding-assets remove`"


@dataclass(frozen=True)
class Vanished:
    """Documents that are not in the landing folder any more.

    Attributes:
        removable: may be removed now.
        waiting: gone since a moment ago; to be looked at once more.
        refusals: why others are not removed, in words; one for each workspace, or one for all.
    """

    removable: tuple[DocumentKey, ...] = ()
    waiting: int = 0
    refusals: tuple[str, ...] = ()


def find_vanished(
    database: Database, landing_root: str, *, share: float, count: int, settle_s: float
) -> Vanished:
    """Compares the landing folder with the documents that came from it. Posted documents are none of its business.

    Args:
        share: of a workspace's documents that may be gone at once, 0 to 1.
        count: documents of a workspace that may be gone at once, whatever their share.
        settle_s: seconds that a document must have been gone.

    Raises:
        TransientError: the landing folder can't be listed.
    """
    listed = list_landing(landing_root)
    with database.transaction() as connection:
        landed = read_landed(connection)
        known = landing_documents(connection)
        gone = sorted((known.keys() | landed.keys()) - listed.keys())
        save_seen(connection, [Seen(key, "", known[key] or "", "") for key in gone if key not in landed])
        mark_missing(connection, gone)
    if not gone:
        return Vanished()
    everything = known.keys() | landed.keys()
    if not listed:
        return Vanished(
            refusals=(
                f"{landing_root} lists no document, and {len(everything)} are known: nothing is removed. "
                f"Is it mounted? ({HINT})",
            )
        )
    totals = Counter(key.workspace_id for key in everything)
    missing = Counter(key.workspace_id for key in gone)
    refusals: dict[str, str] = {}
    for workspace, number in missing.items():
        total = totals[workspace]
        if number == total:
            refusals[workspace] = (
                f"workspace {workspace} lists no document, and {total} are known: none of them is removed ({HINT})"
            )
        elif number > count and number > share * total:
            refusals[workspace] = (
                f"{number} of {total} documents of workspace {workspace} are gone, more than {share:.0%} and more "
                f"than {count}: none of them is removed ({HINT}, or raise {PREFIX}REMOVAL_LIMIT_SHARE)"
            )
    allowed = [key for key in gone if key.workspace_id not in refusals]
    removable = [key for key in allowed if key in landed and _is_settled(landed[key].missing_s, settle_s)]
    return Vanished(tuple(removable), len(allowed) - len(removable), tuple(refusals.values()))


def remove(database: Database, keys: Sequence[DocumentKey]) -> int:
    """Removes documents with all that was made of them; returns how many there were."""
    removed = 0
    for start in range(0, len(keys), CHUNK):
        with database.transaction() as connection:
            removed += remove_documents(connection, keys[start : start + CHUNK])
    return removed


def check_removable(database: Database, landing_root: str, keys: Collection[DocumentKey]) -> None:
    """Raises DocumentError where a document is unknown, or still lies in the landing folder and would come back."""
    listed = list_landing(landing_root)
    for key in keys:
        with database.transaction() as connection:
            row = get_document(connection, key)
        if row is None:
            raise DocumentError(
                f"there is no document {key}", hint="`embedding-assets coverage` lists the documents"
            )
        if row.posted_images is None and key in listed:
            raise DocumentError(
                f"document {key} still lies at {listed[key].document.uri} and would be taken in again",
                hint="remove it there first",
            )


def _is_settled(missing_s: float | None, settle_s: float) -> bool:
    return missing_s is not None and missing_s >= settle_s
