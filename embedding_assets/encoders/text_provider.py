"""The text embedder that the settings ask for."""

from __future__ import annotations

from embedding_assets.encoders.text import TextEmbedder
from embedding_assets.settings import Settings


def open_text_embedder(settings: Settings, template: str) -> TextEmbedder:
    """Makes the embedder of `settings.text_provider`. Cheap: models and clients load when first used.

    Args:
        settings: provider, key, model, dimension, quota.
        template: version of the text template that the texts come from, part of the embedding space.

    Raises:
        SettingsError: the provider needs a key and has none.
    """
    if settings.text_provider == "voyage":
        from embedding_assets.encoders.voyage import VoyageEmbedder

        return VoyageEmbedder(
            settings.voyage_api_key,
            template=template,
            model=settings.voyage_model,
            dimension=settings.voyage_dimension,
            base_url=settings.voyage_base_url,
            timeout_s=settings.voyage_timeout_s,
            requests_per_minute=settings.voyage_requests_per_minute,
            tokens_per_minute=settings.voyage_tokens_per_minute,
        )
    from embedding_assets.encoders.wordllama_text import WordLlamaEmbedder

    return WordLlamaEmbedder(template)
