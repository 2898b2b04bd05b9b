"""Which of our error classes each refusal of Voyage AI is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import SecretStr

from embedding_assets.encoders.provider_errors import retry_after, safe_text
from embedding_assets.errors import (
    EmbeddingAssetsError,
    FatalError,
    PermanentError,
    ThrottledError,
    TooLargeError,
    TransientError,
)

if TYPE_CHECKING:
    from voyageai.error import VoyageError

_OVER_A_LIMIT = re.compile(
    r"max(imum)? allowed tokens|batch size|too[ _]many[ _](tokens|texts|inputs)|at most \d+", re.IGNORECASE
)
_WRONG_MODEL = re.compile(
    r"\bmodel\s+\S+\s+(is\s+)?(not (supported|found|available)|unknown)|does not exist|output_dimension",
    re.IGNORECASE,
)
_PASSING_STATUS = {408, 409, 425}


def refusal_of(error: VoyageError, texts: int, key: SecretStr) -> EmbeddingAssetsError:
    """Our error for one of the client's.

    Args:
        error: what the client raised. Its HTTP status decides, not its type: the client makes an `APIError` of
            every answer whose body it does not know, a 429 from a proxy included.
        texts: how many were in the request. What is over a limit is too large where it can be halved.
        key: the API key, kept out of the message.

    A 400 is too large where its message speaks of a limit, fatal where it speaks of the model or dimension
    (every request would fail), and else permanent: some text in it is refused, and the batch core finds it.
    """
    status = error.http_status
    words = safe_text(error.user_message or type(error).__name__, key)
    told = f"voyage: HTTP {status}: {words}" if status else f"voyage: {words}"
    if status == 429 or type(error).__name__ == "RateLimitError":
        return ThrottledError(told, retry_after=retry_after(error.headers))
    if status in (401, 403) or type(error).__name__ == "AuthenticationError":
        return FatalError(
            f"Voyage AI refuses the API key (HTTP {status or 401}): set VOYAGE_API_KEY, or "
            "EMBEDDING_ASSETS_VOYAGE_API_KEY, to a valid key of an account that may use the model",
            hint="check the key at dash.voyageai.com; nothing was counted against an image",
        )
    if status == 402:
        return FatalError(f"{told}: the account has to be paid for", hint="see dash.voyageai.com")
    if status in (404, 405):
        return FatalError(told, hint="check voyage_base_url and voyage_model")
    if status == 413 or (status == 400 and _OVER_A_LIMIT.search(words)):
        return TooLargeError(told) if texts > 1 else PermanentError(told)
    if status == 400 and _WRONG_MODEL.search(words):
        return FatalError(told, hint="check voyage_model and voyage_dimension")
    if status is None or status < 400 or status >= 500 or status in _PASSING_STATUS:
        return TransientError(told)
    return PermanentError(told)
