"""Time that passes only when something sleeps."""

from __future__ import annotations

from datetime import datetime, timezone


class FakeClock:
    """Implements `pipeline.clock.Clock`; `sleeps` are the waits so far, in seconds."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, timezone.utc)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds
