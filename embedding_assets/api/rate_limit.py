"""How often somebody may ask: a token bucket for each key, in this process.

Several server processes would each have their own buckets; `embedding-assets serve` runs one. A bucket that has filled
up again is forgotten, so memory is bounded by who asked in the last seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from embedding_assets.api.problems import Problem, ProblemError

BURST_S = 15.0
"""A bucket holds what is allowed in so many seconds."""
_SWEEP = 10_000
"""Buckets from which on full ones are swept out."""


class RateLimiter:
    """Counts requests.

    Args:
        per_minute: requests that each may send in a minute, on average; 0: no limit.
        clock: seconds, never going back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = per_minute / 60
        self.capacity = max(1.0, self.rate * BURST_S)
        self.clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def count(self, who: str) -> None:
        """Counts one request; raises a 429 problem with Retry-After where there were too many."""
        if not self.rate:
            return
        now = self.clock()
        with self._lock:
            tokens, then = self._buckets.get(who, (self.capacity, now))
            tokens = min(self.capacity, tokens + (now - then) * self.rate)
            allowed = tokens >= 1
            self._buckets[who] = (tokens - 1 if allowed else tokens, now)
            if len(self._buckets) > _SWEEP:
                self._sweep(now)
        if not allowed:
            wait = max(1, -int(-(1 - tokens) / self.rate // 1))
            raise ProblemError(
                Problem(
                    429,
                    f"too many requests: {self.rate * 60:.0f} a minute are allowed",
                    f"try again in {wait} s",
                    headers={"Retry-After": str(wait)},
                )
            )

    def _sweep(self, now: float) -> None:
        full = [
            who
            for who, (tokens, then) in self._buckets.items()
            if tokens + (now - then) * self.rate >= self.capacity
        ]
        for who in full:
            del self._buckets[who]
