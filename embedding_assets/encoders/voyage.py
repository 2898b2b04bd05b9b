"""Text vectors from Voyage AI, by its own client with the client's retries off.

One call is one request and one attempt; every refusal becomes one of our error classes and the batch core acts
on it. What belongs here: the request, the checks of the answer. What does not: which error means what
(`voyage_errors`), when a request may go (`rate_limit`), retries (`pipeline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import SecretStr

from embedding_assets.encoders.charged_tokens import ChargedTokens, total_tokens
from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors
from embedding_assets.encoders.rate_limit import RateBudget, shared_budget
from embedding_assets.encoders.text import clean_texts, pack_by_tokens, unit_vectors, warn_of_cut_text
from embedding_assets.encoders.voyage_errors import refusal_of
from embedding_assets.encoders.wordllama_text import count_wordllama_tokens
from embedding_assets.errors import (
    EmbeddingAssetsError,
    SettingsError,
    ThrottledError,
    TooLargeError,
    TransientError,
)

DEFAULT_MODEL = "voyage-3.5"
DEFAULT_BASE_URL = "https://api.voyageai.com/v1"
MAX_TEXTS = 1000
"""Texts in a request (docs.voyageai.com/reference/embeddings-api)."""
MAX_TEXT_TOKENS = 32_000
"""Tokens of one text that the model reads; the service cuts the rest."""
_MAX_REQUEST_TOKENS = {
    "voyage-3.5-lite": 1_000_000,
    "voyage-4-lite": 1_000_000,
    "voyage-3.5": 320_000,
    "voyage-4": 320_000,
}
_OTHER_MAX_REQUEST_TOKENS = 120_000
"""Tokens in a request, from the same page; the least of all models for those not named."""

PACKING_MARGIN = 1.1
"""How far below the request limit packing stays: tokens are estimated, and a refused request costs a call."""
SHARES = 32
"""A request takes at most this part of a minute's tokens, so that what no longer fits into a minute is little."""


