"""Which of our error classes each refusal of an OpenAI-compatible endpoint is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from embedding_assets.encoders.provider_errors import retry_after, safe_text
from embedding_assets.errors import (
    EmbeddingAssetsError,
    FatalError,
    PermanentError,
    ThrottledError,
    TransientError,
)

_FORMAT = re.compile(
    r"response_format|json_schema|structured.?output|guided.?(json|decoding)|grammar", re.IGNORECASE
)
_MODEL = re.compile(
    r"model_not_found|\bmodel\b.{0,80}\b(does not exist|not (exist|found|supported|available))", re.IGNORECASE
)
_UNPAID = re.compile(r"\bArrearage\b", re.IGNORECASE)
"""Model Studio's code, with HTTP 400, for an account that owes money."""
_REFUSED = re.compile(r"DataInspection|data_inspection|content_filter|content policy|safety", re.IGNORECASE)
_PASSING_STATUS = {408, 409, 425}


class FormatNotTaken(PermanentError):  # noqa: N818 (a verdict on the endpoint, never leaves the analyser)
    """The endpoint does not know the response format that was asked for."""


def refusal_of_status(
    status: int, body: Any, headers: Mapping[str, str] | None, *, key: SecretStr, formatted: bool
) -> EmbeddingAssetsError:
    """Our error for an answer with an HTTP status that is no success.

    Args:
        status: of the answer.
        body: decoded JSON, or text.
        headers: of the answer.
        key: the API key, kept out of the message.
        formatted: whether a response format was asked for.

    Returns:
        Bad key, unpaid account, unknown model or path: fatal. 429: throttled, whatever its reason (Model Studio
        says "insufficient_quota" when a minute's tokens are used up, so it can't be told from an empty account;
        the batch core's patience ends both). 5xx and time-outs: transient. Anything else: this image's fault.
    """
    words = safe_text(error_text(body), key)
    told = f"qwen: HTTP {status}: {words}" if words else f"qwen: HTTP {status}"
    if status == 429:
        return ThrottledError(told, retry_after=retry_after(headers))
    if status in (401, 403):
        return FatalError(
            f"the vision endpoint refuses the API key (HTTP {status}): set QWEN_API_KEY, or "
            "EMBEDDING_ASSETS_QWEN_API_KEY, to a valid key of an account that may use the model",
            hint="check that the key belongs to qwen_base_url's region; nothing was counted against an image",
        )
    if status == 402 or _UNPAID.search(words):
        return FatalError(f"{told}: the account has to be paid for")
    if status == 400 and _MODEL.search(words):
        return FatalError(told, hint="check qwen_model: the endpoint does not serve it")
    if status in (404, 405):
        return FatalError(
            f"{told}: the endpoint does not know the model or the path",
            hint="check qwen_model and qwen_base_url (it ends before /chat/completions)",
        )
    if status >= 500 or status in _PASSING_STATUS:
        return TransientError(told)
    if formatted and status in (400, 422) and _FORMAT.search(words):
        return FormatNotTaken(told)
    if _REFUSED.search(words):
        return PermanentError(f"the provider's content filter refuses the image: {words}")
    return PermanentError(told)


def refusal_of_envelope(body: Mapping[str, Any], *, key: SecretStr, formatted: bool) -> EmbeddingAssetsError:
    """Our error for an error message that came with status 200, as gateways send it.

    Where it holds an HTTP status, that decides; else it is transient.
    """
    error = body.get("error")
    code = error.get("code") if isinstance(error, Mapping) else body.get("code")
    text = str(code)
    if text.isdigit() and 400 <= int(text) <= 599:
        return refusal_of_status(int(text), body, None, key=key, formatted=formatted)
    return TransientError(
        f"qwen: an error message with status 200: {safe_text(error_text(body) or 'no text', key)}"
    )


def error_text(body: Any) -> str:
    """Code and message of an error body, however the endpoint wraps them; "" where there is none."""
    if isinstance(body, Mapping):
        inner = next((body[name] for name in ("error", "detail") if body.get(name)), None)
        if inner is not None and inner is not body:
            return error_text(inner)
        parts = [str(body[name]) for name in ("code", "type", "message") if body.get(name)]
        return ": ".join(dict.fromkeys(parts))
    if isinstance(body, list):
        return "; ".join(error_text(part) or str(part) for part in body[:3])
    return "" if body is None else str(body)
