"""What a provider charges for what we count: learned from its answers, used for the next estimate."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import Any

_WEIGHT = 0.3
"""Part of the newest answer in the running ratio: three answers in, two thirds of the way."""
_BOUNDS = (0.25, 4.0)


class ChargedTokens:
    """Running ratio of charged to counted tokens, and the sum of those charged. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ratio = 1.0
        self.used = 0

    def estimate(self, counted: int) -> int:
        """Tokens that a request with `counted` tokens will probably be charged for, rounded up."""
        return math.ceil(counted * self._ratio)

    def record(self, charged: int, counted: int) -> None:
        """Takes note of an answer: what it was charged for, and what had been counted for its request."""
        with self._lock:
            self.used += charged
            if charged > 0 and counted > 0:
                low, high = _BOUNDS
                self._ratio += _WEIGHT * (min(high, max(low, charged / counted)) - self._ratio)


def total_tokens(answer: Mapping[str, Any]) -> int | None:
    """`usage.total_tokens` of an answer; None where it says none."""
    usage = answer.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, Mapping) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and total >= 0 else None
