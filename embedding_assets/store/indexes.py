"""Which indexes the vecs collections have: their names, their kinds, and whether they can be used.

What belongs here: reading the catalogue, and the vocabulary of indexes. What does not: building them
(`index_builds`), judging them (`index_recall`), deciding what to build (`pipeline.indexing`).

Names carry what an index is made of, so that one of other settings is built beside the old one before that goes:

    ix_vector_cosine_ops_hnsw_m16_efc64_ea1a2b3c4     ix_halfvec_cosine_ops_hnsw_m16_efc64_ea1a2b3c4
    ix_metadata_path_ops_ea1a2b3c4                    (the end: ours, and the hash of the collection's name)

A vecs 0.4.5 client knows the index of a collection by the name `ix_vector...` and the operator class in it; so it
finds ours, and does not warn that its query has none. A halfvec index is of no use to its queries, and is named
otherwise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from embedding_assets.store.spaces import Collection

Kind = Literal["vector", "halfvec"]

MAX_DIMENSION: dict[Kind, int] = {"vector": 2_000, "halfvec": 4_000}
"""pgvector's limits for an HNSW index (its README, "HNSW"): an element has to fit into a page of 8 KiB."""

_CAST = re.compile(r"\(vec\)::(?:\w+\.)?halfvec\((\d+)\)")
"""The indexed expression as pg_get_expr prints it."""


@dataclass(frozen=True)
class VectorIndex:
    """An HNSW index with cosine distance on a collection's vectors.

    Attributes:
        kind: what the index holds: the vectors themselves, or their 16-bit form.
        name: the index's name in the schema vecs.
    """

    kind: Kind
    name: str

    def operand(self, dimension: int, alias: str = "") -> str:
        """The SQL expression whose `<=>` with a value of type `type_name` this index answers."""
        column = f"{alias}.vec" if alias else "vec"
        return column if self.kind == "vector" else f"{column}::{self.type_name(dimension)}"

    def type_name(self, dimension: int) -> str:
        """The SQL type of what is indexed."""
        return f"{self.kind}({int(dimension)})"


@dataclass(frozen=True)
class FoundIndex:
    """An index of a collection as the catalogue has it.

    Attributes:
        table: the vecs collection.
        name: the index's name in the schema vecs.
        cosine_kind: the kind where it is an HNSW index with cosine over all rows; None for any other index.
        valid: whether queries may use it. An index that is being built is not valid, nor is what a killed build
            leaves.
        size_bytes: on disk.
        builder_pid: the backend that builds it at this moment; None where nobody does.
    """

    table: str
    name: str
    cosine_kind: Kind | None
    valid: bool
    size_bytes: int
    builder_pid: int | None

    @property
    def is_ours(self) -> bool:
        """Whether this package named it (also as REINDEX CONCURRENTLY renames it while it works)."""
        return re.fullmatch(rf"ix_\w+_{_mark(self.table)}(_cc(new|old)\d*)?", self.name) is not None

    @property
    def is_vector(self) -> bool:
        """Whether it is one of ours on vectors, by its name."""
        return "_hnsw_" in self.name

    @property
    def is_leftover(self) -> bool:
        """Whether it is what a build of ours that did not come to its end left behind."""
        return self.is_ours and not self.valid and self.builder_pid is None


def _mark(table: str) -> str:
    return f"ea{hashlib.sha256(table.encode()).hexdigest()[:7]}"


def vector_index_name(table: str, kind: Kind, m: int, ef_construction: int) -> str:
    """Name of the HNSW index with these parameters."""
    return f"ix_{kind}_cosine_ops_hnsw_m{m}_efc{ef_construction}_{_mark(table)}"


def metadata_index_name(table: str) -> str:
    """Name of the GIN index on the metadata."""
    return f"ix_metadata_path_ops_{_mark(table)}"


def _cosine_kind(method: str, opclass: str, column: str | None, expression: str | None) -> Kind | None:
    if method != "hnsw":
        return None
    if opclass == "vector_cosine_ops" and column == "vec":
        return "vector"
    if opclass == "halfvec_cosine_ops" and expression and _CAST.fullmatch(expression):
        return "halfvec"
    return None


_INDEXES = """
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_am am ON am.oid = i.relam JOIN pg_opclass o ON o.oid = x.indclass[0]
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0] AND a.attnum > 0
WHERE t.relnamespace = 'vecs'::regnamespace AND t.relname = ANY(:tables)
"""
_DESCRIBED = (
    "t.relname AS table_name, i.relname AS index_name, am.amname AS method, o.opcname AS opclass, "
    "a.attname AS column_name, pg_get_expr(x.indexprs, x.indrelid) AS expression"
)


def usable_hnsw(connection: Connection, collections: Sequence[Collection]) -> dict[str, VectorIndex]:
    """The HNSW index with cosine that queries of each collection can use, by `Collection.table`.

    Only valid ones: an index that is being built, or was left by a killed build, is not among them. A collection
    without one is not in the answer: scan it. Where there is one of each kind, the answer is the halfvec one, which
    is the smaller. One query for all collections.
    """
    rows = connection.execute(
        text(
            f"SELECT {_DESCRIBED} {_INDEXES} AND am.amname = 'hnsw' AND x.indisvalid AND x.indpred IS NULL "
            "ORDER BY i.relname"
        ),
        {"tables": [collection.table for collection in collections]},
    ).all()
    usable: dict[str, VectorIndex] = {}
    for row in rows:
        kind = _cosine_kind(row.method, row.opclass, row.column_name, row.expression)
        if kind and (row.table_name not in usable or kind == "halfvec"):
            usable[row.table_name] = VectorIndex(kind, row.index_name)
    return usable


def building_pid(connection: Connection, collection: Collection) -> int | None:
    """The server process that builds any index of a collection at this moment, for whomever; None where none does.

    Until it is done, whatever else builds, drops or analyses there has to wait for it.
    """
    pid: int | None = connection.execute(
        text(
            "SELECT min(pid) FROM pg_stat_progress_create_index "
            "WHERE datname = current_database() AND relid = CAST(:table AS regclass)"
        ),
        {"table": collection.qualified},
    ).scalar_one()
    return pid


def find_indexes(connection: Connection, collection: Collection) -> list[FoundIndex]:
    """All indexes of a collection, valid or not, sorted by name (maintenance: not scoped to a workspace)."""
    rows = connection.execute(
        text(
            f"SELECT {_DESCRIBED}, x.indisvalid AND x.indisready AND x.indislive AS valid, "
            "x.indpred IS NOT NULL AS partial, coalesce(pg_relation_size(i.oid), 0) AS size_bytes, "
            "(SELECT min(pid) FROM pg_stat_progress_create_index p "
            " WHERE p.index_relid = i.oid AND p.datname = current_database()) AS builder_pid "
            f"{_INDEXES} ORDER BY i.relname"
        ),
        {"tables": [collection.table]},
    ).all()
    return [
        FoundIndex(
            row.table_name,
            row.index_name,
            None if row.partial else _cosine_kind(row.method, row.opclass, row.column_name, row.expression),
            row.valid,
            row.size_bytes,
            row.builder_pid,
        )
        for row in rows
    ]
