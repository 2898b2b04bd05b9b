"""What the UI shows of the tables behind assets: name and columns, taken from the models."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from sqlalchemy import inspect as inspect_model
from sqlalchemy.dialects import postgresql

from embedding_assets.store.models import Base

_VECTOR_COLUMNS = (
    dg.TableColumn("id", "varchar", "id of the image, which is the key of its row in document_images"),
    dg.TableColumn("vec", "vector", "unit vector, in the collection's embedding space (embedding_spaces)"),
    dg.TableColumn("metadata", "jsonb", "workspace_id, document_id, page_number, quality_score"),
)


def table_metadata(model: type[Base]) -> dict[str, Any]:
    """Metadata of an asset that is a table."""
    return {
        "dagster/table_name": f"public.{model.__tablename__}",
        "dagster/column_schema": _schema(model, None),
    }


def columns_metadata(model: type[Base], names: Sequence[str]) -> dict[str, Any]:
    """Metadata of an asset that fills some columns of a table."""
    return {"dagster/column_schema": _schema(model, names)}


def collection_metadata(logical_name: str) -> dict[str, Any]:
    """Metadata of an asset that is a vecs collection.

    The name is the logical one: a second embedding space of the same name gets a table of its own.
    """
    return {
        "dagster/table_name": f"vecs.{logical_name}",
        "dagster/column_schema": dg.TableSchema(columns=list(_VECTOR_COLUMNS)),
    }


def _schema(model: type[Base], names: Sequence[str] | None) -> dg.TableSchema:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    columns = inspect_model(model).columns
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.type.compile(dialect).lower(),
                column.comment,
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
            )
            for column in columns
            if names is None or column.name in names
        ]
    )
