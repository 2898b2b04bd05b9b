"""Clocks that do not wait, for budgets and batches."""

from __future__ import annotations

import threading
from datetime import datetime, timezone

from embedding_assets.encoders.rate_limit import RateBudget


class FakeClock:
    """Time that passes only when something waits: a clock for the batch core and for a budget at once."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, timezone.utc)

    def sleep(self, seconds: float) -> None:
        """The batch core waits."""
        self.sleeps.append(seconds)
        self.time += seconds

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """A budget waits."""
        if seconds is None:
            condition.wait(5)
            return
        self.waits.append(seconds)
        self.time += seconds


class SteppedClock:
    """Time that passes only when the test says so, while threads wait for it."""

    def __init__(self) -> None:
        self.time = 0.0
        self.waits = 0
        self._conditions: set[threading.Condition] = set()

    def monotonic(self) -> float:
        return self.time

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        self.waits += 1
        self._conditions.add(condition)
        condition.wait(10)

    def advance(self, seconds: float) -> None:
        """Lets time pass and wakes those who wait for it."""
        self.time += seconds
        for condition in list(self._conditions):
            with condition:
                condition.notify_all()


def no_quota(clock: FakeClock | None = None) -> RateBudget:
    """A budget without limits, of its own (not the process's shared one)."""
    return RateBudget(0, 0, clock or FakeClock())
