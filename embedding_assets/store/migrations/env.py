"""Alembic's entry: runs migrations on the connection that `store.schema` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from embedding_assets.store.models import Base
from embedding_assets.store.schema import VERSION_TABLE, is_ours

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    include_object=is_ours,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
