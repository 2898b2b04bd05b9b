"""What a text embedder is to the rest of the project, and what all of them check.

What belongs here: the protocol, packing of texts into requests, checks of texts and vectors. What does not: how
one provider is called (one module each), what is embedded (`analysis.to_text`), retries (`pipeline`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from embedding_assets.encoders.protocol import EmbeddingSpace, Vectors
from embedding_assets.errors import FatalError, PermanentError, TransientError

logger = logging.getLogger(__name__)


class TextEmbedder(Protocol):
    """Turns texts into vectors of `space`. Made for one version of the text template."""

    @property
    def provider(self) -> str:
        """The provider's name, as in the setting `text_provider`."""

    @property
    def space(self) -> EmbeddingSpace:
        """The space of the vectors, those of documents and of queries."""

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts to be found, shape (len(texts), space.dimension), unit length, in the same order.

        One call is one request and one attempt. A text longer than the model reads is cut at its limit, and a
        warning says so once a process. Raises errors of the five classes of `embedding_assets.errors`;
        PermanentError where a text is blank, TooLargeError where the texts are more than one request takes.
        """

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts to find by; otherwise like `embed_documents`."""

    def pack(self, texts: Sequence[str], batch_size: int) -> list[list[int]]:
        """Splits texts into requests: lists of positions, order kept, none of more than `batch_size` texts or
        more tokens than the provider takes. A text that is too long by itself has a request of its own."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text; where the provider's tokenizer can't be had offline, an estimate on the high side."""


def pack_by_tokens(tokens: Sequence[int], max_texts: int, max_tokens: float) -> list[list[int]]:
    """Splits texts into requests, first come first packed.

    Args:
        tokens: of each text.
        max_texts: texts in a request, at least 1.
        max_tokens: tokens in a request; a text with more goes alone.

    Returns:
        Positions of each request's texts: every position once, in order, no request empty.
    """
    if max_texts < 1:
        raise ValueError(f"a request holds at least one text, got max_texts={max_texts}")
    requests: list[list[int]] = []
    used = 0
    for position, count in enumerate(tokens):
        if not requests or len(requests[-1]) >= max_texts or used + count > max_tokens:
            requests.append([])
            used = 0
        requests[-1].append(position)
        used += count
    return requests


def clean_texts(texts: Sequence[str]) -> list[str]:
    """The texts as providers take them: no lone surrogates (they have no UTF-8 form), nothing blank.

    Raises:
        PermanentError: a text is blank. Callers skip those: a vector of nothing would be near to everything.
    """
    cleaned = [text.encode("utf-8", "replace").decode() for text in texts]
    for position, text in enumerate(cleaned):
        if not text.strip():
            raise PermanentError(f"text {position + 1} of {len(cleaned)} is blank: there is nothing to embed")
    return cleaned


def unit_vectors(rows: Sequence[Any], dimension: int, source: str) -> Vectors:
    """Checks a provider's vectors and gives them unit length.

    Args:
        rows: one list of numbers a text.
        dimension: numbers that each must have.
        source: who made them, for messages.

    Raises:
        TransientError: something other than finite numbers, a vector of zeros, vectors of unequal length: a
            garbled answer, which another call may mend.
        FatalError: all vectors have one length, and it is not `dimension`: the provider serves another model
            or dimension than configured, and would do so every time.
    """
    lengths = {len(row) if isinstance(row, list | tuple | np.ndarray) else -1 for row in rows}
    if len(lengths) == 1 and lengths != {dimension} and min(lengths) > 0:
        raise FatalError(
            f"{source}: expected vectors of {dimension} numbers, got {lengths.pop()}",
            hint="the configured model or dimension is not what the provider serves; nothing was stored",
        )
    if lengths - {dimension}:
        raise TransientError(f"{source}: the answer's vectors are not all of {dimension} numbers")
    try:
        vectors = np.asarray(rows, dtype=np.float64).reshape(len(rows), dimension)
    except (TypeError, ValueError):
        raise TransientError(f"{source}: the answer's vectors hold something that is no number") from None
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise TransientError(f"{source}: the answer's vectors hold NaN or infinity")
    if (norms == 0).any():
        raise TransientError(f"{source}: the answer holds a vector of zeros")
    return np.asarray(vectors / norms, dtype=np.float32)


_cut_sources: set[str] = set()


def warn_of_cut_text(source: str, tokens: int, limit: int) -> None:
    """Says, once a process and source, that texts are longer than the model reads."""
    if source not in _cut_sources:
        _cut_sources.add(source)
        logger.warning(
            "%s: a text of about %d tokens is longer than the %d that the model reads; its end is not embedded. "
            "Further ones are not reported.",
            source,
            tokens,
            limit,
        )
