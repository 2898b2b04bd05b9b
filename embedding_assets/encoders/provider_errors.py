"""What hosted providers' refusals have in common: headers that say when to come back, and texts fit for a log.

A message from a provider can echo what was sent, the key included, and its client's own exceptions carry
frames and requests that hold the key. So providers raise our errors `from None`, with a text from `safe_text`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from pydantic import SecretStr

MAX_TEXT = 300
"""Characters of a provider's message that go into ours."""


def retry_after(headers: Mapping[str, str] | None, now: datetime | None = None) -> float | None:
    """Seconds that a provider asks to wait; None where it does not say, or says nonsense.

    Zero, and a date that has passed, count as not saying: "come back at once" from a provider that has just
    refused would be taken up without end.

    Args:
        headers: of its answer; names in any case. `retry-after-ms` (milliseconds) goes before `Retry-After`,
            which is a number of seconds or a date (RFC 9110, 10.2.3).
        now: the time that a date is compared with.
    """
    lowered = {str(name).lower(): str(value).strip() for name, value in (headers or {}).items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(lowered[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds > 0:
            return seconds
    try:
        moment = parsedate_to_datetime(lowered["retry-after"])
    except (KeyError, ValueError, TypeError, IndexError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    seconds = (moment - (now or datetime.now(timezone.utc))).total_seconds()
    return seconds if seconds > 0 else None


def safe_text(text: object, secret: SecretStr) -> str:
    """A provider's words on one line, of bounded length, with "[key]" where the secret stood.

    Secrets are passed around wrapped, so that no frame of a traceback shows them.
    """
    words = str(text)
    if value := secret.get_secret_value():
        words = words.replace(value, "[key]")
    words = " ".join(words.split())
    return words if len(words) <= MAX_TEXT else words[: MAX_TEXT - 3] + "..."
