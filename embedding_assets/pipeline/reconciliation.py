"""Repairing drift that someone made from outside: vectors deleted by hand, flags edited, tables restored alone.

What was proven is kept, and what can't be proven is made again:

    flag, no vector                   the flag falls: the image is due again
    vector, no flag (of the bytes)    the flag comes back: the id is derived from the image's bytes
    vector, no flag (of a text)       the vector goes: which text it was made of is not known
    vector, no image                  the vector goes, if its metadata says that this package wrote it
    metadata out of date              is written anew from the image's row
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection

from embedding_assets.keys import DocumentKey
from embedding_assets.store.consistency import unregistered_names, usable_collections
from embedding_assets.store.database import Database
from embedding_assets.store.repair import (
    KeyRange,
    delete_orphans,
    drop_unproven,
    key_ranges,
    lower_flags,
    raise_flags,
    renew_metadata,
)
from embedding_assets.store.spaces import Collection
from embedding_assets.store.stages import SLIG, STAGE_COLLECTIONS, stage_of

MADE_OF_BYTES = STAGE_COLLECTIONS[SLIG]
"""Collections whose vectors depend on nothing but the image's bytes and the space."""


@dataclass
class CollectionRepair:
    """What was repaired in one collection (or, in a dry run, would be), counted from the rows that changed.

    Attributes:
        flags_lowered: images that lost a flag without a vector, and are due again.
        flags_raised: images that got the flag of a vector that they have.
        vectors_removed: vectors without a flag, which will be made again.
        orphans_removed: vectors without an image.
        metadata_renewed: vectors whose metadata was out of date.
    """

    flags_lowered: int = 0
    flags_raised: int = 0
    vectors_removed: int = 0
    orphans_removed: int = 0
    metadata_renewed: int = 0

    @property
    def total(self) -> int:
        """All changes."""
        return sum(asdict(self).values())


@dataclass
class ReconcileReport:
    """What a reconciliation did.

    Attributes:
        dry_run: whether nothing was changed.
        collections: by physical vecs collection (by logical name where there is none), those with changes only.
        due: documents with images that are due again: materialize them.
        unusable: collections that were left alone, with the reason: see the check one_space_per_collection.
    """

    dry_run: bool
    collections: dict[str, CollectionRepair] = field(default_factory=dict)
    due: set[DocumentKey] = field(default_factory=set)
    unusable: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All changes."""
        return sum(repair.total for repair in self.collections.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return {
            "dry_run": self.dry_run,
            "changes": self.total,
            "collections": {name: asdict(repair) for name, repair in self.collections.items()},
            "due": [str(key) for key in sorted(self.due)],
            "unusable": self.unusable,
        }


def reconcile_vectors(
    database: Database, *, dry_run: bool = False, progress: Callable[[str], None] | None = None
) -> ReconcileReport:
    """Makes flags, vectors and metadata agree, in short transactions of a range of keys each.

    A named maintenance function: it goes over all workspaces. It can run beside the pipeline, be stopped, and be
    called again.

    Args:
        dry_run: count, and change nothing.
        progress: called with a line for each collection that is done.
    """
    report = ReconcileReport(dry_run)
    with database.transaction() as connection:
        usable, report.unusable = usable_collections(connection)
        unregistered = unregistered_names(connection)
        ranges = key_ranges(connection)
    # Where a registered table is gone, it may come back from a backup: nothing is concluded from its absence.
    for logical_name in unregistered:
        _keep(report, logical_name, _lower_all_flags(database, logical_name, ranges, dry_run, report.due))
    for collection, active in usable:
        repair = CollectionRepair()
        for keys in ranges:
            with database.transaction() as connection:
                _repair_range(connection, collection, active, keys, dry_run, repair, report.due)
        _keep(report, collection.table, repair)
        if progress:
            progress(f"{collection.table}: {repair.total} changes")
    return report


def _keep(report: ReconcileReport, name: str, repair: CollectionRepair) -> None:
    if repair.total:
        report.collections[name] = repair


def _lower_all_flags(
    database: Database, logical_name: str, ranges: Sequence[KeyRange], dry_run: bool, due: set[DocumentKey]
) -> CollectionRepair:
    repair = CollectionRepair()
    for keys in ranges:
        with database.transaction() as connection:
            lowered, documents = lower_flags(connection, logical_name, None, keys, dry_run)
        repair.flags_lowered += lowered
        due |= documents
    return repair


def _repair_range(
    connection: Connection,
    collection: Collection,
    active: bool,
    keys: KeyRange,
    dry_run: bool,
    repair: CollectionRepair,
    due: set[DocumentKey],
) -> None:
    if active:
        name = collection.logical_name
        lowered, documents = lower_flags(connection, name, collection, keys, dry_run)
        repair.flags_lowered += lowered
        due |= documents
        raised = 0
        if name in MADE_OF_BYTES:
            raised = raise_flags(connection, collection, stage_of(name), keys, dry_run)
            repair.flags_raised += raised
        removed = drop_unproven(connection, collection, keys, dry_run)
        # In a dry run, those whose flag would have come back are still without it.
        repair.vectors_removed += removed - raised if dry_run else removed
    repair.orphans_removed += delete_orphans(connection, collection, keys, dry_run)
    repair.metadata_renewed += renew_metadata(connection, collection, keys, dry_run)
