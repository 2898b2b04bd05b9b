"""Where settings become a search engine."""

from __future__ import annotations

from embedding_assets.encoders.aspects import aspect_method
from embedding_assets.pipeline.assembly import UNDERSTANDING_TEMPLATE, open_encoder, open_text_provider
from embedding_assets.pipeline.texts import NEARBY_TEMPLATE
from embedding_assets.search.engine import SearchEngine
from embedding_assets.search.queries import QueryEncoder
from embedding_assets.settings import Settings
from embedding_assets.store.database import Database


def open_search_engine(settings: Settings, database: Database) -> SearchEngine:
    """The search engine of these settings. Loads no model before the first search."""
    queries = QueryEncoder(
        open_encoder(settings),
        {
            "text": open_text_provider(settings, NEARBY_TEMPLATE),
            "understanding": open_text_provider(settings, UNDERSTANDING_TEMPLATE),
        },
        aspect_method(settings.aspect_method),
        settings.query_cache_size,
    )
    return SearchEngine(
        database,
        queries,
        candidates=settings.search_candidates,
        timeout_s=settings.search_timeout_s,
        connections=settings.search_connections,
    )
