"""Do flags, vectors and spaces agree? Named maintenance functions over all workspaces; they only read.

Nothing in this package writes a vector without its flag, so what is found here was done from outside: vectors
deleted by hand, flags edited, a table dropped or restored alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from embedding_assets.store.models import FLAGS
from embedding_assets.store.spaces import Collection, all_collections

EXAMPLES = 20
"""Rows of each kind of drift that are shown."""

OURS = "m.metadata ?& ARRAY['workspace_id', 'document_id', 'page_number', 'quality_score']"
"""Whether a vector was written by this package, as SQL: a vecs client may keep vectors of its own in a collection,
and those are left alone."""

IMAGE_ID = "m.id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
"""Whether a vector's id is written like an image's, as SQL."""


@dataclass(frozen=True)
class DriftRow:
    """One vector or image that does not agree with its counterpart.

    Attributes:
        collection: logical name.
        kind: "no vector", "no flag" or "orphan".
        id: of the image, or of the vector where there is no image.
        document: key of the document, as far as it is known.
        reference: the image in its document; empty for an orphan.
    """

    collection: str
    kind: str
    id: str
    document: str
    reference: str


@dataclass(frozen=True)
class Drift:
    """How flags and vectors of one collection disagree.

    Attributes:
        collection: logical name.
        table: physical vecs collection; empty where there is none.
        active: whether its vectors are the ones that flags speak of.
        no_vector: images with the flag and without the vector.
        no_flag: images with the vector and without the flag.
        orphans: vectors of ours without an image.
        foreign: vectors that somebody else keeps in the collection. They are no fault.
        examples: the first rows of each kind.
    """

    collection: str
    table: str
    active: bool = True
    no_vector: int = 0
    no_flag: int = 0
    orphans: int = 0
    foreign: int = 0
    examples: tuple[DriftRow, ...] = ()


@dataclass(frozen=True)
class SpaceReport:
    """One registered embedding space and its table.

    Attributes:
        problems: what is wrong with it, in words; empty where all is well.
        vectors: whether the table holds any.
    """

    logical_name: str
    table: str
    space_id: str
    active: bool
    dimension: int
    vectors: bool
    problems: tuple[str, ...] = field(default=())


def usable_collections(connection: Connection) -> tuple[list[tuple[Collection, bool]], dict[str, str]]:
    """The registered collections, each with whether it is active; and those that can't be looked at.

    Returns:
        The collections in order, without those that have problems; and table -> problems of these.
    """
    spaces = {space.table: space for space in inspect_spaces(connection)}
    unusable = {table: "; ".join(space.problems) for table, space in spaces.items() if space.problems}
    collections = [
        (collection, spaces[collection.table].active)
        for collection in all_collections(connection)
        if collection.table not in unusable
    ]
    return collections, unusable


_COUNT = """
SELECT count(*) FILTER (WHERE v.id IS NULL) AS no_vector, count(*) FILTER (WHERE NOT i.flag) AS no_flag,
    count(*) FILTER (WHERE i.id IS NULL) AS without_image
FROM (SELECT id, {flag} AS flag FROM document_images) i
FULL JOIN (SELECT id FROM {table}) v ON v.id = i.id::text
WHERE i.id IS NULL OR i.flag <> (v.id IS NOT NULL)
"""
# One join that reads both tables once, in parallel, and hands over three numbers. One statement, so one snapshot: a
# batch that is being committed is seen with its flags and its vectors, or with neither.

NO_VECTOR = "i.{flag} AND NOT EXISTS (SELECT FROM {table} v WHERE v.id = i.id::text)"
NO_FLAG = "NOT i.{flag} AND EXISTS (SELECT FROM {table} v WHERE v.id = i.id::text)"
"""What drift is, as SQL over document_images AS i."""

WITHOUT_IMAGE = "NOT EXISTS (SELECT FROM document_images i WHERE i.id::text = m.id)"
ORPHAN = f"{WITHOUT_IMAGE} AND {OURS} AND {IMAGE_ID}"
"""The same, over the collection's table AS m."""


