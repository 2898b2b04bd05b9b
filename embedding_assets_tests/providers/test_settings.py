"""Settings of providers: contradictions are refused by name, keys never shown."""

from __future__ import annotations

from typing import Any

import pytest

from embedding_assets.errors import SettingsError
from embedding_assets.settings import load_settings


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"text_provider": "voyage"}, ["text_provider", "VOYAGE_API_KEY"]),
        ({"text_provider": "voyage", "voyage_api_key": "  "}, ["VOYAGE_API_KEY"]),
        ({"vision_provider": "qwen"}, ["vision_provider", "qwen_base_url"]),
        ({"text_provider": "openai"}, ["text_provider"]),
        ({"vision_provider": "none"}, ["vision_provider"]),
        ({"voyage_dimension": 300}, ["voyage_dimension"]),
        ({"voyage_base_url": "api.voyageai.com"}, ["voyage_base_url", "https://host/v1"]),
        ({"voyage_base_url": "https://h/v1/embeddings"}, ["voyage_base_url", "without /embeddings"]),
        ({"qwen_base_url": "https://h/v1/chat/completions/"}, ["qwen_base_url", "without /chat/completions"]),
        ({"qwen_base_url": "https://me:secret-word@h/v1"}, ["qwen_base_url", "no user or password"]),
        ({"qwen_concurrency": 0}, ["qwen_concurrency"]),
        ({"voyage_tokens_per_minute": -1}, ["voyage_tokens_per_minute"]),
    ],
)
def test_contradictions_and_bad_values_are_refused_by_name(given: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(**given)
    for name in names:
        assert name in str(caught.value)
    assert "secret-word" not in str(caught.value)


def test_keys_are_read_under_their_usual_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOYAGE_API_KEY", "voyage-secret")
    monkeypatch.setenv("DASHSCOPE_API_KEY", "dash-secret")
    monkeypatch.setenv("EMBEDDING_ASSETS_TEXT_PROVIDER", "voyage")
    monkeypatch.setenv("EMBEDDING_ASSETS_VOYAGE_DIMENSION", "2048")
    settings = load_settings()
    assert settings.voyage_api_key is not None
    assert settings.voyage_api_key.get_secret_value() == "voyage-secret"
    assert settings.qwen_api_key is not None
    assert settings.qwen_api_key.get_secret_value() == "dash-secret"
    assert settings.voyage_dimension == 2048
    assert "secret" not in repr(settings)
    monkeypatch.setenv("QWEN_API_KEY", "qwen-secret")
    chosen = load_settings().qwen_api_key
    assert chosen is not None
    assert chosen.get_secret_value() == "qwen-secret"


def test_a_key_for_a_provider_that_is_not_chosen_is_no_contradiction() -> None:
    assert (
        load_settings(voyage_api_key="k", qwen_base_url="http://localhost:8000/v1").text_provider == "local"
    )
