"""Takes the model's text out of a chat completion, and tells when there is none to take."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from embedding_assets.analysis.errors import AnalysisUnreadable
from embedding_assets.analysis.qwen_errors import refusal_of_envelope
from embedding_assets.analysis.qwen_prompt import MAX_ANSWER_TOKENS
from embedding_assets.encoders.provider_errors import safe_text
from embedding_assets.errors import PermanentError, TransientError


def content_of(answer: dict[str, Any], *, key: SecretStr, formatted: bool) -> str:
    """The model's text in a chat completion.

    Args:
        answer: the endpoint's JSON.
        key: the API key, kept out of messages.
        formatted: whether a response format was asked for.

    Raises:
        AnalysisUnreadable: (transient) the text is empty, or was cut off at the limit of tokens.
        TransientError: the JSON is no chat completion.
        PermanentError: the content filter refuses the image.
        Any error of `qwen_errors`: an error message came in place of a completion.
    """
    choices = answer.get("choices")
    if not choices and (answer.get("error") or answer.get("message")):
        raise refusal_of_envelope(answer, key=key, formatted=formatted)
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        raise TransientError("qwen: the answer holds no message")
    reason = first.get("finish_reason")
    if reason == "content_filter" or message.get("refusal"):
        words = safe_text(message.get("refusal") or "no reason given", key)
        raise PermanentError(f"the provider's content filter refuses the image: {words}")
    if reason == "length":
        raise AnalysisUnreadable(
            f"the answer was cut off at {MAX_ANSWER_TOKENS} tokens (finish_reason length)"
        )
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    if not isinstance(content, str) or not content.strip():
        raise AnalysisUnreadable("the answer's message is empty")
    return content