def find_drift(connection: Connection, collection: Collection, active: bool) -> Drift:
    """How flags and vectors of a collection disagree.

    An inactive collection has no flags: only its orphans are looked for.
    """
    table = collection.qualified
    names = {"flag": collection.flag, "table": table}
    if active:
        no_vector, no_flag, without_image = connection.execute(text(_COUNT.format(**names))).one()
    else:
        no_vector = no_flag = 0
        without_image = connection.execute(
            text(f"SELECT count(*) FROM {table} m WHERE {WITHOUT_IMAGE}")
        ).scalar_one()
    examples: list[DriftRow] = []
    for found, kind, condition in ((no_vector, "no vector", NO_VECTOR), (no_flag, "no flag", NO_FLAG)):
        if found:
            examples += _drifting_images(connection, collection.logical_name, kind, condition.format(**names))
    orphans = 0
    if without_image:
        orphans = connection.execute(text(f"SELECT count(*) FROM {table} m WHERE {ORPHAN}")).scalar_one()
        examples += _orphans(connection, collection)
    return Drift(
        collection.logical_name,
        collection.table,
        active,
        no_vector,
        no_flag,
        orphans,
        max(0, without_image - orphans),
        tuple(examples),
    )


def unregistered_names(connection: Connection) -> list[str]:
    """Logical names that have no embedding space at all."""
    registered = set(connection.execute(text("SELECT logical_name FROM embedding_spaces")).scalars().all())
    return [name for name in FLAGS if name not in registered]


def flags_without_collection(connection: Connection) -> list[Drift]:
    """Flags that speak of vectors although no collection was ever registered for them."""
    names = unregistered_names(connection)
    if not names:
        return []
    columns = ", ".join(f"count(*) FILTER (WHERE {FLAGS[name]})" for name in names)
    counts = connection.execute(text(f"SELECT {columns} FROM document_images")).one()
    return [
        Drift(
            name,
            "",
            no_vector=found,
            examples=tuple(_drifting_images(connection, name, "no vector", f"i.{FLAGS[name]}")),
        )
        for name, found in zip(names, counts, strict=True)
        if found
    ]


def _drifting_images(connection: Connection, name: str, kind: str, condition: str) -> list[DriftRow]:
    rows = connection.execute(
        text(
            "SELECT i.id, i.workspace_id || '/' || i.document_id AS document, i.reference FROM document_images i "
            f"WHERE {condition} ORDER BY i.id LIMIT :examples"
        ),
        {"examples": EXAMPLES},
    ).all()
    return [DriftRow(name, kind, str(row.id), row.document, row.reference) for row in rows]


def _orphans(connection: Connection, collection: Collection) -> list[DriftRow]:
    rows = connection.execute(
        text(
            "SELECT m.id, concat_ws('/', metadata ->> 'workspace_id', metadata ->> 'document_id') AS document "
            f"FROM {collection.qualified} m WHERE {ORPHAN} ORDER BY m.id LIMIT :examples"
        ),
        {"examples": EXAMPLES},
    ).all()
    return [DriftRow(collection.logical_name, "orphan", row.id, row.document, "") for row in rows]


def inspect_spaces(connection: Connection) -> list[SpaceReport]:
    """Each registered embedding space: is its table there, of its dimension, and is one of each name active?"""
    rows = connection.execute(
        text(
            "SELECT s.logical_name, s.collection, s.space_id, s.active, s.dimension, c.oid IS NOT NULL AS there, "
            # pgvector keeps a column's dimension as its type modifier; -1 is none
            "a.atttypmod AS table_dimension, "
            "bool_or(s.active) OVER (PARTITION BY s.logical_name) AS any_active "
            "FROM embedding_spaces s "
            "LEFT JOIN pg_class c ON c.relname = s.collection AND c.relnamespace = to_regnamespace('vecs') "
            "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'vec' AND NOT a.attisdropped "
            "ORDER BY s.logical_name, s.id"
        )
    ).all()
    reports = []
    for row in rows:
        problems = []
        if not row.there:
            problems.append(f'the table vecs."{row.collection}" is gone')
        elif row.table_dimension != row.dimension:
            problems.append(
                f"the space has {row.dimension} dimensions, the table's column {row.table_dimension}"
            )
        if row.logical_name not in FLAGS:
            problems.append("no flag of document_images belongs to this name")
        if not row.any_active:
            problems.append("no space of this name is active, so nothing can be searched or written")
        vectors = row.there and bool(
            connection.execute(text(f'SELECT EXISTS (SELECT FROM vecs."{row.collection}")')).scalar_one()
        )
        reports.append(
            SpaceReport(
                row.logical_name,
                row.collection,
                row.space_id,
                row.active,
                row.dimension,
                vectors,
                tuple(problems),
            )
        )
    return reports
