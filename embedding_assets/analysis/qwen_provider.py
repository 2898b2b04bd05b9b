"""The hosted analyser as the settings describe it."""

from __future__ import annotations

from embedding_assets.analysis.qwen import Decode, QwenAnalyzer
from embedding_assets.settings import Settings


def open_qwen(settings: Settings, decode: Decode) -> QwenAnalyzer:
    """Makes the analyser of `vision_provider=qwen`. Cheap: its client loads when first used.

    Args:
        settings: endpoint, key, model, limits, quota.
        decode: makes an RGB image of a stored file.
    """
    return QwenAnalyzer(
        settings.qwen_base_url,
        decode,
        api_key=settings.qwen_api_key,
        model=settings.qwen_model,
        timeout_s=settings.qwen_timeout_s,
        concurrency=settings.qwen_concurrency,
        max_image_side=settings.qwen_max_image_side,
        requests_per_minute=settings.qwen_requests_per_minute,
        tokens_per_minute=settings.qwen_tokens_per_minute,
    )
