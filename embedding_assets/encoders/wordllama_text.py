"""The text embedder that needs no network and no key: WordLlama, whose weights lie in its wheel.

A vector is the mean of the token vectors of a text (arXiv 2410.01790 describes the family of models): good at
shared words and near synonyms, blind to word order. Its space says which release of the package made it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors
from embedding_assets.encoders.text import clean_texts, pack_by_tokens, unit_vectors, warn_of_cut_text
from embedding_assets.errors import ModelUnavailable, PermanentError

CONFIG = "l2_supercat"
DIMENSION = 256
MAX_TEXT_TOKENS = 32_768
"""The model has no limit; this one bounds memory (32 MiB of token vectors) and equals the hosted model's."""
MAX_CALL_TOKENS = 262_144
"""Tokens of one call, so that a call stays a matter of seconds."""

_lock = threading.Lock()
_loaded: dict[str, Any] = {}


def _package_folder() -> Path:
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise ModelUnavailable(
            "the package wordllama is not installed",
            hint="pip install wordllama, or set text_provider=voyage",
        )
    return Path(spec.origin).parent


def wordllama_tokenizer() -> Any:
    """Its tokenizer (that of Llama 2, 32,000 tokens), without the weights; loaded once a process."""
    with _lock:
        if "tokenizer" not in _loaded:
            from tokenizers import Tokenizer

            path = _package_folder() / "tokenizers" / f"{CONFIG}_tokenizer_config.json"
            try:
                _loaded["tokenizer"] = Tokenizer.from_file(str(path))
            except Exception as error:  # tokenizers raises bare Exception
                raise ModelUnavailable(f"wordllama's tokenizer can't be read: {error}") from error
        return _loaded["tokenizer"]


def count_wordllama_tokens(text: str) -> int:
    """Tokens of a text in WordLlama's tokenizer, 0 for an empty one."""
    encoded = wordllama_tokenizer().encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False)
    return len(encoded.ids)


def _model() -> Any:
    with _lock:
        if "model" not in _loaded:
            folder = _package_folder()
            root = logging.getLogger()
            handlers, level = list(root.handlers), root.level
            try:
                from wordllama import WordLlama

                # 0.4.0: by default it looks for the tokenizer beside the weights, misses it, and downloads
                _loaded["model"] = WordLlama.load(
                    CONFIG, cache_dir=folder, dim=DIMENSION, disable_download=True
                )
            except (ImportError, OSError, ValueError) as error:
                raise ModelUnavailable(
                    f"wordllama's model can't be loaded: {error}", hint="reinstall the package wordllama"
                ) from error
            finally:
                # 0.4.0 calls logging.basicConfig(level=INFO) when imported
                root.handlers[:] = handlers
                root.setLevel(level)
        return _loaded["model"]


class WordLlamaEmbedder:
    """Embeds texts in this process, documents and queries alike. Deterministic: a text's vector depends on the
    text only, not on its batch-mates.

    Args:
        template: version of the text template that the texts come from, part of the space.
    """

    provider = "local"

    def __init__(self, template: str = "") -> None:
        self._space = EmbeddingSpace(
            model=f"wordllama/{CONFIG}",
            weights=f"wordllama=={version('wordllama')}",
            preprocessing=f"mean of token vectors; first {MAX_TEXT_TOKENS} tokens",
            dimension=DIMENSION,
            template=template,
            label="WordLlama",
        )

    @property
    def space(self) -> EmbeddingSpace:
        return self._space

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts)

    def count_tokens(self, text: str) -> int:
        return count_wordllama_tokens(text)

    def pack(self, texts: Sequence[str], batch_size: int) -> list[list[int]]:
        return pack_by_tokens([self.count_tokens(text) for text in texts], batch_size, MAX_CALL_TOKENS)

    def _embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, DIMENSION), dtype=np.float32)
        cleaned = [self._cut(text) for text in clean_texts(texts)]
        # one text at a time: the package pads a batch to its longest text, in memory as in time
        rows = _model().embed(cleaned, batch_size=1)
        if not np.linalg.norm(rows, axis=1).all():
            raise PermanentError("a text has no token that the model knows")
        return unit_vectors(list(rows), DIMENSION, "wordllama")

    def _cut(self, text: str) -> str:
        if len(text.encode()) < MAX_TEXT_TOKENS:  # a token stands for a byte or more, but for the leading one
            return text
        encoded = wordllama_tokenizer().encode(text, add_special_tokens=False)
        if len(encoded.ids) <= MAX_TEXT_TOKENS:
            return text
        warn_of_cut_text("wordllama", len(encoded.ids), MAX_TEXT_TOKENS)
        return text[: encoded.offsets[MAX_TEXT_TOKENS - 1][1]]
