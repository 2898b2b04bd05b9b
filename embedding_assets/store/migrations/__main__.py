"""`python -m embedding_assets.store.migrations "what changes"`: writes a migration, for developers.

Compares the models with the schema of a throwaway embedded database that has all migrations so far.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from embedding_assets.store.database import Database
from embedding_assets.store.embedded import start_embedded_postgres
from embedding_assets.store.schema import head_revision, upgrade_schema, write_migration

if len(sys.argv) != 2 or not sys.argv[1]:
    sys.exit('usage: make migration NAME="what changes"')
with tempfile.TemporaryDirectory(prefix="embedding-assets-migration-") as folder:
    database = Database(start_embedded_postgres(Path(folder) / "postgres", "migration"))
    upgrade_schema(database)
    write_migration(database, sys.argv[1], f"{int(head_revision()) + 1:04d}")
