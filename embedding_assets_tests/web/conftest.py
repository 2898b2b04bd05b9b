"""The servers that the pages' tests ask: those of the API's tests."""

from embedding_assets_tests.api.conftest import shared_site, site
from embedding_assets_tests.pipeline.reused_database import database, database_url, reused_database

__all__ = ["database", "database_url", "reused_database", "shared_site", "site"]
