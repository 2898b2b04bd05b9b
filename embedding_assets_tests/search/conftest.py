import pytest

from embedding_assets.store.database import Database
from embedding_assets_tests.search.corpus import Corpus


@pytest.fixture
def corpus(database: Database) -> Corpus:
    """An empty database to fill and search."""
    return Corpus(database)