class VoyageEmbedder:
    """Embeds texts with Voyage AI. Safe to call from several threads.

    Tokens are counted without the model's tokenizer, which would have to be downloaded: WordLlama's counts in
    its place, which has a smaller vocabulary (32,000) and so finds more tokens in the same text, and each answer
    corrects the estimate by the number that was charged.

    Args:
        api_key: the account's key; kept secret.
        template: version of the text template that the texts come from, part of the space.
        model, dimension: what to ask for.
        base_url: where; empty or None for Voyage AI itself.
        timeout_s: seconds to wait for a connection, and for each piece of the answer.
        requests_per_minute, tokens_per_minute: the account's quota; 0 for none.
        budget: in place of the process's shared one (tests).

    Raises:
        SettingsError: the key is missing or malformed.
    """

    provider = "voyage"

    def __init__(
        self,
        api_key: SecretStr | str | None,
        *,
        template: str = "",
        model: str = DEFAULT_MODEL,
        dimension: int = 1024,
        base_url: str | None = None,
        timeout_s: float = 60.0,
        requests_per_minute: int = 2000,
        tokens_per_minute: int = 8_000_000,
        budget: RateBudget | None = None,
    ) -> None:
        self._key = SecretStr(_checked_key(api_key))
        self._base_url = (base_url or DEFAULT_BASE_URL).rstrip("/")
        self._timeout_s = timeout_s
        self._budget = budget or shared_budget(
            f"voyage {self._base_url}", self._key.get_secret_value(), requests_per_minute, tokens_per_minute
        )
        self._space = EmbeddingSpace(
            model=model,
            weights="voyageai",
            preprocessing=f"input_type document or query; first {MAX_TEXT_TOKENS} tokens",
            dimension=dimension,
            template=template,
            label="Voyage AI",
        )
        self._charged = ChargedTokens()

    @property
    def tokens_used(self) -> int:
        """Tokens that answers were charged for since this embedder was made."""
        return self._charged.used

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "document")

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "query")

    def count_tokens(self, text: str) -> int:
        """An estimate of what the text is charged for; texts are charged up to the model's limit."""
        return min(MAX_TEXT_TOKENS, self._charged.estimate(count_wordllama_tokens(text)))

    def pack(self, texts: Sequence[str], batch_size: int) -> list[list[int]]:
        tokens = [self.count_tokens(text) for text in texts]
        return pack_by_tokens(tokens, min(batch_size, MAX_TEXTS), self.max_request_tokens)

    @property
    def max_request_tokens(self) -> float:
        """Estimated tokens that one request holds: the model's limit, and a fair share of a minute's quota."""
        limit = _MAX_REQUEST_TOKENS.get(self._space.model, _OTHER_MAX_REQUEST_TOKENS) / PACKING_MARGIN
        if quota := self._budget.tokens_per_minute:
            limit = min(limit, quota / min(SHARES, self._budget.requests_per_minute or SHARES))
        return limit

    def _embed(self, texts: Sequence[str], input_type: str) -> Vectors:
        if not texts:
            return np.empty((0, self._space.dimension), dtype=np.float32)
        if len(texts) > MAX_TEXTS:
            raise TooLargeError(f"voyage: a request takes {MAX_TEXTS} texts, got {len(texts)}")
        cleaned = clean_texts(texts)
        counted = [count_wordllama_tokens(text) for text in cleaned]
        expected = [self._charged.estimate(count) for count in counted]
        if max(expected) > MAX_TEXT_TOKENS:
            warn_of_cut_text("voyage", max(expected), MAX_TEXT_TOKENS)
        tokens = sum(min(MAX_TEXT_TOKENS, count) for count in expected)
        reservation = self._budget.acquire(requests=1, tokens=tokens)
        try:
            answer = self._request(cleaned, input_type)
        except ThrottledError as error:
            reservation.settle(0)
            if error.retry_after:
                self._budget.pause(error.retry_after)
            raise
        if (charged := total_tokens(answer)) is not None:
            reservation.settle(charged)
            self._charged.record(charged, sum(min(MAX_TEXT_TOKENS, count) for count in counted))
        return self._vectors(answer, len(cleaned))

    def _request(self, texts: list[str], input_type: str) -> dict[str, Any]:
        import voyageai

        api: Any = voyageai  # typed in part only
        refusal: EmbeddingAssetsError
        try:
            # voyageai 0.5.0: Client.embed drops the answer's `index`, so the layer below it is called, which has
            # no retries of its own
            answer = api.Embedding.create(
                api_key=self._key.get_secret_value(),
                base_url=self._base_url,
                request_timeout=self._timeout_s,
                input=texts,
                model=self._space.model,
                input_type=input_type,
                truncation=True,
                output_dimension=self._space.dimension,
            )
        except voyageai.error.VoyageError as error:
            refusal = refusal_of(error, len(texts), self._key)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # voyageai 0.5.0 trips over an answer that is no embeddings object: an error envelope, base64 cut off
            refusal = TransientError(f"voyage: the answer can't be read as vectors ({type(error).__name__})")
        else:
            if isinstance(answer, dict):
                return answer
            refusal = TransientError("voyage: the answer can't be read as vectors (no JSON object)")
        raise refusal  # not `from error`: the client's frames hold the key

    def _vectors(self, answer: dict[str, Any], count: int) -> Vectors:
        data = answer.get("data")
        if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
            raise TransientError("voyage: the answer has no list of vectors")
        if len(data) != count:
            raise TransientError(f"voyage: asked for {count} vectors, got {len(data)}")
        by_index = {item.get("index"): item.get("embedding") for item in data}
        if set(by_index) != set(range(count)):
            raise TransientError(f"voyage: the answer's vectors are not numbered from 0 to {count - 1}")
        return unit_vectors([by_index[index] for index in range(count)], self._space.dimension, "voyage")


def _checked_key(api_key: SecretStr | str | None) -> str:
    key = (api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key or "").strip()
    if not key:
        raise SettingsError(
            "text_provider=voyage needs a key: set VOYAGE_API_KEY (or EMBEDDING_ASSETS_VOYAGE_API_KEY)",
            hint="make one at dash.voyageai.com, or set text_provider=local",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError("voyage_api_key (VOYAGE_API_KEY) holds characters that no key has")
    return key
