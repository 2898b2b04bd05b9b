"""Alembic migrations. Applied by `store.schema`; a new one is made with `make migration NAME=...`."""
