"""Headers that say when to come back, and texts fit for a log."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from pydantic import SecretStr

from embedding_assets.encoders.provider_errors import MAX_TEXT, retry_after, safe_text

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (None, None),
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"RETRY-AFTER": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"Retry-After": "Sun, 01 Mar 2026 11:00:00 GMT"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "0"}, None),
    ],
)
def test_retry_after(headers: dict[str, str] | None, seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


def test_a_providers_words_are_one_bounded_line_without_the_key() -> None:
    words = safe_text("bad\n key:\tsk-123 \x00" + "x" * 1000, SecretStr("sk-123"))
    assert words.startswith("bad key: [key]")
    assert len(words) == MAX_TEXT
    assert safe_text("no key given", SecretStr("")) == "no key given"
